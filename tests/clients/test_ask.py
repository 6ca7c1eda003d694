"""The gateway's own client asks, from Node: an answer survives cuts, and is stopped at Ollama however it is left."""

import json
from typing import Any

import pytest

from tests.clients.clients import HERE, lines
from tests.gateways import gateway
from tests.page.cutting import cutting
from tests.upstreams import ONCE_DONE, Peer, silence, streams, token, upstream

KEY = "ada-0123456789abcdef"


async def ask(base: str, how: str = "whole", *key: str) -> Any:
    """What `ask.mjs` prints."""
    [told] = [line async for line in lines("node", HERE / "ask.mjs", base, how, *key)]
    return json.loads(told)


async def endless(peer: Peer) -> None:
    await peer.start()
    await peer.lines(token("first"))
    await silence(peer)


async def test_an_answer_survives_cuts() -> None:
    """Ollama is asked for it once."""
    words = [f"word {number} " for number in range(60)]

    async def answer(peer: Peer) -> None:
        await peer.start()
        await peer.lines(*map(token, words[:30]))
        await proxy.until_passed(2_500 + 1)
        await peer.lines(*map(token, words[30:]), ONCE_DONE)
        await peer.end()

    async with upstream(answer) as ollama, gateway(ollama.url) as gw, cutting(gw.url) as proxy:
        proxy.allowance = 2_500
        told = await ask(proxy.url)
        assert (told["text"], told["error"]) == ("".join(words), None)
        assert told["lastEventId"].endswith("-61")
        assert len(ollama.asked("/api/chat")) == 1


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [("stop", None, "first"), ("abort", "AbortError", "first"), ("leave", None, "first"), ("early", None, "")],
)
async def test_however_it_is_left_ollama_stops(how: str, error: str | None, text: str) -> None:
    """It does so long before the resume window ends."""
    async with upstream(silence if how == "early" else endless) as ollama, gateway(ollama.url) as gw:
        told = await ask(gw.url, how)
        assert told["text"] == text
        assert (told["error"] or {"name": None})["name"] == error
        await ollama.until(lambda: len(ollama.asked("/api/chat")) == 1 and ollama.open == 0)


async def test_what_fails_is_thrown_in_the_gateways_words() -> None:
    async with upstream(streams(token("a"), b'{"error":"out of memory"}\n')) as ollama, gateway(ollama.url) as gw:
        told = await ask(gw.url)
        assert told["text"] == "a"
        assert told["lastEventId"].endswith("-1")
        assert told["error"] == {
            "name": "GatewayError",
            "message": "out of memory",
            "code": "ollama_error",
            "phase": "generating",
            "retryable": True,
            "status": 0,
        }


async def test_a_key_is_sent() -> None:
    async with upstream(streams(token("a"), ONCE_DONE)) as ollama, gateway(ollama.url, api_keys=f"ada:{KEY}") as gw:
        refused = await ask(gw.url)
        assert (refused["error"]["code"], refused["error"]["status"]) == ("unauthorized", 401)
        assert (await ask(gw.url, "whole", KEY))["text"] == "a"


async def test_no_gateway(closed_port: str) -> None:
    told = await ask(closed_port)
    assert told["error"]["code"] == "unreachable"
    assert told["error"]["message"] == f"No gateway answers at {closed_port}."
