"""Waiting in the gateway: in order, visibly, and at no cost to Ollama."""

import asyncio

import orjson
import pytest

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.sse import Event, ending

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hi"}], "options": {"num_predict": 3}}


def positions(events: list[Event]) -> list[int]:
    """The queue positions a viewer was shown, repeats left out."""
    shown = [event.json.get("position") for event in events if event.name == "status"]
    return [
        position for position, before in zip(shown, [None, *shown], strict=False) if position and position != before
    ]


async def test_two_run_and_eighteen_wait_in_order() -> None:
    """Never more than two upstream; served first come, first served; everybody sees the position count down."""
    simulator = Simulator(token_rate=30, load_seconds=0, prompt_seconds=0.05)
    running: list[int] = []

    def never() -> bool:
        running.append(simulator.running)
        return False

    async with gateway(simulator, max_active=2, status_interval=0.1) as gw:
        observer = asyncio.create_task(simulator.until(never))  # looks at every change
        sids = [await gw.start(chat=CHAT | {"keep_alive": number + 1}) for number in range(20)]
        readings = await asyncio.gather(*(gw.read(f"/api/streams/{sid}") for sid in sids))
        observer.cancel()
    assert max(running) == 2
    assert [orjson.loads(request.body)["keep_alive"] for request in simulator.requests] == list(range(1, 21))
    assert {ending(events) for events in readings} == {("complete", None)}
    for number, events in enumerate(readings):
        assert positions(events) == list(range(number - 1, 0, -1)), number


async def test_a_leaver_s_place_closes_up() -> None:
    simulator = Simulator(token_rate=1, load_seconds=0, prompt_seconds=0)
    async with gateway(simulator, max_active=1, attach_timeout=30) as gw:
        await gw.start(chat=CHAT)
        leaver, stayer = [await gw.start(chat=CHAT) for _ in range(2)]
        async with gw.open(f"/api/streams/{stayer}") as stays:
            assert (await stays.next("status")).json["position"] == 2
            async with gw.open(f"/api/streams/{leaver}") as leaves:
                assert (await leaves.next("status")).json["position"] == 1
            assert (await stays.next("status")).json["position"] == 1
        assert len(simulator.requests) == 1


async def test_beyond_the_queue_it_is_busy_and_a_freed_place_can_be_had() -> None:
    simulator = Simulator(token_rate=1, load_seconds=0, prompt_seconds=0)
    async with gateway(simulator, max_active=1, max_queued=1) as gw:
        await gw.start(chat=CHAT)
        waiting = await gw.start(chat=CHAT)
        async with gw.session.post(gw.url + "/api/streams", json={"chat": CHAT}) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            body = await response.json()
            assert (body["code"], body["retryable"]) == ("busy", True)
        events = await gw.read("/api/chat?model=llama3.2&prompt=Hi", headers={"Accept": "text/event-stream"})
        assert ending(events) == ("error", "busy")
        async with gw.session.delete(f"{gw.url}/api/streams/{waiting}"):
            pass
        await gw.start(chat=CHAT)


@pytest.mark.parametrize(
    "model", ["llama3.2", "nope", "fault:error-500", "fault:crash", "fault:truncate", "fault:empty", "fault:bare-eof"]
)
async def test_a_slot_is_given_back_however_it_ends(model: str) -> None:
    simulator = Simulator(token_rate=0, load_seconds=0, prompt_seconds=0)
    async with gateway(simulator, max_active=1, max_queued=0) as gw:
        for _ in range(3):
            events = await gw.read("/api/chat", json=CHAT | {"model": model})
            ending(events)
            await simulator.until(lambda: simulator.running == 0)


async def test_status_events_are_a_heartbeat_until_the_first_token() -> None:
    simulator = Simulator(token_rate=20, load_seconds=0.7, prompt_seconds=0.7)
    async with gateway(simulator, status_interval=0.1) as gw:
        events = await gw.read("/api/chat", json=CHAT)
        status = [event.json for event in events if event.name == "status"]
        phases = list(dict.fromkeys(each["phase"] for each in status))
        assert phases == ["loading", "prompt"]
        elapsed = [each["elapsed_ms"] for each in status]
        assert elapsed == sorted(elapsed)
        assert len(status) >= 8
        names = [event.name for event in events]
        assert "status" not in names[names.index("message") :]
