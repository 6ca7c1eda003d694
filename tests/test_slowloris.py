"""Connections that send too much or too slowly: each is bounded, and others are served meanwhile."""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
import uvloop

from gateway.web.responses import SECURITY_HEADERS
from gateway.web.server import listen, several
from tests.gateways import Gateway, gateway
from tests.sse import Events, ending
from tests.upstreams import ONCE_DONE, Upstream, silence, streams, token, upstream

REQUEST_TIMEOUT = 1
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
STREAM = b"GET /api/chat?model=m&prompt=x HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def nothing_failed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR or record.exc_info]


@asynccontextmanager
async def running(ollama: str = "http://127.0.0.1:9", /, **settings: Any) -> AsyncIterator[Gateway]:
    async with gateway(ollama, **({"request_timeout": REQUEST_TIMEOUT} | settings)) as gw:
        yield gw
        async with gw.session.get(gw.url + "/healthz") as response:
            assert response.status == 200  # still alive


class Connection:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes) -> bytes:
        """Send byte by byte, in more than the time there is, and read until the gateway closes."""
        answer = asyncio.create_task(self.rest())
        for number in range(len(data)):
            await self.send(data[number : number + 1])
            await asyncio.wait([answer], timeout=2.5 * REQUEST_TIMEOUT / len(data))
            if answer.done():
                return await answer
        raise AssertionError("all of it could be sent")

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        """All that comes until the gateway closes."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


@asynccontextmanager
async def connected(gw: Gateway) -> AsyncIterator[Connection]:
    address = urlsplit(gw.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def refusal(answer: bytes) -> tuple[int, str, str]:
    """Status, code and message of an answer, which has all security headers and closes the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert headers.items() >= (SECURITY_HEADERS | {"Connection": "close", "Content-Length": str(len(body))}).items()
    error = orjson.loads(body)
    assert error.keys() == {"error", "code", "status", "phase", "retryable"}
    return int(lines[0].split()[1]), error["code"], error["error"]


SLOW = {
    "head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 20,
    "body": b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n" + b" " * 20,
    "chunks": b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 5,
}


@pytest.mark.parametrize("slow", SLOW)
async def test_a_slow_request_is_cut_off(slow: str) -> None:
    """No byte of it buys time for the next."""
    async with running() as gw, connected(gw) as connection:
        status, code, message = refusal(await connection.drip(SLOW[slow]))
        assert (status, code) == (408, "invalid_request")
        assert "GATEWAY_REQUEST_TIMEOUT" in message


@pytest.mark.parametrize("first", [b"", GET], ids=["at once", "after a request"])
@pytest.mark.parametrize("sent", [b"\r\n", b"\r\n" * 100, b"G"], ids=["CRLF", "CRLFs", "one byte"])
async def test_a_connection_that_asks_nothing_is_closed(first: bytes, sent: bytes) -> None:
    """An empty line between requests is legal, and uvicorn alone would wait for ever after one."""
    async with running() as gw, connected(gw) as connection:
        await connection.send(first)
        if first:
            await connection.reader.readuntil(b'"ok"}')
        await connection.send(sent)
        await connection.rest()


async def test_a_silent_connection_is_closed_without_a_word() -> None:
    """A browser connects ahead of need; an answer to nothing would confuse it."""
    async with running() as gw, connected(gw) as connection:
        assert await connection.rest() == b""


async def test_many_silent_and_slow_connections_keep_nobody_waiting() -> None:
    async with (
        upstream(streams(token("fine"), ONCE_DONE)) as ollama,
        running(ollama.url, request_timeout=60) as gw,
        aiohttp.ClientSession() as session,
    ):
        address = urlsplit(gw.url)
        held = [await asyncio.open_connection(address.hostname, address.port) for _ in range(400)]
        for number, (_, writer) in enumerate(held):
            writer.write(list(SLOW.values())[number % 3] if number % 2 else b"")
        async with session.get(gw.url + "/api/chat?model=m&prompt=x") as response:
            assert ending([event async for event in Events(response)]) == ("complete", None)
        for _, writer in held:
            writer.close()


# What is too much

LIMITS: dict[str, Any] = {"max_head_bytes": 4096, "max_url_bytes": 1000}


@pytest.mark.parametrize(
    ("request_bytes", "status", "setting"),
    [
        (b"GET /?" + b"x" * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "GATEWAY_MAX_URL_BYTES"),
        (b"GET /?" + b"x" * 1000, 414, "GATEWAY_MAX_URL_BYTES"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 4096, 431, "GATEWAY_MAX_HEAD_BYTES"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 700, 431, "more than 100 headers"),
        (b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 50 + b"\r\n") * 90, 431, "GATEWAY_MAX_HEAD_BYTES"),
        (b"\r\n" * 2100, 431, "GATEWAY_MAX_HEAD_BYTES"),
    ],
    ids=["URL", "URL without an end", "header", "many headers", "headers", "empty lines"],
)
async def test_a_head_that_is_too_large_is_refused_before_its_end(
    request_bytes: bytes, status: int, setting: str
) -> None:
    async with running(**LIMITS) as gw, connected(gw) as connection:
        await connection.send(request_bytes)
        answer = refusal(await connection.rest())
        assert answer[:2] == (status, "too_large")
        assert setting in answer[2]


async def test_a_whole_head_that_is_too_large_is_refused() -> None:
    async with running(**LIMITS) as gw, connected(gw) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 4096 + b"\r\n\r\n")
        assert (await connection.head()).startswith(b"HTTP/1.1 431 ")


async def test_the_longest_url_is_answered() -> None:
    """It is as long as the parser can take, because a prompt stands in it."""
    async with (
        upstream(streams(token("fine"), ONCE_DONE)) as ollama,
        running(ollama.url) as gw,
    ):
        before = "/api/chat?model=m&prompt="
        for size, status in ((65_535, b"200"), (65_536, b"414")):
            async with connected(gw) as connection:
                url = before + "x" * (size - len(before))
                await connection.send(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                assert (await connection.rest()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("endless", [b"a: b\r\n" * 1000, b"a: " + b"b" * 8000], ids=["trailers", "one trailer"])
async def test_a_body_cannot_go_on_for_ever_without_being_body(endless: bytes) -> None:
    """Trailers are kept like headers, but come after the headers' limit; they are bounded even after the answer."""
    settings = LIMITS | {"request_timeout": 60}
    async with running(**settings) as gw, connected(gw) as connection:
        lines = b"POST /api/chat HTTP/1.1", b"Host: x", b"Origin: https://evil.example", b"Transfer-Encoding: chunked"
        await connection.send(b"\r\n".join([*lines, b"", b""]))
        assert (await connection.head()).startswith(b"HTTP/1.1 403 ")
        await connection.send(b"0\r\n" + endless)
        async with asyncio.timeout(30):
            await connection.rest()


async def test_a_large_body_is_no_head() -> None:
    async with (
        upstream(streams(token("fine"), ONCE_DONE)) as ollama,
        running(ollama.url, **LIMITS) as gw,
        aiohttp.ClientSession() as session,
    ):

        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"model":"m","prompt":"'
            for _ in range(300):
                yield b"x" * 5000
            yield b'"}'

        async with session.post(gw.url + "/api/generate", data=pieces()) as response:
            assert ending([event async for event in Events(response)]) == ("complete", None)


# Several requests on one connection


@asynccontextmanager
async def streaming() -> AsyncIterator[tuple[Upstream, Connection]]:
    """A connection with a running stream, for which Ollama sends nothing."""
    async with (
        upstream(silence) as ollama,
        running(ollama.url) as gw,
        connected(gw) as connection,
    ):
        await connection.send(STREAM)
        await ollama.until(lambda: ollama.open == 1)
        yield ollama, connection
        await ollama.until(lambda: ollama.open == 0)


async def test_requests_after_each_other_are_answered() -> None:
    async with running() as gw, connected(gw) as connection:
        for _ in range(3):
            await connection.send(GET)
            await connection.reader.readuntil(b'"ok"}')


@pytest.mark.parametrize("number", [1, 10_000])
async def test_a_request_behind_a_running_stream_ends_both(number: int) -> None:
    """If it waited, the gateway would not see that the client leaves, and would keep its bytes."""
    async with streaming() as (_, connection):
        await connection.send(GET * number)
        assert (await connection.rest()).count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize("bad", [b"\x00\xff", b"BAD\r\n\r\n", b"\x16\x03\x01"])
async def test_garbage_behind_a_running_stream_gets_no_answer_into_it(bad: bytes) -> None:
    async with streaming() as (_, connection):
        await connection.head()
        await connection.send(bad)
        assert b"HTTP/1.1" not in await connection.rest()


@pytest.mark.parametrize(
    "request_bytes", [STREAM, b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
async def test_a_refused_request_is_not_told_to_continue(request_bytes: bytes) -> None:
    async with running() as gw, connected(gw) as connection:
        await connection.send(request_bytes.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n\x00\xff"))
        assert refusal(await connection.rest())[0] == 400


async def test_a_client_that_leaves_is_noticed() -> None:
    async with streaming() as (_, connection):
        connection.writer.close()


async def test_a_half_closed_connection_counts_as_left() -> None:
    """A closed tab looks the same, and Ollama, too, takes it for a client that has left."""
    async with streaming() as (_, connection):
        connection.writer.write_eof()


@pytest.mark.parametrize(
    "request_bytes",
    [
        STREAM.replace(b"1.1", b"1.0"),
        STREAM.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        STREAM.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        STREAM.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"),
    ],
    ids=["HTTP/1.0", "close", "WebSocket", "h2c"],
)
async def test_other_ways_to_ask_get_a_stream(request_bytes: bytes) -> None:
    async with (
        upstream(streams(token("fine"), ONCE_DONE)) as ollama,
        running(ollama.url) as gw,
        connected(gw) as connection,
    ):
        await connection.send(request_bytes)
        assert (await connection.head()).startswith(b"HTTP/1.1 200 ")
        await connection.reader.readuntil(b"event: end")


async def test_no_server_is_named() -> None:
    async with running() as gw, connected(gw) as connection:
        await connection.send(GET)
        assert b"\r\nserver:" not in (await connection.head()).lower()


@pytest.mark.parametrize("resets", [False, True])
async def test_who_has_left_before_being_accepted_costs_no_request(resets: bool) -> None:
    async with upstream(silence) as ollama, running(ollama.url) as gw:
        address = urlsplit(gw.url)
        for _ in range(20):  # the gateway, in this loop, cannot accept any of them yet
            with socket.create_connection((address.hostname, address.port)) as sock:
                sock.sendall(STREAM)
                if resets:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        async with gw.session.get(gw.url + "/healthz") as response:  # is accepted after them
            assert response.status == 200
        assert not ollama.requests
        assert not gw.state["streams"].running


def test_many_are_accepted_in_one_turn_of_the_loop() -> None:
    accepted: list[asyncio.BaseTransport] = []

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport)

    async def accept() -> int:
        sock = listen("127.0.0.1", 0, client_timeout=60)
        create = asyncio.get_running_loop().create_server
        with ExitStack() as clients:
            servers = [await create(Accepting, sock=each) for each in several(sock)]
            for _ in range(40):
                clients.enter_context(socket.create_connection(sock.getsockname()))
            turns = 0
            while len(accepted) < 40:
                await asyncio.sleep(0)
                turns += 1
            for server in servers:
                server.close()
            for transport in accepted:
                transport.close()
        return turns

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(accept()) < 10
