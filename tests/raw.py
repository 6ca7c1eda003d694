"""Clients that misbehave, over bare sockets: one that is cut at any byte, and one that never reads."""

import asyncio
import json
import random
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.sse import Event, parse

Stop = Callable[["RawStream"], bool]


class RawStream:
    """One connection. `events` are the whole events so far, `status` the response's, `received` counts bytes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._address = (parts.hostname, parts.port)
        self.status = 0
        self.events: list[Event] = []
        self.received = 0
        self.complete = False
        self._buffer = b""
        self._text = b""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def ask(self, path: str, *, body: object = None, headers: dict[str, str] | None = None) -> None:
        """Send a request, and wait for the head of the answer."""
        await self.send(path, body=body, headers=headers)
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.status = int(head.split(b" ", 2)[1])

    async def send(self, path: str, *, body: object = None, headers: dict[str, str] | None = None) -> None:
        """Send a request; GET, or POST with a JSON body."""
        payload = b"" if body is None else json.dumps(body).encode()
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines += [f"Content-Length: {len(payload)}", "", ""]
        self._writer.write("\r\n".join(lines).encode() + payload)
        await self._writer.drain()

    async def read(self, until: Stop = lambda _: False, at_most: int = 2**16) -> None:
        """Read to the end of the body, or until `until` holds, asked after every `at_most` bytes or fewer."""
        while not self.complete and not until(self):
            chunk = await self._reader.read(at_most)
            assert chunk, "the server closed the connection in the middle of the body"
            self.received += len(chunk)
            self._buffer += chunk
            self._dechunk()

    def cut(self) -> None:
        """Close like a client that goes away: with a FIN or with a RST."""
        sock = self._writer.get_extra_info("socket")
        if random.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    @property
    def last_id(self) -> str | None:
        """What an `EventSource` would send when it reconnects."""
        return next((event.id for event in reversed(self.events) if event.id), None)

    def _dechunk(self) -> None:
        while True:
            size, separator, rest = self._buffer.partition(b"\r\n")
            if not separator or len(rest) < (length := int(size, 16)) + 2:
                return
            self._text += rest[:length]
            self._buffer = rest[length + 2 :]
            if not length:
                assert not self._text, "the body ended within an event"
                self.complete = True
                return
            *blocks, self._text = self._text.split(b"\n\n")
            self.events += [event for block in blocks if block != b": ping" and (event := parse(block))]


def stalled(url: str, path: str) -> socket.socket:
    """A client that asks and then never reads, with buffers that are full soon."""
    address = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((address.hostname, address.port))
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    return sock
