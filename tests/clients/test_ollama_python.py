"""Ollama's own client for Python, as it is: it cannot tell the gateway from an Ollama."""

import asyncio
import sys
from typing import Any

import pytest
from ollama import AsyncClient, Client, ResponseError

from gateway.demo import Simulator
from tests.asks import quick
from tests.gateways import gateway
from tests.processes import ROOT
from tests.servers import serve
from tests.snippets import SHOWN, blocks
from tests.upstreams import ONCE_DONE, Peer, token, upstream

PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d49484452")
SAME: dict[str, Any] = {"options": {"temperature": 0}}  # the simulator's answers differ otherwise
SKY = [{"role": "user", "content": "Why is the sky blue?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("chat", {"model": "llama3.2", "messages": SKY, **SAME}),
    "thinking": ("chat", {"model": "qwen3", "messages": SKY, "think": True, **SAME}),
    "tools": (
        "chat",
        {
            "model": "llama3.2",
            "messages": [{"role": "user", "content": "Weather in Paris?"}],
            "tools": [WEATHER],
            **SAME,
        },
    ),
    "images": ("chat", {"model": "gemma3", "messages": [SKY[0] | {"images": [PIXEL]}], **SAME}),
    "format": ("chat", {"model": "llama3.2", "messages": SKY, "format": CITY, **SAME}),
    "logprobs": ("chat", {"model": "llama3.2", "messages": SKY, "logprobs": True, "top_logprobs": 2, **SAME}),
    "load": ("chat", {"model": "llama3.2"}),
    "generate": ("generate", {"model": "llama3.2", "prompt": "Why?", "system": "Be brief.", **SAME}),
    "raw": ("generate", {"model": "llama3.2", "prompt": "Why?", "raw": True, **SAME}),
    "context": ("generate", {"model": "llama3.2", "prompt": "Why?", "context": [1, 2, 3], **SAME}),
    "unload": ("generate", {"model": "llama3.2", "keep_alive": 0}),
    "embed": ("embed", {"model": "nomic-embed-text", "input": ["a", "b"], "dimensions": 5}),
    "embed one": ("embed", {"model": "nomic-embed-text", "input": "a"}),
    "embeddings": ("embeddings", {"model": "nomic-embed-text", "prompt": "a"}),
    "list": ("list", {}),
    "show": ("show", {"model": "llama3.2"}),
    "ps": ("ps", {}),
    "pull": ("pull", {"model": "llama3.2"}),
    "no such model": ("chat", {"model": "nope", "messages": SKY}),
    "no such model to show": ("show", {"model": "nope"}),
    "no such model to embed": ("embed", {"model": "nope", "input": "a"}),
    "cannot think": ("chat", {"model": "llama3.2", "messages": SKY, "think": True}),
    "crash": ("chat", {"model": "fault:crash", "messages": SKY}),
    "load failed": ("chat", {"model": "fault:load-failed", "messages": SKY}),
    "busy": ("generate", {"model": "fault:error-503", "prompt": "Why?"}),
}
STREAMED = {name for name, (method, _) in CALLS.items() if method in ("chat", "generate", "pull")}
ASKED = [(name, stream) for name in CALLS for stream in ((False, True) if name in STREAMED else (False,))]
DIFFERS = {"created_at", "id", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "modelfile"}
"""What is another each time; and a modelfile, which does not tell where files are on the server."""

KEY = "ada-0123456789abcdef"


def plain(part: Any) -> Any:
    """A part of an answer without what differs from one time to the next."""
    if isinstance(part, dict):
        return {name: plain(value) for name, value in part.items() if name not in DIFFERS}
    return [plain(each) for each in part] if isinstance(part, list) else part


def whole_dump(part: Any) -> Any:
    return plain(part.model_dump(mode="json"))


def called(url: str, method: str, arguments: dict[str, Any], stream: dict[str, bool]) -> list[Any]:
    """What the client makes of the answer, and the error at its end, if there is one."""
    client: Any = Client(host=url)
    parts: list[Any] = []
    try:
        answer = getattr(client, method)(**arguments, **stream)
        parts += map(whole_dump, answer if stream.get("stream") else [answer])
    except ResponseError as error:
        parts.append((error.status_code, error.error))
    finally:
        client.close()
    return parts


async def called_async(url: str, method: str, arguments: dict[str, Any], stream: dict[str, bool]) -> list[Any]:
    """The same with the other client."""
    client: Any = AsyncClient(host=url)
    parts: list[Any] = []
    try:
        answer = await getattr(client, method)(**arguments, **stream)
        if stream.get("stream"):
            async for part in answer:  # as far as it comes
                parts.append(whole_dump(part))  # noqa: PERF401
        else:
            parts.append(whole_dump(answer))
    except ResponseError as error:
        parts.append((error.status_code, error.error))
    finally:
        await client.close()
    return parts


@pytest.mark.parametrize(("name", "stream"), ASKED)
async def test_it_gets_from_the_gateway_what_it_gets_from_ollama(name: str, stream: bool) -> None:
    method, arguments = CALLS[name]
    streaming = {"stream": stream} if name in STREAMED else {}
    simulator = quick()
    async with serve(simulator.app) as url, gateway(url, allow_pull=True) as gw:
        wanted = await called_async(url, method, arguments, streaming)
        assert await called_async(gw.url + "/ollama", method, arguments, streaming) == wanted
        assert await asyncio.to_thread(called, gw.url + "/ollama", method, arguments, streaming) == wanted
        if method in ("chat", "generate"):  # it accepts JSON only, so that it needs no prefix for these
            assert await called_async(gw.url, method, arguments, streaming) == wanted


async def test_what_ollama_does_not_complete_is_an_error() -> None:
    """Ollama itself passes it off as complete."""
    async with gateway(quick()) as gw:
        for stream in (False, True):
            told = await called_async(gw.url, "chat", {"model": "fault:truncate", "messages": SKY}, {"stream": stream})
            assert told[-1] == (-1 if stream else 502, "Ollama ended the answer without completing it.")


async def test_a_loop_that_is_left_stops_the_generation() -> None:
    simulator = quick(token_rate=100)

    def leave(url: str) -> None:
        client: Any = Client(host=url)
        for _ in client.chat("llama3.2", SKY, stream=True):
            break
        client.close()

    async with gateway(simulator) as gw:
        await asyncio.to_thread(leave, gw.url + "/ollama")
        await simulator.until(lambda: simulator.states["cancelled"] == 1)
        client: Any = AsyncClient(host=gw.url + "/ollama")
        asking = asyncio.create_task(client.chat("llama3.2", SKY))
        await simulator.until(lambda: simulator.states["generating"] == 1)
        asking.cancel()
        await simulator.until(lambda: simulator.states["cancelled"] == 2)
        await client.close()
        assert simulator.running == 0


async def slow(peer: Peer) -> None:
    """Silent before the first line, and within the answer, until a space has kept the connection open for a while."""
    await asyncio.sleep(0.5)
    await peer.start()
    await peer.lines(token("a"))
    await asyncio.sleep(0.5)
    await peer.lines(token("b"), ONCE_DONE)
    await peer.end()


@pytest.mark.parametrize("stream", [False, True])
async def test_silence_breaks_nothing(stream: bool) -> None:
    """httpx gives up after 0.3 s without a byte. White space comes before each of the objects."""
    async with upstream(slow) as ollama, gateway(ollama.url, ping_interval=0.1) as gw:
        client: Any = AsyncClient(host=gw.url + "/ollama", timeout=0.3)
        answer = await client.chat("m", SKY, stream=stream)
        parts = [part async for part in answer] if stream else [answer]
        await client.close()
        assert "".join(part.message.content for part in parts) == "ab"


async def test_a_key_is_sent_as_it_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(quick(), api_keys=f"ada:{KEY}") as gw:
        assert (await called_async(gw.url + "/ollama", "list", {}, {}))[0][0] == 401
        monkeypatch.setenv("OLLAMA_API_KEY", KEY)
        assert (await called_async(gw.url + "/ollama", "list", {}, {}))[0]["models"]


async def test_the_snippet(simulator: Simulator) -> None:
    (snippet,) = blocks("python", (ROOT / "docs/clients.md").read_text())
    async with gateway(simulator, api_keys=f"ada:{KEY}") as gw:
        snippet = snippet.replace(SHOWN, gw.url).replace("KEY", KEY)
        process = await asyncio.create_subprocess_exec(*(sys.executable, "-c", snippet), stdout=asyncio.subprocess.PIPE)
        printed, _ = await process.communicate()
        assert process.returncode == 0
        assert len(printed) > 100
