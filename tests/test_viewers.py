"""Viewers are cursors: any number of them costs one upstream, and none of them can slow another."""

import asyncio
import gc
import random

import orjson
import pytest

from gateway.demo import Simulator
from tests.asks import TABLE, chat, quick
from tests.gateways import Gateway, gateway
from tests.raw import stalled
from tests.sse import Event, ending, messages, text
from tests.waits import until


def numbered(events: list[Event]) -> list[Event]:
    return [event for event in events if event.id]


@pytest.mark.slow
async def test_200_viewers_at_random_times_read_the_same() -> None:
    """One of 201 stalls; the others read the same bytes, from one upstream request."""
    simulator = Simulator(token_rate=150, load_seconds=0.1, prompt_seconds=0.1)
    async with gateway(simulator) as gw:
        sid = await gw.start(chat=TABLE)
        path = f"/api/streams/{sid}"

        async def late() -> list[Event]:
            await asyncio.sleep(random.uniform(0, 1.2))
            return numbered(await gw.read(path))

        with stalled(gw.url, path):
            readings = await asyncio.gather(*(late() for _ in range(200)))
        assert ending(readings[0]) == ("complete", None)
        assert all(reading == readings[0] for reading in readings)
        assert len(simulator.requests) == 1


async def test_a_viewer_that_reads_nothing_holds_nobody_up() -> None:
    """An answer far larger than any socket buffer completes, upstream and for others, beside a stalled viewer."""
    simulator = quick()
    async with gateway(simulator, retain_seconds=0.2) as gw:
        sid = await gw.start(chat=TABLE | {"model": "fault:burst"})
        path = f"/api/streams/{sid}"
        with stalled(gw.url, path):
            events = await gw.read(path)
            assert ending(events) == ("complete", None)
            assert len(messages(events)) > 4000
            # the stalled viewer is still there, and yet the log goes when its time has come
            await until(lambda: gw.state["streams"].logs.size == 0)


async def test_with_the_last_viewer_the_upstream_request_goes() -> None:
    simulator = quick(token_rate=20)
    async with gateway(simulator) as gw:
        sid = await gw.start(chat=TABLE)
        async with gw.open(f"/api/streams/{sid}") as first:
            async with gw.open(f"/api/streams/{sid}") as second:
                await first.next()
                await second.next()
            await first.next()
            assert simulator.running == 1
        await simulator.until(lambda: simulator.running == 0)
        assert simulator.requests[0].state == "cancelled"
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("cancelled", "cancelled")


async def test_a_resume_window_keeps_an_unwatched_generation() -> None:
    simulator = quick(token_rate=100)
    async with gateway(simulator) as gw:
        body = TABLE | {"options": {"num_predict": 40}}
        sid = await gw.start(chat=body, resume_window=30)
        async with gw.open(f"/api/streams/{sid}") as events:
            await events.next()
        await simulator.until(lambda: simulator.running == 0)
        assert simulator.requests[0].state == "done"
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)


async def test_a_resume_window_is_capped_and_ends() -> None:
    simulator = quick(token_rate=1)
    async with gateway(simulator, max_resume_window=0.1) as gw:
        sid = await gw.start(chat=TABLE, resume_window=3600)
        async with gw.open(f"/api/streams/{sid}") as events:
            await events.next()
        await simulator.until(lambda: simulator.running == 0)
        assert simulator.requests[0].state == "cancelled"
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("cancelled", "cancelled")


async def test_a_viewer_within_the_window_keeps_it_for_good() -> None:
    simulator = quick(token_rate=10)
    async with gateway(simulator, max_resume_window=0.3) as gw:
        sid = await gw.start(chat=TABLE | {"options": {"num_predict": 10}}, resume_window=0.3)
        async with gw.open(f"/api/streams/{sid}") as events:
            await events.next()
        # it runs for a second, so unwatched it would be cancelled
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)


async def test_a_stream_that_nobody_attaches_to_is_cancelled() -> None:
    simulator = quick(token_rate=1)
    async with gateway(simulator, attach_timeout=0.1) as gw:
        sid = await gw.start(chat=TABLE)
        await simulator.until(lambda: simulator.requests[0].state == "cancelled" if simulator.requests else False)
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("cancelled", "cancelled")


async def test_a_stream_is_created_with_its_location_and_starts_at_once() -> None:
    simulator = quick()
    async with gateway(simulator) as gw:
        async with gw.session.post(gw.url + "/api/streams", json={"chat": TABLE}) as response:
            assert response.status == 201
            body = await response.json()
            assert body == {"id": body["id"], "url": f"/api/streams/{body['id']}", "kind": "chat", "model": "llama3.2"}
            assert response.headers["Location"] == body["url"]
        await simulator.until(lambda: simulator.states["done"] == 1)  # without any viewer
        events = await gw.read(body["url"])
        assert events[0].name == "meta"
        assert events[0].json == {"v": 1, **body}
        assert ending(events) == ("complete", None)


async def test_nothing_is_kept_beyond_its_retention() -> None:
    simulator = quick()
    async with gateway(simulator, retain_seconds=0.2) as gw:
        path = "/api/chat?model=llama3.2&prompt=Hi"
        events = await gw.read(path)
        sid = events[0].json["id"]
        assert numbered(await gw.read(f"/api/streams/{sid}")) == numbered(events)
        await until(lambda: gw.state["streams"].logs.size == 0)
        async with gw.session.get(f"{gw.url}/api/streams/{sid}") as response:
            assert response.status == 404
        async with gw.session.get(gw.url + path, headers={"Last-Event-ID": events[3].id or ""}) as response:
            assert response.status == 204
        assert len(simulator.requests) == 1


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


async def generations(gw: Gateway, number: int, at_once: int = 25) -> None:
    async def some() -> None:
        for _ in range(number // at_once):
            async with gw.session.post(gw.url + "/api/chat", json=SHORT) as response:
                assert b"event: end" in await response.read()

    await asyncio.gather(*(some() for _ in range(at_once)))


SHORT = chat("Hi", options={"num_predict": 4})


@pytest.mark.slow
async def test_memory_returns_to_its_baseline_after_3000_generations() -> None:
    simulator = quick(parallel=64)
    async with gateway(simulator, num_parallel=64, retain_seconds=0.5) as gw:

        async def memory_after(number: int) -> float:
            await generations(gw, number)
            await until(lambda: not gw.state["streams"].logs.size)
            gc.collect()
            return resident_mb()

        before = await memory_after(2000)  # until caches and the allocator's arenas have their size
        assert await memory_after(3000) - before < 4
        assert simulator.running == 0
        assert not gw.state["streams"].running


async def test_a_long_stream_that_crosses_its_bound_ends_and_harms_no_other() -> None:
    simulator = quick()
    async with gateway(simulator, max_stream_bytes=100_000) as gw:
        burst = TABLE | {"model": "fault:burst", "options": {"num_predict": 5000}}
        long, short = await asyncio.gather(gw.read("/api/chat", json=burst), gw.read("/api/chat", json=SHORT))
        assert ending(long) == ("error", "too_large")
        assert "GATEWAY_MAX_STREAM_BYTES" in messages(long)[-1].json["error"]
        assert ending(short) == ("complete", None)
        await simulator.until(lambda: simulator.running == 0)


async def test_under_pressure_the_oldest_ended_log_goes_first() -> None:
    simulator = quick()
    async with gateway(simulator, max_log_bytes=60_000) as gw:
        body = TABLE | {"model": "fault:burst", "options": {"num_predict": 100}}
        sids = [(await gw.read("/api/chat", json=body))[0].json["id"] for _ in range(5)]
        held = [await gw.state["streams"].log(sid) is not None for sid in sids]
        assert held == sorted(held), "an older log outlived a younger one"
        assert not held[0]
        assert held[-1]


async def test_running_streams_that_fill_the_memory_end_as_busy_and_free_it() -> None:
    simulator = quick()
    async with gateway(simulator, max_log_bytes=100_000) as gw:
        burst = TABLE | {"model": "fault:burst", "options": {"num_predict": 5000}}
        events = await gw.read("/api/chat", json=burst)
        assert ending(events) == ("error", "busy")
        assert "GATEWAY_MAX_LOG_BYTES" in messages(events)[-1].json["error"]
        assert ending(await gw.read("/api/chat", json=SHORT)) == ("complete", None)


async def test_bytes_count_exactly_what_is_held() -> None:
    simulator = quick()
    async with gateway(simulator, retain_seconds=0.2) as gw:
        await asyncio.gather(*(gw.read("/api/chat", json=SHORT) for _ in range(20)))
        assert gw.state["streams"].logs.size > 0
        await until(lambda: gw.state["streams"].logs.size == 0)


async def test_pulls_are_refused_unless_allowed() -> None:
    simulator = Simulator()
    async with gateway(simulator) as gw:
        async with gw.session.post(gw.url + "/api/streams", json={"pull": {"model": "tiny"}}) as response:
            assert response.status == 403
            assert "GATEWAY_ALLOW_PULL" in (await response.json())["error"]
        assert not simulator.requests


async def test_two_viewers_of_a_pull_share_it_and_one_may_leave() -> None:
    simulator = Simulator(pull_seconds=0.5)
    async with gateway(simulator, allow_pull=True) as gw:
        first, second = [await gw.start(pull={"model": "tiny"}) for _ in range(2)]
        assert first == second
        async with gw.open(f"/api/streams/{first}") as leaver, gw.open(f"/api/streams/{second}") as stayer:
            await leaver.next()
            leaver.response.close()
            events = [event async for event in stayer]
        assert ending(events) == ("complete", None)
        assert messages(events)[-1].json == {"status": "success"}
        assert len(simulator.requests) == 1
        async with gw.session.get(gw.url + "/api/models") as response:
            assert "tiny:latest" in [model["name"] for model in (await response.json())["models"]]


async def test_a_pull_that_nobody_watches_any_more_stops() -> None:
    simulator = Simulator(pull_seconds=60)
    async with gateway(simulator, allow_pull=True) as gw:
        sid = await gw.start(pull={"model": "tiny"})
        async with gw.open(f"/api/streams/{sid}") as events:
            await events.next()
        await simulator.until(lambda: simulator.running == 0)
        assert simulator.requests[0].state == "cancelled"


async def test_a_pull_waits_for_no_slot() -> None:
    simulator = quick(token_rate=1, pull_seconds=0.1)
    async with (
        gateway(simulator, allow_pull=True, max_active=1, max_queued=0) as gw,
        gw.open("/api/chat?model=llama3.2&prompt=Hi") as events,
    ):
        await events.next()
        sid = await gw.start(pull={"model": "tiny"})
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)


async def test_a_failing_pull_is_an_error() -> None:
    async with gateway(Simulator(), allow_pull=True) as gw:
        sid = await gw.start(pull={"model": "nope"})
        events = await gw.read(f"/api/streams/{sid}")
        assert ending(events) == ("error", "ollama_error")
        assert messages(events)[-1].json["phase"] == "pulling"


async def test_chat_and_generate_read_alike_as_resource_and_one_shot() -> None:
    simulator = quick()
    async with gateway(simulator) as gw:
        options = {"seed": 3}
        asks = [
            await gw.read("/api/chat?model=llama3.2&prompt=Hi&options.seed=3"),
            await gw.read("/api/generate?model=llama3.2&prompt=Hi&options.seed=3"),
            await gw.read("/api/generate", json={"model": "llama3.2", "prompt": "Hi", "options": options}),
            await gw.read(
                "/api/streams/"
                + await gw.start(generate={"model": "llama3.2", "prompt": "Hi", "options": options, "stream": False})
            ),
        ]
        assert len({text(events) for events in asks}) == 1
        assert [ending(events) for events in asks] == [("complete", None)] * 4
        assert "stream" not in orjson.loads(simulator.requests[-1].body)


@pytest.mark.parametrize(
    "body", [{}, {"chat": TABLE, "pull": {"model": "x"}}, {"chat": TABLE, "nonsense": 1}, {"pull": {}}]
)
async def test_a_stream_is_one_kind_of_request(body: dict[str, object]) -> None:
    async with (
        gateway(Simulator(), allow_pull=True) as gw,
        gw.session.post(gw.url + "/api/streams", json=body) as response,
    ):
        assert response.status == 422
        assert (await response.json())["code"] == "invalid_request"
