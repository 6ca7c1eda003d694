"""A cheap Ollama, so that its own CPU is not what is measured: `python -m bench.upstream PORT`.

The prompt says how to answer: `rate=50 tokens=500 seed=7`. A rate of 0 is as fast as the connection takes it, and
0 tokens are silence. Like Ollama it sends one line per chunk, and no status line before the first token. A token is
the time at which it was sent: `@` and 19 digits, nanoseconds of CLOCK_MONOTONIC, which all processes share.
"""

import asyncio
import heapq
import itertools
import re
import sys
import time

import orjson
import uvloop

_PROMPT = re.compile(rb"rate=(\d+) tokens=(\d+) seed=(\d+)")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

_START = b'{"model":"bench","created_at":"2026-01-01T00:00:00.000000000Z","message":{"role":"assistant","content":'
_TOKEN = _START + b'"@%019d"},"done":false}\n'
_DONE = _START + b'""},"done":true,"done_reason":"stop","total_duration":1,"prompt_eval_count":1,"eval_count":1}\n'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(line: bytes, size: int) -> bytes:
    return b"%x\r\n%b\r\n" % (size, line)


_TOKEN_CHUNK = _chunk(_TOKEN, len(_TOKEN % 0))
_LAST_CHUNKS = _chunk(_DONE, len(_DONE)) + b"0\r\n\r\n"

_MODEL = {"name": "bench", "model": "bench", "size": 1, "details": {}, "capabilities": ["completion"]}
_ANSWERS: dict[bytes, object] = {
    b"/api/version": {"version": "0.0.0"},
    b"/api/tags": {"models": [_MODEL]},
    b"/api/ps": {"models": [_MODEL]},
    b"/api/show": {"details": {}, "model_info": {}, "capabilities": ["completion"]},
}


class Model:
    """Speaks on all streams: on the paced ones by one timer, on the others in turn."""

    def __init__(self) -> None:
        self.open: set[Connection] = set()
        self.closed: dict[int, int] = {}  # by seed, when its client left; kept until it is asked for
        self._loop = asyncio.get_running_loop()
        self._paced: list[tuple[float, int, Connection]] = []  # a heap by time
        self._order = itertools.count()
        self._hasty: set[Connection] = set()
        self._turn: asyncio.Handle | None = None

    def pace(self, stream: "Connection") -> None:
        heapq.heappush(self._paced, (self._loop.time(), next(self._order), stream))
        if len(self._paced) == 1:
            self._tick()

    def hurry(self, stream: "Connection") -> None:
        self._hasty.add(stream)
        if self._turn is None:
            self._turn = self._loop.call_soon(self._round)

    def hold(self, stream: "Connection") -> None:
        self._hasty.discard(stream)

    def _tick(self) -> None:
        now = self._loop.time()
        while self._paced and self._paced[0][0] <= now:
            due, order, stream = self._paced[0]
            if stream.say():
                heapq.heapreplace(self._paced, (due + stream.period, order, stream))
            else:
                heapq.heappop(self._paced)
        if self._paced:
            self._loop.call_at(self._paced[0][0], self._tick)

    def _round(self) -> None:
        for stream in list(self._hasty):
            if not stream.say():
                self._hasty.discard(stream)
        self._turn = self._loop.call_soon(self._round) if self._hasty else None


class Connection(asyncio.Protocol):
    """One connection, which serves one request after another."""

    def __init__(self, model: Model) -> None:
        self.seed = 0
        self.period = 0.0
        self._model = model
        self._transport: asyncio.Transport
        self._received = b""
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if separator and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._answer(head.split(b" ", 2)[1], body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._model.hold(self)
        if self in self._model.open:
            self._model.closed[self.seed] = time.monotonic_ns()
            self._finish()

    def pause_writing(self) -> None:
        self._model.hold(self)

    def resume_writing(self) -> None:
        if self._left and not self.period:
            self._model.hurry(self)

    def say(self) -> bool:
        """Send one token. Returns False if it was the last one, or the client has left."""
        if not self._left:
            return False
        self._transport.write(self._head + _TOKEN_CHUNK % time.monotonic_ns())
        self._head = b""
        self._left -= 1
        if not self._left:
            self._transport.write(_LAST_CHUNKS)
            self._finish()
        return self._left > 0

    def abort(self) -> None:
        self._transport.abort()

    def _finish(self) -> None:
        self._left = 0
        self._model.open.discard(self)

    def _answer(self, path: bytes, body: bytes) -> None:
        model = self._model
        if path == b"/api/chat" and (prompt := _PROMPT.search(body)):
            rate, self._left, self.seed = map(int, prompt.groups())
            self.period = 1 / rate if rate else 0
            self._head = _HEAD
            model.open.add(self)
            if self._left:
                model.pace(self) if rate else model.hurry(self)
            return
        answer = _ANSWERS.get(path, {})
        if path == b"/bench/open":
            answer = len(model.open)
        elif path == b"/bench/closed":
            answer, model.closed = {str(seed): at for seed, at in model.closed.items()}, {}
        elif path == b"/bench/stop":
            for stream in list(model.open):
                stream.abort()
        text = orjson.dumps(answer)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
        )


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    model = Model()
    server = await loop.create_server(lambda: Connection(model), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
