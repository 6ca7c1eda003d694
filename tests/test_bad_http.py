"""Requests that are wrong as HTTP, too large, at a wrong path or from a wrong origin are refused, and harm nothing."""

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from urllib.parse import urlencode

import orjson
import pytest
from yarl import URL

from tests.asks import chat, quick
from tests.gateways import Gateway, gateway
from tests.sse import ending, text
from tests.test_bad_input import EVENTS, surviving


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_limit(chunked: bool) -> None:
    """A body without a Content-Length is counted as it arrives; a body of exactly the limit passes."""
    body = b'{"model":"m","prompt":"%b"}' % (b"x" * 975)
    assert len(body) == 1000

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for _ in range(0, size, 100):
            yield b"x" * 100
            await asyncio.sleep(0)  # or they would arrive as one

    async with surviving(max_body_bytes=1000) as (gw, ollama):
        async with gw.session.post(gw.url + "/api/generate", data=body) as response:
            assert b"event: end" in await response.read()
        seen = len(ollama.requests)
        data = pieces(1100) if chunked else BytesIO(body + b" ")
        async with gw.session.post(gw.url + "/api/generate", data=data) as response:
            error = await response.json()
            assert (response.status, error["code"]) == (413, "too_large")
            assert "GATEWAY_MAX_BODY_BYTES" in error["error"]
        assert len(ollama.requests) == seen


async def test_announced_size_is_refused_unread() -> None:
    """A client need not send 30 MB to learn that it is too much."""
    async with surviving() as (gw, ollama):
        head = await raw(gw, b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert ollama.requests == []


async def test_whole_large_body_is_answered() -> None:
    """A client that sends all of its 30 MB before it reads gets the 413 too, not a reset connection."""
    async with (
        surviving() as (gw, _),
        gw.session.post(gw.url + "/api/chat", data=BytesIO(b"x" * 2**25)) as response,
    ):
        assert response.status == 413


async def test_base64_images_of_10_mb_pass() -> None:
    image = "A" * 10_000_000
    async with surviving() as (gw, ollama):
        body = {"model": "m", "messages": [{"role": "user", "content": "x", "images": [image]}]}
        async with gw.session.post(gw.url + "/api/chat", data=BytesIO(orjson.dumps(body))) as response:
            assert (await response.read()).count(b"event: end") == 1
        assert orjson.loads(ollama.asked("/api/chat")[0].body) == body
        assert ollama.asked("/api/chat")[0].headers["content-length"] == str(len(ollama.asked("/api/chat")[0].body))


async def raw(gw: Gateway, request: bytes) -> bytes:
    """The head of the answer to exactly these bytes."""
    url = URL(gw.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(request)
        return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


async def test_query_of_60_kb() -> None:
    prompt = "🦙 long?" * (60_000 // len(b"%F0%9F%A6%99+long%3F"))
    async with surviving() as (gw, ollama):
        query = urlencode({"model": "m", "prompt": prompt})
        assert len(query) > 59_000
        assert text(await gw.read(f"/api/chat?{query}")) == "fine"
        assert orjson.loads(ollama.asked("/api/chat")[0].body)["messages"][0]["content"] == prompt


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /api/chat?model=m&prompt=%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 70_000),
        b"GET /api/chat?model=m&prompt=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/chat?model=m&prompt=x y HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    ],
    ids=["over 64 KB", "raw bytes", "space in the query", "negative length", "two lengths", "TLS"],
)
async def test_malformed_http(request_bytes: bytes) -> None:
    async with surviving() as (gw, ollama):
        assert (await raw(gw, request_bytes)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 414 ", b"HTTP/1.1 422 "))
        assert ollama.requests == []


async def test_half_a_body_and_gone() -> None:
    """A client that leaves while it sends is not a crash, and nothing runs for it."""
    async with surviving() as (gw, ollama):
        url = URL(gw.url)
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b'POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"model":"m"')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert ending(await gw.read("/api/chat?model=m&prompt=Hi")) == ("complete", None)
        assert len(ollama.asked("/api/chat")) == 1


async def test_head_starts_nothing() -> None:
    """A link preview or a health check by HEAD must not cost GPU time."""
    async with surviving() as (gw, ollama):
        for path in ("/api/chat?model=m&prompt=x", "/api/generate?model=m&prompt=x", "/api/chat"):
            async with gw.session.head(gw.url + path) as response:
                assert response.status == 200
                assert response.headers["Content-Type"] == "text/event-stream"
        assert ollama.requests == []
        assert len(gw.state["streams"].running) == 0


async def test_head_stops_nothing() -> None:
    """A HEAD request does not count as a viewer, whose leaving would stop the stream."""
    simulator = quick(token_rate=200)
    async with gateway(simulator) as gw:
        sid = await gw.start(chat=chat("Hi"))
        path = f"{gw.url}/api/streams/{sid}"
        for headers in ({}, {"Last-Event-ID": f"{sid}-1"}):
            await simulator.until(lambda: simulator.states["generating"] == 1)
            async with gw.session.head(path, headers=headers) as response:
                assert response.status in (200, 422)  # the first event may not be there yet
        async with gw.session.head(f"{gw.url}/api/streams/{'0' * 32}") as response:
            assert response.status == 404
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/api/chat", {"GET", "HEAD", "POST"}),
        ("DELETE", "/api/generate", {"GET", "HEAD", "POST"}),
        ("GET", "/api/streams", {"POST"}),
        ("PUT", f"/api/streams/{'0' * 32}", {"DELETE", "GET", "HEAD"}),
        ("GET", "/api/session", {"DELETE", "POST"}),
        ("HEAD", "/api/streams", {"POST"}),
        ("POST", "/api/models", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
        ("POST", "/static/index.html", {"GET", "HEAD"}),
    ],
)
async def test_method_not_allowed(method: str, path: str, allow: set[str]) -> None:
    async with surviving() as (gw, ollama):
        async with gw.session.request(method, gw.url + path) as response:
            assert response.status == 405
            assert set(response.headers["Allow"].split(", ")) == allow
            if method != "HEAD":
                assert (await response.json())["code"] == "method_not_allowed"
        assert ollama.requests == []


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/chat/", "/static/nothing", "/api/tags"])
async def test_nothing_here(path: str) -> None:
    """This includes Ollama's own paths: the gateway is not a proxy."""
    async with surviving() as (gw, ollama):
        async with gw.session.get(gw.url + path, allow_redirects=False) as response:
            assert (response.status, (await response.json())["code"]) == (404, "not_found")
        assert ollama.requests == []


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example:8000",
        "http://localhost:8000.evil.example",
        "null",
        "",
        "file://",
        "http://",
        "http://[::1",
        "http://a]b",
        "127.0.0.1",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
async def test_foreign_origin(origin: str, method: str) -> None:
    """It gets 403 whatever it accepts, because a client without access learns nothing more, and nothing starts."""
    async with surviving() as (gw, ollama):
        for path in ("/api/chat?model=m&prompt=x", "/api/models", "/"):
            async with gw.session.request(method, gw.url + path, headers=EVENTS | {"Origin": origin}) as response:
                assert response.status == 403
                assert "Access-Control-Allow-Origin" not in response.headers
                if method != "HEAD":
                    assert (await response.json())["code"] == "forbidden_origin"
        assert ollama.requests == []


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080", "https://a.example"]
)
async def test_allowed_origin(origin: str) -> None:
    async with (
        surviving(cors_origins="https://a.example") as (gw, _),
        gw.session.get(f"{gw.url}/api/chat?model=m&prompt=x", headers={"Origin": origin}) as response,
    ):
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == origin


async def test_own_origin_behind_tls() -> None:
    """The page's own origin is allowed, whatever name and scheme a proxy gives it."""
    headers = {"Host": "chat.example.com", "Origin": "https://chat.example.com"}
    async with (
        surviving(allowed_hosts="chat.example.com") as (gw, _),
        gw.session.get(f"{gw.url}/api/models", headers=headers) as response,
    ):
        assert response.status == 200


async def test_errors_carry_the_security_headers() -> None:
    async with surviving() as (gw, _):
        for path, headers in {"/api/chat": {}, "/nothing": {}, "/": {"Origin": "https://evil.example"}}.items():
            async with gw.session.get(gw.url + path, headers=headers) as response:
                assert response.status >= 400
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert "default-src 'self'" in response.headers["Content-Security-Policy"]
