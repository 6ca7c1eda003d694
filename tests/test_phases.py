"""Phases tell the truth: what Ollama does for a stream, as far as anybody can know it."""

import asyncio

from gateway.demo import Simulator
from gateway.demo.models import Model
from tests.asks import chat, quick
from tests.gateways import gateway
from tests.sse import Event, ending
from tests.test_keepalive import loaded, until_shown
from tests.upstreams import ONCE_DONE, Peer, says, silence, token, upstream, whole

FIRST_TOKEN = 1.5


def course(events: list[Event]) -> list[str]:
    """The phases that were shown, one after the other."""
    return list(dict.fromkeys(event.json["phase"] for event in events if event.name == "status"))


async def test_a_loaded_model_is_never_said_to_load() -> None:
    """Whatever it is called: in other case, with its registry, or by another name for the same weights."""
    simulator = Simulator(token_rate=0, load_seconds=0.5, prompt_seconds=0.5)
    simulator.models["alias:latest"] = Model("alias:latest", weights="llama3.2:latest")
    async with gateway(simulator, status_interval=0.1) as gw:
        first = await gw.read("/api/chat", json=chat("Hi"))
        assert course(first) == ["starting", "loading", "prompt"]
        for name in ("llama3.2", "LLAMA3.2:latest", "registry.ollama.ai/library/llama3.2:latest", "alias"):
            assert course(await gw.read("/api/chat", json=chat("Hi") | {"model": name})) == ["starting", "prompt"]
        async with gw.session.get(gw.url + "/api/models") as response:
            models = (await response.json())["models"]
        assert {model["name"] for model in models if model["loaded"]} == {"llama3.2:latest", "alias:latest"}
        other = await gw.read("/api/chat", json=chat("Hi") | {"model": "qwen3"})
        assert course(other) == ["starting", "loading", "prompt"]


async def test_waiting_in_ollamas_own_line_is_neither_reading_nor_too_slow() -> None:
    """It has one slot here, and nothing tells which of its requests has it: the one that came first."""
    simulator = quick(parallel=1, prompt_seconds=0.3, token_rate=20)
    limits = {"max_active": 4, "status_interval": 0.1, "first_token_timeout": FIRST_TOKEN}
    async with gateway(simulator, **limits) as gw:
        await gw.read("/api/chat", json=chat("Hi"))
        long = {"options": {"num_predict": 60, "seed": 1}}
        async with gw.open("/api/chat", json=chat("Tell me about bridges", **long)) as first:
            await first.next()
            second = await gw.read("/api/chat", json=chat("Hi"))
            assert ending(second) == ("complete", None)
            assert course(second) == ["starting", "prompt"]
            waited = [event.json["elapsed_ms"] for event in second if event.name == "status"]
            assert waited[-1] > FIRST_TOKEN * 1000


async def test_a_model_that_has_to_wait_for_another_one_is_not_said_to_load() -> None:
    """Ollama may have to throw out a model that is in use. The wait counts from when it can begin to load."""
    go, ps = asyncio.Event(), loaded("m:latest")

    async def answer(peer: Peer) -> None:
        if b'"n"' in peer.request.body:
            await silence(peer)
        else:
            await peer.start()
            await peer.lines(token("a"))
            await go.wait()
            await peer.lines(ONCE_DONE)
            await peer.end()

    async def answer_ps(peer: Peer) -> None:
        await peer.send(ps)

    limits = {"max_active": 4, "status_interval": 0.1, "first_token_timeout": FIRST_TOKEN}
    async with (
        upstream(answer, ps=answer_ps, show=says(whole(404, b'{"error":"no"}'))) as ollama,
        gateway(ollama.url, **limits) as gw,
        gw.open("/api/chat?model=m&prompt=Hi") as first,
    ):
        await first.next()
        async with gw.open("/api/chat?model=n&prompt=Hi") as second:
            shown = [(await second.next("status")).json for _ in range(20)]
            assert {each["phase"] for each in shown} <= {"queued", "starting"}  # it is asked first what is loaded
            assert shown[-1]["elapsed_ms"] > FIRST_TOKEN * 1000
            ps = loaded()
            go.set()
            await until_shown("loading", second)
            assert ending([event async for event in second]) == ("error", "first_token_timeout")
