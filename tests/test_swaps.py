"""The queue knows the models: as few loads as possible, and nobody waits for ever for one."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.demo import Simulator
from gateway.demo.models import Model
from tests.asks import chat, quick
from tests.gateways import Gateway, gateway
from tests.sse import ending
from tests.upstreams import ONCE_DONE, Peer, says, silence, streams, token, upstream, whole
from tests.waits import until

SHORT = {"options": {"num_predict": 3, "seed": 1}}


def tight(**settings: float) -> Simulator:
    """One with room for one model, which serves one request at a time."""
    return quick(**{"max_loaded": 1, "parallel": 1, "load_seconds": 0.1, "token_rate": 50} | settings)


async def ask(gw: Gateway, model: str, **fields: Any) -> None:
    assert ending(await gw.read("/api/chat", json=chat("Hi", **SHORT | fields) | {"model": model})) == (
        "complete",
        None,
    )


async def test_requests_that_alternate_between_two_models_swap_seldom() -> None:
    """Twelve loads without that knowledge, two or three with it, and a few more where the machine is slow to tell."""
    simulator = tight()
    async with gateway(simulator) as gw:
        await asyncio.gather(*(ask(gw, model) for model in ("llama3.2", "gemma3") * 6))
    assert len(simulator.loads) <= 6, simulator.loads


async def test_with_room_for_both_nobody_is_held_back() -> None:
    simulator = tight(max_loaded=2)
    async with gateway(simulator) as gw, gw.open("/api/chat", json=chat("Hi", model="fault:stall")) as first:
        await first.next()
        for model in ("gemma3", "llama3.2"):
            await ask(gw, model)
    assert len(simulator.loads) == 3


async def test_a_model_that_is_being_loaded_holds_up_nobody_who_asks_for_another() -> None:
    """However many ask for it: they have no more slots than Ollama has answers for them at once."""
    simulator = tight(max_loaded=2)
    async with gateway(simulator, max_active=3) as gw, AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(gw.open("/api/chat", json=chat("Hi", model="fault:stall")))
        await ask(gw, "llama3.2")
        assert simulator.running == 2


async def test_a_swap_waits_for_those_who_use_the_model_and_no_longer_than_the_patience() -> None:
    """Three clients ask for one model on and on, a fourth for another one: Ollama alone would never load it."""
    simulator = tight()
    done = asyncio.Event()

    async def loop(gw: Gateway) -> None:
        while not done.is_set():
            await ask(gw, "llama3.2")

    async with gateway(simulator, swap_patience=0.5) as gw:
        loops = [asyncio.create_task(loop(gw)) for _ in range(3)]
        await simulator.until(lambda: simulator.states["done"] > 3)
        for _ in range(2):  # at first it is not known that there is no room for both
            async with asyncio.timeout(10):
                events = await gw.read("/api/chat", json=chat("Hi", **SHORT) | {"model": "gemma3"})
                assert ending(events) == ("complete", None)
        assert "model" in {event.json.get("reason") for event in events if event.name == "status"}
        done.set()
        await asyncio.gather(*loops)


async def test_two_requests_are_enough_to_learn_that_there_is_no_room_for_both() -> None:
    """The swap is seen although only its request is left by then."""
    simulator = tight()
    answer = {"options": {"num_predict": 40, "seed": 1}}
    async with gateway(simulator, status_interval=0.1) as gw:
        await asyncio.gather(*(ask(gw, model, **answer) for model in ("gemma3", "llama3.2")))
        first = asyncio.create_task(ask(gw, "gemma3", **answer))
        await simulator.until(lambda: simulator.states["generating"] == 1)
        events = await gw.read("/api/chat", json=chat("Hi", **SHORT))
        waits = [event.json for event in events if event.name == "status" and event.json.get("reason") == "model"]
        assert waits[-1]["elapsed_ms"] > 200  # the first one is told while it is asked what is loaded
        await first


@pytest.mark.parametrize(
    ("requests", "loads"),
    [
        ([{"model": "alias"}, {"model": "registry.ollama.ai/library/llama3.2:latest"}, {"model": "LLAMA3.2"}], 1),
        ([{"options": {"num_ctx": 8192, "num_predict": 3}}, {}, {"options": {"num_predict": 2}}], 2),
    ],
)
async def test_a_model_is_its_weights_and_how_they_are_loaded(requests: list[dict[str, Any]], loads: int) -> None:
    """Other names for the same weights share a runner; another length of the context needs a load."""
    simulator = tight()
    simulator.models["alias:latest"] = Model("alias:latest", weights="llama3.2:latest")
    async with gateway(simulator) as gw:
        await asyncio.gather(*(ask(gw, **{"model": "llama3.2"} | each) for each in requests * 4))
    assert len(simulator.loads) <= loads + 1


async def test_a_model_that_fails_to_load_blocks_nobody() -> None:
    simulator = tight()
    async with gateway(simulator) as gw:
        body = chat("Hi", model="fault:load-failed")
        failing = [asyncio.create_task(gw.read("/api/chat", json=body)) for _ in range(5)]
        await asyncio.gather(*(ask(gw, model) for model in ("llama3.2", "gemma3") * 3))
        assert {ending(events) for events in await asyncio.gather(*failing)} == {("error", "ollama_error")}


@pytest.mark.parametrize("ps", [silence, says(whole(404, b"404 page not found"))])
async def test_without_knowledge_of_the_models_the_order_is_fair(ps: Callable[[Peer], Awaitable[None]]) -> None:
    """`/api/ps` may hang or be missing."""
    async with (
        upstream(streams(token("a"), ONCE_DONE), ps=ps) as ollama,
        gateway(ollama.url, max_active=1) as gw,
        asyncio.timeout(20),
    ):
        await asyncio.gather(*(ask(gw, model) for model in "abcabc"))


async def test_a_load_that_others_wait_for_is_not_thrown_away() -> None:
    """Who leaves is told so at once; the load goes on for the next one, and its answer is not read."""
    simulator = tight(load_seconds=2)
    async with gateway(simulator, max_active=1, status_interval=0.1) as gw:
        leaver = await gw.start(chat=chat("Tell me about bridges") | {"model": "gemma3"}, resume_window=60)
        async with gw.open(f"/api/streams/{leaver}") as events:
            while (await events.next("status")).json["phase"] != "loading":
                pass
            waiting = asyncio.create_task(ask(gw, "gemma3"))
            await until(lambda: gw.state["streams"].queue.waiting > 0)
            async with gw.session.delete(f"{gw.url}/api/streams/{leaver}"):
                pass
            assert ending([event async for event in events]) == ("cancelled", "cancelled")
        await waiting
    assert list(simulator.loads) == ["gemma3:latest"]
    assert simulator.states["done"] == 1


async def test_a_load_that_nobody_waits_for_is_ended() -> None:
    simulator = tight(load_seconds=60)
    async with gateway(simulator, max_active=1) as gw:
        sid = await gw.start(chat=chat("Hi") | {"model": "gemma3"})
        await simulator.until(lambda: bool(simulator.loads))
        async with gw.session.delete(f"{gw.url}/api/streams/{sid}"):
            pass
        await simulator.until(lambda: simulator.running == 0)
