"""Loads, slots, the queue and what `/api/ps` tells of them."""

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.demo import Simulator
from gateway.demo.models import Model
from gateway.demo.wire import dumps
from tests import transcripts
from tests.asks import quick
from tests.demo.connection import ask, chat, connect
from tests.servers import serve

PHASES: dict[str, dict[str, Any]] = {
    "loading": {"load_seconds": 60},
    "waiting": {"parallel": 0},
    "prompt": {"prompt_seconds": 60},
    "generating": {"token_rate": 0.01},
}
"""Settings that hold a request in one phase."""


@pytest.mark.parametrize("half_close", [False, True])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_phase(phase: str, half_close: bool) -> None:
    """`/api/ps` lists the model only once it is loaded. A client that leaves is noticed, by RST as by FIN: nothing is
    left of its request, not even the load, and before the first token it has been sent nothing at all.
    """
    simulator = quick(**PHASES[phase])
    loaded = [] if phase == "loading" else ["llama3.2:latest"]
    async with serve(simulator.app) as url, connect(url) as connection:
        connection.send("POST", "/api/generate", dumps({"model": "llama3.2", "prompt": "Hello"}))
        await simulator.until(lambda: simulator.states["loading"] == 1)
        await simulator.until(lambda: simulator.requests[0].state == phase)
        assert simulator.running == 1
        assert [model["name"] for model in (await ask(url, "/api/ps")).lines[0]["models"]] == loaded
        if half_close:
            connection.writer.write_eof()
            assert bool(await connection.reader.read()) == (phase == "generating")
        else:
            connection.leave()
        await simulator.until(lambda: simulator.requests[0].state == "cancelled")
        assert simulator.running == 0
        assert [model["name"] for model in (await ask(url, "/api/ps")).lines[0]["models"]] == loaded


async def test_a_load_is_shared_and_aborted_when_its_last_waiter_leaves() -> None:
    """One of two leaves: the load goes on. Both leave: it is aborted, and the next request begins a new one."""
    simulator = quick(load_seconds=60)
    async with serve(simulator.app) as url, connect(url) as first, connect(url) as second:
        for connection in (first, second):
            connection.send("POST", "/api/chat", dumps(chat()))
        await simulator.until(lambda: simulator.states["loading"] == 2)
        first.leave()
        await simulator.until(lambda: simulator.states["cancelled"] == 1)
        simulator.load_seconds = 0  # for a new load, had the old one been aborted
        third = asyncio.ensure_future(ask(url, "/api/chat", chat()))
        await simulator.until(lambda: len(simulator.requests) == 3 and simulator.states["loading"] == 2)
        second.leave()
        third.cancel()
        await simulator.until(lambda: simulator.running == 0)
        assert (await ask(url, "/api/chat", chat())).lines[-1]["done"]


async def test_another_context_length_loads_anew() -> None:
    """As any option of the runner does, once nobody uses it."""
    simulator = quick(load_seconds=0.05)
    async with serve(simulator.app) as url, connect(url) as connection:
        loads = []
        for num_ctx in (4096, 4096, 8192):
            answer = await connection.ask("/api/chat", chat(options={"num_ctx": num_ctx}))
            loads.append(answer.lines[-1]["load_duration"] > 0.04e9)
        ps = (await connection.ask("/api/ps")).lines[0]["models"]
    assert loads == [True, False, True]
    assert [model["context_length"] for model in ps] == [8192]


async def test_names_of_the_same_weights_share_a_runner() -> None:
    """Loaded by one, it serves the other without another load, and is listed by the name that loaded it."""
    simulator = quick(load_seconds=0.05)
    alias = simulator.models["alias:latest"] = Model("alias:latest", weights="llama3.2:latest")
    async with serve(simulator.app) as url, connect(url) as connection:
        names = ("alias", "llama3.2", "registry.ollama.ai/library/llama3.2:latest", "gemma3")
        files = []
        for name in names:
            show = (await connection.ask("/api/show", {"model": name})).lines[0]
            files.append(re.findall(r"^FROM .*/sha256-(\w+)$", show["modelfile"], re.MULTILINE))
            await connection.ask("/api/chat", chat(name))
        ps = (await connection.ask("/api/ps")).lines[0]["models"]
        unloaded = await connection.ask("/api/generate", {"model": "llama3.2", "keep_alive": 0})
        left = (await connection.ask("/api/ps")).lines[0]["models"]
    assert files[0] == files[1] == files[2] != files[3]
    assert [(model["name"], model["digest"]) for model in ps[:1]] == [("alias:latest", alias.digest)]
    assert [model["name"] for model in ps] == ["alias:latest", "gemma3:latest"]
    assert unloaded.lines[0]["done_reason"] == "unload"
    assert [model["name"] for model in left] == ["gemma3:latest"]


async def test_a_long_prompt_is_read_for_longer() -> None:
    """In proportion to its tokens."""
    async with serve(quick(prompt_seconds=0.01).app) as url, connect(url) as connection:
        read = []
        for words in (1000, 3000):
            answer = await connection.ask("/api/chat", chat(content="word " * words, options={"num_predict": 1}))
            read.append(answer.lines[-1]["prompt_eval_duration"] / 1e9)
    assert read[0] >= 0.05
    assert read[1] >= 0.13


async def test_a_model_has_so_many_slots() -> None:
    """The others wait in silence; a slot goes on when its client leaves."""
    simulator = quick(parallel=2)
    async with serve(simulator.app) as url, connect(url) as one, connect(url) as two, connect(url) as three:
        for connection in (one, two):
            connection.send("POST", "/api/chat", dumps(chat("fault:stall")))
        await simulator.until(lambda: simulator.states["generating"] == 2)
        three.send("POST", "/api/chat", dumps(chat("fault:stall")))
        await simulator.until(lambda: len(simulator.requests) == 3)
        assert (await ask(url, "/api/chat", chat())).lines[-1]["done"]  # another model has its own slots
        assert [request.state for request in simulator.requests][:3] == ["generating", "generating", "waiting"]
        one.leave()
        await simulator.until(lambda: simulator.requests[2].state == "generating")


async def test_the_queue_is_bounded_while_a_model_loads() -> None:
    """One request is being served, one may wait, the third is refused at once."""
    simulator = quick(max_queue=1)
    async with serve(simulator.app) as url, connect(url) as one, connect(url) as two:
        for connection in (one, two):
            connection.send("POST", "/api/chat", dumps(chat("fault:slow-load")))
        await simulator.until(lambda: simulator.states["loading"] == 2)
        answer = await ask(url, "/api/chat", chat())
        assert answer.status == 503
        assert answer.body == transcripts.load("error-queue-full-chat-503").body


@pytest.mark.parametrize(
    ("keep_alive", "stays"), [(0, False), ("0s", False), ("1ms", False), (-1, True), ("1h30m", True)]
)
async def test_keep_alive(keep_alive: int | str, stays: bool) -> None:
    """A model leaves memory so long after its last request; a negative time is for ever."""
    simulator = quick()
    async with serve(simulator.app) as url:
        await ask(url, "/api/chat", chat(keep_alive=keep_alive))
        async with asyncio.timeout(5):
            while bool((await ask(url, "/api/ps")).lines[0]["models"]) != stays:
                pass


async def test_an_unload_waits_for_who_is_using_the_model() -> None:
    """The answer comes at once; the model goes with its last user."""
    simulator = quick()
    async with serve(simulator.app) as url, connect(url) as user:
        user.send("POST", "/api/chat", dumps(chat("fault:stall")))
        await simulator.until(lambda: simulator.states["generating"] == 1)
        unloaded = await ask(url, "/api/generate", {"model": "fault:stall", "keep_alive": 0})
        assert unloaded.lines[0]["done_reason"] == "unload"
        assert (await ask(url, "/api/ps")).lines[0]["models"]
        user.leave()
        await simulator.until(lambda: simulator.running == 0)
        assert (await ask(url, "/api/ps")).lines == [{"models": []}]


async def arrived(simulator: Simulator, number: int) -> None:
    """Until so many requests have come."""
    await simulator.until(lambda: len(simulator.requests) == number)


async def generating(simulator: Simulator, *numbers: int) -> None:
    """Until these requests, counted as they came, generate."""
    await simulator.until(lambda: len(simulator.requests) > max(numbers))
    await simulator.until(lambda: all(simulator.requests[number].state == "generating" for number in numbers))


@pytest.mark.parametrize("room", [{"max_loaded": 1}, {"vram": 3 * 10**9}])
async def test_a_model_that_does_not_fit_waits_for_the_other_to_go(room: dict[str, int]) -> None:
    """And behind it waits whatever must be loaded; but what is loaded is used on and on, however long the line is."""
    simulator = quick(parallel=4, **room)
    async with serve(simulator.app) as url, AsyncExitStack() as stack:
        first, second, third, again = [await stack.enter_async_context(connect(url)) for _ in range(4)]
        asks = (first, "fault:stall"), (second, "llama3.2"), (third, "gemma3"), (again, "fault:stall")
        for number, (connection, model) in enumerate(asks, 1):
            connection.send("POST", "/api/chat", dumps(chat(model)))
            await arrived(simulator, number)
        await generating(simulator, 0, 3)
        assert [request.state for request in simulator.requests] == ["generating", "waiting", "waiting", "generating"]
        first.leave()
        await simulator.until(lambda: simulator.states["cancelled"] == 1)
        assert simulator.states["waiting"] == 2
        again.leave()
        await simulator.until(lambda: simulator.states["done"] == 2)
        ps = (await ask(url, "/api/ps")).lines[0]["models"]
        assert [model["name"] for model in ps] == ["gemma3:latest"]


async def test_an_idle_model_goes_before_one_that_is_used() -> None:
    simulator = quick(max_loaded=2)
    async with serve(simulator.app) as url, connect(url) as user:
        user.send("POST", "/api/chat", dumps(chat("fault:stall")))
        await generating(simulator, 0)
        for model in ("llama3.2", "gemma3"):
            assert (await ask(url, "/api/chat", chat(model))).lines[-1]["done"]
        ps = (await ask(url, "/api/ps")).lines[0]["models"]
        assert [model["name"] for model in ps] == ["fault:stall", "gemma3:latest"]


async def test_another_context_length_waits_until_the_runner_is_free() -> None:
    simulator = quick()
    async with serve(simulator.app) as url, connect(url) as user, connect(url) as other:
        user.send("POST", "/api/chat", dumps(chat("fault:stall")))
        await generating(simulator, 0)
        other.send("POST", "/api/chat", dumps(chat("fault:stall", options={"num_ctx": 8192})))
        await arrived(simulator, 2)
        user.leave()
        await generating(simulator, 1)
        ps = (await ask(url, "/api/ps")).lines[0]["models"]
        assert [model["context_length"] for model in ps] == [8192]
