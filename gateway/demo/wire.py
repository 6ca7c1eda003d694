"""What Go's standard library and Gin put on the wire: JSON, times, framing, and one HTTP exchange.

Nothing here knows about models. An `Exchange` is one request and its answer; an `Endpoint` is the ASGI app
that runs a handler for it and stops that handler as soon as the client goes.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from time import time_ns
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON = "application/json; charset=utf-8"
BARE_JSON = "application/json"
NDJSON = "application/x-ndjson"

GO_BUFFER = 2048
"""Go's HTTP server buffers this many bytes: a longer body that is not a stream goes out chunked too."""

YIELD_EVERY = 4
"""After so many chunks in a row the event loop gets its turn, to notice that the client has left. Asyncio logs a
warning at the sixth write to a connection that is lost."""

_UNSAFE = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")
_ESCAPES = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    b"\xe2\x80\xa8": b"\\u2028",
    b"\xe2\x80\xa9": b"\\u2029",
}


def dumps(value: Any) -> bytes:
    """JSON as Go writes it: `<>&` and U+2028/2029 as escapes, all else raw UTF-8."""
    return _UNSAFE.sub(lambda match: _ESCAPES[match[0]], orjson.dumps(value))


quote = lru_cache(maxsize=8192)(dumps)
"""`dumps` for a token: the same few thousand come again and again."""


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(ns: int | None = None) -> str:
    """RFC 3339 with nanoseconds and no trailing zeros, as Go writes a UTC time. Default: now."""
    seconds, fraction = divmod(time_ns() if ns is None else ns, 1_000_000_000)
    return f"{_second(seconds)}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


async def forever() -> None:
    await asyncio.Event().wait()


class RefusedError(Exception):
    """An error that Ollama answers instead of the answer.

    `late` is an error found in the streaming path: there, Ollama answers chunked and names no charset.
    """

    def __init__(self, status: int, message: str, *, late: bool = False, **extra: str) -> None:
        super().__init__(message)
        self.status, self.late = status, late
        self.body = {"error": message, **extra}


class Exchange:
    """One HTTP request, and the answer as it is being written."""

    def __init__(self, scope: Scope, body: bytes, send: Send) -> None:
        self.path: str = scope["path"]
        self.headers = Headers(scope=scope)
        self.body = body
        self.started = self.hung_up = False
        self._writes = 0
        self._scope, self._send = scope, send

    async def reply(
        self, body: bytes = b"", content_type: str | None = None, status: int = 200, *, chunked: bool = False
    ) -> None:
        """A whole answer at once."""
        length = None if chunked or len(body) > GO_BUFFER else len(body)
        await self._start(status, content_type, length)
        await self._send({"type": "http.response.body", "body": body})

    async def json(self, value: Any, status: int = 200, content_type: str = JSON, *, chunked: bool = False) -> None:
        await self.reply(dumps(value), content_type, status, chunked=chunked)

    async def refuse(self, error: RefusedError) -> None:
        await self.json(error.body, error.status, BARE_JSON if error.late else JSON, chunked=error.late)

    async def write(self, data: bytes) -> None:
        """One HTTP chunk of a stream. Status and headers leave with the first one, not before."""
        self._writes += 1
        if self._writes % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        if not self.started:
            await self._start(200, NDJSON, None)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """The clean end of a stream; of an empty answer if nothing was written."""
        if not self.started:
            await self._start(200, NDJSON, 0)
        await self._send({"type": "http.response.body"})

    async def hang_up(self) -> None:
        """Close the connection as it stands: bare EOF, no terminating chunk, perhaps not even a response.

        ASGI has no message for this, and an app that just returns makes uvicorn log an error. Uvicorn's
        `send` is a method of the object that owns the connection, so the transport is closed there; to
        uvicorn it looks like a client that left.
        """
        self.hung_up = True
        self._scope["demo.send"].__self__.transport.close()
        await forever()  # until uvicorn has noticed, and this is cancelled

    async def _start(self, status: int, content_type: str | None, length: int | None) -> None:
        self.started = True
        headers = []
        if content_type:
            headers.append((b"content-type", content_type.encode()))
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


@dataclass(frozen=True)
class Endpoint:
    """The ASGI app of a route: reads the body, runs `handler`, cancels it at once when the client goes."""

    handler: Callable[[Exchange], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        work = asyncio.ensure_future(self._run(Exchange(scope, bytes(body), send)))
        gone = asyncio.ensure_future(receive())  # after the whole body, the next message is the disconnect
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.wait((work, gone))
        if not work.cancelled():
            work.result()

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self.handler(exchange)
        except RefusedError as error:
            await exchange.refuse(error)


@dataclass(frozen=True)
class Door:
    """Turns away foreign Hosts and Origins with an empty 403, and lets an allowed Origin read the answer.

    It is the outermost layer, so it also remembers uvicorn's own `send` for `Exchange.hang_up`.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if origin.partition("://")[2] == host:  # a page of this very server
            origin = ""
        if (origin and not _allowed_origin(origin)) or not _allowed_host(host):
            await Response(status_code=403)(scope, receive, send)
            return

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).update({"access-control-allow-origin": origin, "vary": "Origin"})
            await send(message)

        await self.app({**scope, "demo.send": send}, receive, send_with_cors if origin else send)


def _allowed_host(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        address = ip_address(name)
    except ValueError:
        return name in {"", "localhost"} or name.endswith((".localhost", ".local", ".internal"))
    return address.is_private or address.is_loopback or address.is_unspecified


def _allowed_origin(origin: str) -> bool:
    scheme, _, rest = origin.partition("://")
    if scheme in {"app", "file", "tauri", "vscode-webview", "vscode-file"}:
        return True
    return scheme in {"http", "https"} and urlsplit(f"//{rest}").hostname in {
        "localhost",
        "127.0.0.1",
        "0.0.0.0",
    }


async def not_found(_: Request, __: Exception) -> Response:
    """What Ollama's router says of an unknown path."""
    return Response("404 page not found", 404, {"content-type": "text/plain"})


async def method_not_allowed(_: Request, error: Exception) -> Response:
    """What Ollama's router says of another method than the path has."""
    assert isinstance(error, HTTPException)
    return Response("405 method not allowed", 405, {**(error.headers or {}), "content-type": "text/plain"})
