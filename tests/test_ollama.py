"""The client of Ollama: what it sends, and what it makes of answers and failures."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest

from gateway.errors import BadUpstream, GatewayError, OllamaError, OllamaUnreachable
from gateway.upstream.client import OllamaClient
from gateway.upstream.wire import error_text, normal_name, parse_line
from tests.test_replay import Replay
from tests.transcripts import load
from tests.upstreams import ONCE_DONE, Answer, Upstream, says, silence, streams, token, upstream, whole


@asynccontextmanager
async def client(answer: Answer = silence, **others: Answer) -> AsyncIterator[tuple[OllamaClient, Upstream]]:
    async with (
        upstream(answer, **others) as server,
        OllamaClient(server.url, connect_timeout=5, query_timeout=0.5, max_line=2**20) as ollama,
    ):
        yield ollama, server


async def test_what_is_sent() -> None:
    """A body of known length, and no header that could be a client's or would tell who asks."""
    async with client(streams(token("a"), ONCE_DONE)) as (ollama, server):
        lines = [line async for batch in ollama.lines("/api/chat", b'{"model":"m"}') for line in batch]
        assert [line + b"\n" for line in lines] == [token("a"), ONCE_DONE]
        (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/api/chat", b'{"model":"m"}')
    headers = request.headers
    assert headers["content-length"] == "13"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert headers.keys() == {"host", "content-length", "content-type", "accept-encoding", "accept", "user-agent"}


async def test_credentials_of_the_url() -> None:
    """They become a header, for an Ollama behind a proxy that wants them."""
    async with upstream(streams(ONCE_DONE)) as server:
        url = server.url.replace("http://", "http://me:secret@")
        async with OllamaClient(url, connect_timeout=5, query_timeout=5, max_line=1000) as ollama:
            assert [batch async for batch in ollama.lines("/api/chat", b"{}")]
            assert server.requests[0].headers["authorization"] == "Basic bWU6c2VjcmV0"


async def test_cookies_are_not_kept() -> None:
    answer = says(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\n{}")
    async with client(version=answer) as (ollama, server):
        for _ in range(2):
            await ollama.version()
        assert "cookie" not in server.requests[1].headers


async def test_leaving_closes_the_connection() -> None:
    async def endless(peer: Any) -> None:
        await peer.start()
        while True:
            await peer.lines(token("a"))

    async with client(endless) as (ollama, server):
        async with aclosing(ollama.lines("/api/chat", b"{}")) as lines:
            await anext(lines)
            assert server.open == 1
        await server.until(lambda: server.open == 0)


async def test_questions() -> None:
    async with client(
        tags=Replay(load("tags")),
        ps=Replay(load("ps-loaded")),
        show=Replay(load("show")),
        version=Replay(load("version")),
    ) as (ollama, server):
        assert len(await ollama.tags()) == 7
        assert len(await ollama.ps()) == 1
        assert "capabilities" in await ollama.show("tiny")
        assert await ollama.version() == "0.33.0-rc2"
        assert server.asked("/api/show")[0].body == b'{"model":"tiny"}'


async def test_no_models() -> None:
    """An empty list, also where Go sends null for one."""
    async with client(tags=Replay(load("tags-empty")), ps=says(whole(200, b'{"models":null}'))) as (ollama, _):
        assert await ollama.tags() == []
        assert await ollama.ps() == []


QUERIES: dict[str, Callable[[OllamaClient], Awaitable[object]]] = {
    "tags": OllamaClient.tags,
    "ps": OllamaClient.ps,
    "version": OllamaClient.version,
    "show": lambda ollama: ollama.show("m"),
}


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (silence, OllamaUnreachable),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), OllamaUnreachable),
        (says(b"no HTTP\r\n\r\n"), BadUpstream),
        (says(whole(200, b"<html>", "text/html")), BadUpstream),
        (says(whole(200, b"[]")), BadUpstream),
        (says(whole(500, b'{"error":"no"}')), OllamaError),
        (says(whole(502, b"<html>", "text/html")), BadUpstream),
    ],
    ids=["silent", "half", "no HTTP", "HTML", "list", "500", "502"],
)
async def test_questions_that_fail(name: str, answer: Answer, error: type[GatewayError]) -> None:
    """Each fails within its own time limit, and no foreign exception gets through."""
    async with client(answer, **{name: answer}) as (ollama, _):
        with pytest.raises(GatewayError) as raised:
            await QUERIES[name](ollama)
    assert type(raised.value) is error


async def test_a_cancelled_question_is_just_cancelled() -> None:
    async with client(version=silence) as (ollama, server):
        asking = asyncio.create_task(ollama.version())
        await server.until(lambda: len(server.requests) == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_huge_refusal_is_not_read() -> None:
    """Only as much of it is read as an error message can use."""
    body = orjson.dumps({"error": "x" * 10**7})
    async with client(says(whole(400, body))) as (ollama, server):
        with pytest.raises(BadUpstream):
            await anext(ollama.lines("/api/chat", b"{}"))
        await server.until(lambda: server.open == 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("no", "no"),
        (" no \n", "no"),
        ("", "Ollama reported an error without a message."),
        (None, "Ollama reported an error without a message."),
        (7, "Ollama reported an error without a message."),
        (["no"], "Ollama reported an error without a message."),
        ({}, "Ollama reported an error without a message."),
        ({"message": "no"}, "no"),
        ({"error": {"code": 500, "message": "no"}}, "no"),
        ('{"error": {"code": 500, "message": "Compute error."}}', "Compute error."),
        ('{"error": "no"}', "no"),
        ("{not JSON", "{not JSON"),
        ("json: cannot unmarshal string into Go struct field", "Ollama could not read the request's JSON."),
        ("x" * 2000, "x" * 1000),
    ],
)
def test_error_text(value: object, text: str) -> None:
    assert error_text(value) == text


@pytest.mark.parametrize(
    "line", [b"", b"no", b"[]", b"1", b"null", b'"x"', b"{", b'{"a":"\xff"}', b'{"a":1}{}', b"\xef\xbb\xbf{}"]
)
def test_lines_that_are_no_json_objects(line: bytes) -> None:
    with pytest.raises(BadUpstream):
        parse_line(line)


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("Llama3.2:3B", "llama3.2:3b"),
        ("registry.ollama.ai/library/llama3.2", "llama3.2:latest"),
        ("https://registry.ollama.ai/library/Llama3.2:3b", "llama3.2:3b"),
        ("library/llama3.2", "llama3.2:latest"),
        ("registry.ollama.ai/me/model", "me/model:latest"),
        ("hf.co/me/model", "hf.co/me/model:latest"),
        ("localhost:5000/me/model", "localhost:5000/me/model:latest"),
        ("localhost:5000/me/model:q4", "localhost:5000/me/model:q4"),
    ],
)
def test_normal_name(name: str, normal: str) -> None:
    assert normal_name(name) == normal
