"""A cheap load client: raw connections that look for stamped tokens and for the end, and parse nothing else."""

import asyncio
import itertools
import math
import re
import time
from collections.abc import Sequence
from typing import Any

import orjson

STAMP = re.compile(rb'"@(\d{19})')
STAMP_BYTES = 21
CHUNK_BORDER = re.compile(rb"\r\n[0-9a-f]+\r\n")
"""nginx may cut the text anywhere, even in the middle of a stamp."""

LAST_CHUNK = b"\r\n0\r\n\r\n"
LOST_SECONDS = 20.0
"""A kept-alive stream that has received nothing for this long counts as dead: pings come every 15 seconds."""

_seeds = itertools.count(1)


class Viewer(asyncio.Protocol):
    """One request and its answer. Its times are nanoseconds of the clock that stamps tokens."""

    def __init__(self, load: "Load", request: bytes, seed: int) -> None:
        self.seed = seed
        self.asked_at = 0
        self.seen = time.monotonic_ns()
        self.first = 0
        self.closed_at = 0
        self.complete = asyncio.get_running_loop().create_future()
        self._load = load
        self._request = request
        self._transport: asyncio.Transport
        self._rest = b""

    @property
    def alive(self) -> bool:
        return not self._transport.is_closing() and time.monotonic_ns() - self.seen < LOST_SECONDS * 1e9

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.asked_at = self.seen = time.monotonic_ns()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = self.seen = time.monotonic_ns()
        data = self._rest + data
        if stamps := STAMP.findall(CHUNK_BORDER.sub(b"", data)):
            self.first = self.first or now
            self._load.latencies += [now - int(stamp) for stamp in stamps]
        self._rest = data[1 - STAMP_BYTES :]
        if data.endswith(LAST_CHUNK):
            self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._complete()

    def close(self) -> None:
        self.closed_at = time.monotonic_ns()
        self._transport.close()

    def _complete(self) -> None:
        if not self.complete.done():
            self.complete.set_result(None)


class Load:
    """The open streams of one server, and how old each token was on arrival, in nanoseconds."""

    def __init__(self, port: int) -> None:
        self.viewers: list[Viewer] = []
        self.latencies: list[int] = []
        self._port = port

    async def ask(self, path: str, *, rate: int, tokens: int) -> Viewer:
        """Start one stream at `rate` tokens a second; 0 is as fast as possible."""
        seed = next(_seeds)
        return await self.view(post(path, body(rate, tokens, seed)), seed)

    async def view(self, request: bytes, seed: int = 0) -> Viewer:
        loop = asyncio.get_running_loop()
        _, viewer = await loop.create_connection(lambda: Viewer(self, request, seed), "127.0.0.1", self._port)
        self.viewers.append(viewer)
        return viewer

    async def ask_many(self, path: str, count: int, *, rate: int, tokens: int) -> None:
        """`count` streams, apart by a millisecond, so that their tokens do not all come at one moment."""
        for _ in range(count):
            await self.ask(path, rate=rate, tokens=tokens)
            await asyncio.sleep(0.001)

    def close(self) -> None:
        for viewer in self.viewers:
            viewer.close()


async def fetch(port: int, path: str, json: object = None) -> Any:
    """A short JSON question: GET, or POST of `json`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(get(path) if json is None else post(path, orjson.dumps(json)))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].split(None, 1)[0]
        return orjson.loads(await reader.readexactly(int(length)))
    finally:
        writer.close()


def chat(rate: int, tokens: int, seed: int) -> dict[str, object]:
    """A request in Ollama's form, whose prompt tells the upstream how to answer."""
    prompt = f"rate={rate} tokens={tokens} seed={seed}"
    return {"model": "bench", "stream": True, "messages": [{"role": "user", "content": prompt}]}


def body(rate: int, tokens: int, seed: int) -> bytes:
    return orjson.dumps(chat(rate, tokens, seed))


def get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode()


def post(path: str, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), len(body)) + body


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed; infinite when there is none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)] if ordered else math.inf
