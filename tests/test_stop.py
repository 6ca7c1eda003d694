"""Stop always stops: in every phase, for every viewer, at once."""

import asyncio
import random
from collections import Counter

import pytest

from gateway.demo import Simulator
from tests.asks import STORY, TABLE, quick
from tests.gateways import Gateway, gateway
from tests.sse import Event, ending, messages


async def stop(gw: Gateway, sid: str) -> None:
    async with gw.session.delete(f"{gw.url}/api/streams/{sid}") as response:
        assert response.status == 204


@pytest.mark.timeout(120)
@pytest.mark.slow
async def test_300_generations_in_every_phase_are_stopped_from_outside() -> None:
    """Queued, waiting at Ollama, generating: all upstream requests close, every viewer is told once."""
    simulator = Simulator(token_rate=5, load_seconds=0.6, prompt_seconds=0.6, parallel=40)
    async with gateway(simulator, max_active=200, num_parallel=200, status_interval=0.1) as gw:
        sids: list[str] = []
        viewers: list[asyncio.Task[list[Event]]] = []
        for number in range(300):
            # some still load while others, asked before, generate already
            model = "fault:slow-load" if number % 5 == 4 else "llama3.2"
            sids.append(await gw.start(chat=STORY | {"model": model}))
            viewers += [asyncio.create_task(gw.read(f"/api/streams/{sids[-1]}")) for _ in range(1 + number % 2)]
            if number == 100:
                await simulator.until(lambda: simulator.states["generating"] > 20)
        await simulator.until(lambda: simulator.states["waiting"] + simulator.states["loading"] > 0)
        random.shuffle(sids)
        await asyncio.gather(*(stop(gw, sid) for sid in sids))
        await simulator.until(lambda: simulator.running == 0)
        readings = await asyncio.gather(*viewers)
        assert {ending(events) for events in readings} == {("cancelled", "cancelled")}
        phases = Counter(messages(events)[-1].json["phase"] for events in readings)
        assert phases.keys() >= {"queued", "starting", "generating"}, phases
        assert simulator.states["done"] == 0
        assert not gw.state["streams"].running


async def test_stopping_is_idempotent_and_what_is_unknown_is_stopped_already() -> None:
    simulator = quick(token_rate=5)
    async with gateway(simulator) as gw:
        sid = await gw.start(chat=TABLE)
        for _ in range(3):
            await stop(gw, sid)
        await stop(gw, "0" * 32)
        events = await gw.read(f"/api/streams/{sid}")
        assert ending(events) == ("cancelled", "cancelled")
        assert messages(events)[-1].json["retryable"] is False


async def test_stopping_what_has_ended_changes_nothing() -> None:
    simulator = quick()
    async with gateway(simulator) as gw:
        sid = await gw.start(chat=TABLE)
        before = await gw.read(f"/api/streams/{sid}")
        await stop(gw, sid)
        after = await gw.read(f"/api/streams/{sid}")
        assert [event for event in before if event.id] == [event for event in after if event.id]
        assert ending(after) == ("complete", None)
