"""Ollama's own client for JavaScript, as it is, in Node: it cannot tell the gateway from an Ollama."""

import asyncio
import json
from typing import Any

import pytest

from gateway.demo import Simulator
from tests.asks import quick
from tests.clients.clients import HERE, lines
from tests.clients.test_ollama_python import CALLS, KEY, STREAMED, plain, slow
from tests.gateways import gateway
from tests.processes import ROOT
from tests.servers import serve
from tests.snippets import SHOWN, blocks
from tests.upstreams import upstream

ASKED = ["chat", "thinking", "tools", "format", "load", "generate", "embed", "list", "show", "ps", "pull"]
ASKED += ["no such model", "cannot think", "crash", "busy"]


async def called(host: str, method: str, request: dict[str, Any], *how: str) -> list[Any]:
    """What `ollama.mjs` prints."""
    script = str(HERE / "ollama.mjs")
    return [plain(json.loads(line)) async for line in lines("node", script, host, method, json.dumps(request), *how)]


@pytest.mark.parametrize("name", ASKED)
async def test_it_gets_from_the_gateway_what_it_gets_from_ollama(name: str) -> None:
    method, arguments = CALLS[name]
    async with serve(quick().app) as url, gateway(url, allow_pull=True) as gw:
        for stream in (True, False) if name in STREAMED else (False,):
            request = arguments | ({"stream": stream} if name in STREAMED else {})
            wanted, got = await asyncio.gather(
                called(url, method, request), called(gw.url + "/ollama", method, request)
            )
            assert got == wanted
            assert wanted


async def test_abort_stops_the_generation() -> None:
    simulator = quick(token_rate=100)
    async with gateway(simulator) as gw:
        told = await called(gw.url + "/ollama", "chat", CALLS["chat"][1] | {"stream": True}, "abort")
        await simulator.until(lambda: simulator.states["cancelled"] == 1)
        assert told[-1]["error"]["name"] == "AbortError"
        assert simulator.running == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_silence_breaks_nothing(stream: bool) -> None:
    """White space comes before each of the objects."""
    async with upstream(slow) as ollama, gateway(ollama.url, ping_interval=0.1) as gw:
        request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        parts = await called(gw.url + "/ollama", "chat", request)
        assert "".join(part["message"]["content"] for part in parts) == "ab"


async def test_the_snippet(simulator: Simulator) -> None:
    (snippet,) = blocks("js", (ROOT / "docs/clients.md").read_text())
    async with gateway(simulator, api_keys=f"ada:{KEY}") as gw:
        script = snippet.replace(SHOWN, gw.url).replace("KEY", KEY)
        process = await asyncio.create_subprocess_exec(
            *("node", "--input-type=module", "-e", script), cwd=HERE, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0
        assert len(printed) > 100


async def test_the_commands(simulator: Simulator) -> None:
    """curl, below `/ollama` and by what it accepts."""
    commands = blocks("sh", (ROOT / "docs/clients.md").read_text())
    assert len(commands) == 2
    async with gateway(simulator) as gw:
        for command in commands:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-euc", command.replace(SHOWN, gw.url)), stdout=asyncio.subprocess.PIPE
            )
            printed, _ = await process.communicate()
            told = [json.loads(line) for line in printed.splitlines()]
            assert len(told) > 10
            assert [part["done"] for part in told[-2:]] == [False, True]
