"""Waiting in the gateway: in order, visibly, and at no cost to Ollama."""

import asyncio

import orjson
import pytest

from gateway.demo import Simulator
from tests.asks import chat, quick
from tests.gateways import gateway
from tests.sse import Event, ending
from tests.upstreams import ONCE_DONE, Peer, streams, token, upstream

SHORT = chat("Hi", options={"num_predict": 3})


def positions(events: list[Event]) -> list[int]:
    """The queue positions that a viewer was shown, without repeats."""
    shown = [event.json.get("position") for event in events if event.name == "status"]
    return [
        position for position, before in zip(shown, [None, *shown], strict=False) if position and position != before
    ]


async def test_two_run_and_eighteen_wait_in_order() -> None:
    """Never more than two upstream; served first come, first served; everybody sees the position count down."""
    running: list[int] = []
    go_on = asyncio.Event()

    async def answer(peer: Peer) -> None:
        running.append(ollama.open)
        await go_on.wait()
        await streams(token("a"), ONCE_DONE)(peer)

    async with upstream(answer) as ollama, gateway(ollama.url, max_active=2, status_interval=0.1) as gw:
        started = [await gw.start(chat=SHORT | {"keep_alive": number}) for number in range(-1, 19)]
        reading = [asyncio.create_task(gw.read(f"/api/streams/{sid}")) for sid in started]
        while gw.state["streams"].running.viewers < len(reading):
            async with gw.session.get(gw.url + "/healthz"):
                pass
        go_on.set()
        readings = await asyncio.gather(*reading)
        served = [orjson.loads(request.body)["keep_alive"] for request in ollama.asked("/api/chat")]
    assert max(running) == 2
    assert sorted(served) == list(range(-1, 19))
    # two that get their slots at one moment take two connections, which may come in either order
    assert max(abs(place - number) for place, number in enumerate(served, -1)) <= 1
    assert {ending(events) for events in readings} == {("complete", None)}
    for place, events in enumerate(readings[2:], 1):
        shown = positions(events)
        assert shown[0] == place
        assert shown == sorted(shown, reverse=True)  # two that leave at the same moment are one step


async def test_a_client_with_many_requests_does_not_hold_up_another() -> None:
    """The other one's request is the next, and that it is tells its position."""
    simulator = quick(token_rate=1)
    async with gateway(simulator, max_active=1, attach_timeout=30, api_keys=f"a:{'a' * 16},b:{'b' * 16}") as gw:
        gw.session.headers["Authorization"] = "Bearer " + "a" * 16
        running, second, *_ = [await gw.start(chat=SHORT | {"keep_alive": number}) for number in range(1, 5)]
        gw.session.headers["Authorization"] = "Bearer " + "b" * 16
        other = await gw.start(chat=SHORT | {"keep_alive": 9})
        async with gw.open(f"/api/streams/{other}") as events:
            assert (await events.next("status")).json.items() >= {"position": 1, "reason": "slots"}.items()
            async with gw.open(f"/api/streams/{second}") as overtaken:
                assert (await overtaken.next("status")).json["reason"] == "fairness"
            await gw.session.delete(f"{gw.url}/api/streams/{running}")
            await simulator.until(lambda: len(simulator.requests) == 2)
        assert orjson.loads(simulator.requests[1].body)["keep_alive"] == 9


async def test_a_leaver_s_place_closes_up() -> None:
    simulator = quick(token_rate=1)
    async with gateway(simulator, max_active=1, attach_timeout=30) as gw:
        await gw.start(chat=SHORT)
        leaver, stayer = [await gw.start(chat=SHORT) for _ in range(2)]
        async with gw.open(f"/api/streams/{stayer}") as stays:
            assert (await stays.next("status")).json["position"] == 2
            async with gw.open(f"/api/streams/{leaver}") as leaves:
                assert (await leaves.next("status")).json["position"] == 1
            assert (await stays.next("status")).json["position"] == 1
        assert len(simulator.requests) == 1


async def test_beyond_the_queue_it_is_busy_and_a_freed_place_can_be_had() -> None:
    simulator = quick(token_rate=1)
    async with gateway(simulator, max_active=1, max_queued=1) as gw:
        await gw.start(chat=SHORT)
        waiting = await gw.start(chat=SHORT)
        async with gw.session.post(gw.url + "/api/streams", json={"chat": SHORT}) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            body = await response.json()
            assert (body["code"], body["retryable"]) == ("busy", True)
        events = await gw.read("/api/chat?model=llama3.2&prompt=Hi", headers={"Accept": "text/event-stream"})
        assert ending(events) == ("error", "busy")
        async with gw.session.delete(f"{gw.url}/api/streams/{waiting}"):
            pass
        await gw.start(chat=SHORT)


@pytest.mark.parametrize(
    "model", ["llama3.2", "nope", "fault:error-500", "fault:crash", "fault:truncate", "fault:empty", "fault:bare-eof"]
)
async def test_a_slot_is_given_back_however_it_ends(model: str) -> None:
    simulator = quick()
    async with gateway(simulator, max_active=1, max_queued=0) as gw:
        for _ in range(3):
            events = await gw.read("/api/chat", json=SHORT | {"model": model})
            ending(events)
            await simulator.until(lambda: simulator.running == 0)


async def test_a_stream_that_nobody_reads_gives_way_to_those_who_wait() -> None:
    """However long its window is; whoever comes back can read what there was of it."""
    simulator = quick(token_rate=20)
    long = chat("Tell me about bridges", options={"num_predict": 2000, "seed": 1})
    async with gateway(simulator, max_active=1, unwatched_grace=0.3) as gw:
        sid = await gw.start(chat=long, resume_window=300)
        async with gw.open(f"/api/streams/{sid}") as events:
            await events.next("message")
        async with asyncio.timeout(10):
            assert ending(await gw.read("/api/chat", json=SHORT)) == ("complete", None)
        left = await gw.read(f"/api/streams/{sid}")
        assert ending(left) == ("cancelled", "cancelled")
        assert [event.name for event in left].count("message") > 1


async def test_with_nobody_waiting_the_window_holds_in_full() -> None:
    simulator = quick(token_rate=20)
    async with gateway(simulator, max_active=1, unwatched_grace=0.1) as gw:
        sid = await gw.start(
            chat=chat("Tell me about bridges", options={"num_predict": 30, "seed": 1}), resume_window=60
        )
        await gw.state["streams"].running.idle()
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)


async def test_status_events_are_a_heartbeat_until_the_first_token() -> None:
    simulator = Simulator(token_rate=20, load_seconds=0.7, prompt_seconds=0.7)
    async with gateway(simulator, status_interval=0.1) as gw:
        events = await gw.read("/api/chat", json=SHORT)
        status = [event.json for event in events if event.name == "status"]
        phases = list(dict.fromkeys(each["phase"] for each in status))
        assert phases == ["starting", "loading", "prompt"]
        elapsed = [each["elapsed_ms"] for each in status]
        assert elapsed == sorted(elapsed)
        assert len(status) >= 8
        names = [event.name for event in events]
        assert "status" not in names[names.index("message") :]


async def test_the_wait_is_estimated_from_what_others_took() -> None:
    """Nothing is told while nothing is known."""
    simulator = quick(token_rate=20)
    async with gateway(simulator, max_active=1, status_interval=0.1) as gw:
        ten = chat("Tell me about bridges", options={"num_predict": 10, "seed": 1})
        first = asyncio.create_task(gw.read("/api/chat", json=ten))
        await simulator.until(lambda: simulator.running == 1)
        told = [event.json for event in await gw.read("/api/chat", json=ten) if event.name == "status"]
        assert told[0]["phase"] == "queued"
        assert "eta_ms" not in told[0]
        await first
        reading = [asyncio.create_task(gw.read("/api/chat", json=ten)) for _ in range(3)]
        shown = [
            [event.json for event in events if event.name == "status"] for events in await asyncio.gather(*reading)
        ]
        waits = [[each["eta_ms"] for each in events if each["phase"] == "queued"] for events in shown]
        assert 0 < waits[1][0] < waits[2][0]  # the first did not wait
        assert min(waits[1] + waits[2]) >= 0
