"""Servers that answer as scripted, byte by byte, where the simulator would be too well-behaved.

An answer is a coroutine that is given the connection after the request was read. It writes what it likes, and
the connection stays open when it returns: the next request may follow, as on Ollama's own connections.
"""

import asyncio
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
ONCE_DONE = b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}\n'


@dataclass
class Request:
    """One request as it came in. `headers` has lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """The server's end of a connection, for the answer to one request."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter, connection: int) -> None:
        self.request = request
        self.connection = connection
        """The same for all requests of one connection."""
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send each piece by itself, so that the reader is likely to get them apart."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def start(self) -> None:
        """The head of a chunked stream."""
        await self.send(head(200, {"Content-Type": NDJSON, "Transfer-Encoding": "chunked"}))

    async def lines(self, *lines: bytes) -> None:
        """Each line as a chunk of its own."""
        await self.send(*map(chunk, lines))

    async def end(self) -> None:
        """The terminating chunk."""
        await self.send(b"0\r\n\r\n")

    def close(self) -> None:
        """A bare EOF."""
        self._writer.close()

    def reset(self) -> None:
        """RST instead of FIN."""
        reset(self._writer)


Answer = Callable[[Peer], Awaitable[None]]


@dataclass
class Upstream:
    """The requests that a scripted server has seen. `open` counts the running chats, generates and pulls."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    open: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition()` holds; it is checked after each request and each connection's end."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def note(self, request: Request) -> None:
        self.requests.append(request)
        self.changed.set()


def token(text: str) -> bytes:
    """A line of chat."""
    return orjson.dumps({"model": "m", "message": {"role": "assistant", "content": text}, "done": False}) + b"\n"


def head(status: int, headers: dict[str, str]) -> bytes:
    """A status line and headers."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, body: bytes, content_type: str = JSON) -> bytes:
    """An answer with a Content-Length."""
    return head(status, {"Content-Type": content_type, "Content-Length": str(len(body))}) + body


def says(*pieces: bytes) -> Answer:
    """The answer that sends these pieces."""

    async def answer(peer: Peer) -> None:
        await peer.send(*pieces)

    return answer


def streams(*lines: bytes) -> Answer:
    """The answer that streams these lines in chunks and ends cleanly."""
    return says(head(200, {"Content-Type": NDJSON, "Transfer-Encoding": "chunked"}), *map(chunk, lines), b"0\r\n\r\n")


async def silence(peer: Peer) -> None:
    """Say nothing, for good."""
    await asyncio.Event().wait()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


NOTHING_LOADED = says(whole(200, b'{"models":[]}'))


@asynccontextmanager
async def upstream(answer: Answer, **others: Answer) -> AsyncIterator[Upstream]:
    """A server whose chats, generates and pulls get `answer`; `tags`, `ps`, `show`, `version` may have their own.

    An answer is cancelled when the client leaves, and the cancellation is how a test sees that.
    """
    seen = Upstream()
    answers = {
        f"/api/{name}": other for name, other in ({"ps": NOTHING_LOADED, "tags": NOTHING_LOADED} | others).items()
    }
    tasks: set[asyncio.Task[None]] = set()
    connections = itertools.count()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests, connection = _Requests(reader), next(connections)
        while (request := await requests.next()) is not None:
            generation = request.path not in answers
            seen.open += generation
            seen.note(request)
            answering = asyncio.ensure_future(answers.get(request.path, answer)(Peer(request, writer, connection)))
            listening = asyncio.ensure_future(requests.fill())
            try:
                await asyncio.wait([answering, listening], return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    return
                await answering
            finally:
                answering.cancel()
                listening.cancel()
                seen.open -= generation
                seen.changed.set()
                await asyncio.wait([answering, listening])

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    seen.url = f"http://{host}:{port}"
    try:
        yield seen
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks)


class _Requests:
    """The requests of a connection. What was read ahead, to see whether the client is still there, is not lost."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = b""

    async def fill(self) -> bool:
        """Read on; False at the end."""
        piece = await self._reader.read(65536)
        self._buffer += piece
        return piece != b""

    async def next(self) -> Request | None:
        """The next request, or None when there is none any more."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self.fill():
                return None
        text, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *rest = text.decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        size = int(headers.get("content-length", 0))
        while len(self._buffer) < size:
            if not await self.fill():
                return None
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Request(method, path, headers, body)
