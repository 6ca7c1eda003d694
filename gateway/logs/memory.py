"""Logs in this process's memory."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from gateway import events
from gateway.errors import Busy, TooLarge
from gateway.silence import Listener, Silence

CHUNK_BYTES = 64 * 1024
"""Events joined into one chunk: enough to make a replay cheap, little enough that a reader that stopped
reading holds next to nothing."""

FRAME_OVERHEAD = 41
"""What Python adds to a frame in memory: the header of a bytes object and its place in the list."""

NOTICES = 64
"""Sidecars kept for readers that are a little behind, so that nobody's queue position seems to jump."""


class MemoryLogs:
    """All logs of this process, bounded in bytes together; finished ones go by age, or earlier under pressure.

    `retain_seconds` counts from a stream's end, `idle_seconds` from what a reader has got last.
    """

    shared = False
    problem: str | None = None

    def __init__(
        self, *, max_stream_bytes: int, max_log_bytes: int, retain_seconds: float, idle_seconds: float
    ) -> None:
        self.size = 0
        self.max_stream_bytes = max_stream_bytes
        self.silence = Silence(idle_seconds)
        self._max_log_bytes = max_log_bytes
        self._retain_seconds = retain_seconds
        self._logs: dict[str, MemoryLog] = {}
        self._expiry: dict[str, float] = {}  # ended logs, oldest first: retention is the same for all
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._logs)

    async def create(self, sid: str, head: bytes) -> "MemoryLog":
        log = MemoryLog(self, sid, head)
        self.hold(log)
        return log

    async def find(self, sid: str) -> "MemoryLog | None":
        return self._logs.get(sid)

    def elsewhere(self, sid: str) -> None:
        return None

    async def stop(self, sid: str) -> None:
        return

    def dismiss(self, retry: int) -> None:
        return

    def hold(self, log: "MemoryLog") -> None:
        """Keep a log. Raises `Busy` when there is no room."""
        self.reserve(log.size)
        self._logs[log.sid] = log

    def reserve(self, size: int) -> None:
        """Count `size` more bytes, evicting ended logs, oldest first. Raises `Busy` when that is not enough."""
        while self.size + size > self._max_log_bytes and self._expiry:
            self._drop(next(iter(self._expiry)))
        if self.size + size > self._max_log_bytes:
            raise Busy(
                f"The running streams hold all of the {self._max_log_bytes} bytes there are for them "
                "(GATEWAY_MAX_LOG_BYTES)."
            )
        self.size += size

    def retain(self, log: "MemoryLog") -> None:
        """Start the retention of a log that has ended."""
        loop = asyncio.get_running_loop()
        self._expiry[log.sid] = loop.time() + self._retain_seconds
        if self._timer is None:
            self._timer = loop.call_later(self._retain_seconds, self._expire)

    def close(self) -> None:
        """Forget everything, at the end of the process's life."""
        if self._timer is not None:
            self._timer.cancel()
        self.silence.close()
        self._logs.clear()
        self._expiry.clear()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for sid, due in list(self._expiry.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._expire)
                return
            self._drop(sid)

    def _drop(self, sid: str) -> None:
        self._expiry.pop(sid, None)
        log = self._logs.pop(sid)
        self.size -= log.size
        log.drop()


class MemoryLog:
    """One stream's log. See `EventLog`."""

    behind = False

    def __init__(self, logs: MemoryLogs, sid: str, head: bytes) -> None:
        self.sid = sid
        self.last = 0
        self.size = len(head)
        self.ended = False
        self._logs = logs
        self._head = head
        self._frames: list[bytes] = []  # the event with `seq` n stands at n - 1
        self._notices: tuple[bytes, ...] = ()
        self._announced = 0
        self._farewell = b""  # for readers who return
        self._last_words = b""  # for all, wherever they are
        self._readers: set[Listener] = set()

    def append(self, lines: Sequence[bytes]) -> None:
        self._extend(events.messages(self.sid, self.last + 1, lines))

    def announce(self, frame: bytes) -> None:
        if not self._frames:
            self._notices = (*self._notices[1 - NOTICES :], frame)
            self._announced += 1
            self._wake()

    def end(self, terminal: bytes | None, payload: Mapping[str, object], retry: int | None = None) -> None:
        frames = events.messages(self.sid, self.last + 1, [] if terminal is None else [terminal])
        frames.append(events.end(self.sid, self.last + len(frames) + 1, payload, retry))
        self._frames += frames
        self.last = len(self._frames)
        self._finish(_size(frames))

    def lose(self, terminal: bytes, payload: Mapping[str, object]) -> None:
        if not self.ended:
            message = events.messages(self.sid, events.LOST, [terminal])
            self._last_words = b"".join([*message, events.end(self.sid, events.LOST + 1, payload)])
            self._finish(len(self._last_words))

    def dismiss(self, farewell: bytes) -> None:
        """Send readers who return away with these words, as soon as they have an id to return with."""
        self._farewell = farewell
        self._wake()

    def drop(self) -> None:
        """Let go of everything, also under a reader that stalled; it is told nothing is left when it wakes."""
        self._frames = []
        self.last = 0

    async def read(self, after: int, returns: bool = False) -> AsyncIterator[bytes]:
        chunk = self._head
        shown = max(self._announced - 1, 0)
        reader = self._logs.silence.listen()
        self._readers.add(reader)
        try:
            while True:
                if shown < self._announced:
                    chunk += b"".join(self._notices[shown - self._announced :])
                    shown = self._announced
                if after < self.last:
                    batch = self._batch(after)
                    after += len(batch)
                    chunk += b"".join(batch)
                if chunk:
                    yield chunk
                    chunk = b""
                elif self.ended:
                    if self._last_words:
                        yield self._last_words
                    return
                elif returns and self._farewell and after:
                    yield self._farewell
                    return
                elif not await reader.news():
                    yield b""
        finally:
            self._readers.discard(reader)
            self._logs.silence.leave(reader)

    def _extend(self, frames: list[bytes]) -> None:
        """Add events, whole ones. Raises `TooLarge` or `Busy` when a bound would be crossed."""
        size = _size(frames)
        if self.size + size > self._logs.max_stream_bytes:
            raise TooLarge(
                f"The answer is longer than the {self._logs.max_stream_bytes} bytes kept of one stream "
                "(GATEWAY_MAX_STREAM_BYTES)."
            )
        self._logs.reserve(size)
        self.size += size
        self._frames += frames
        self.last = len(self._frames)
        self._notices = ()
        self._wake()

    def _finish(self, size: int) -> None:
        """Nothing can follow. The `size` of the last events is counted; no bound may prevent them."""
        self.size += size
        self._logs.size += size
        self._notices = ()
        self.ended = True
        self._retain()
        self._wake()

    def _retain(self) -> None:
        self._logs.retain(self)

    def _batch(self, after: int) -> list[bytes]:
        """The events that follow, as many as fit a chunk, and at least one."""
        if after + 1 == self.last:
            return self._frames[after:]
        size = 0
        for stop in range(after, self.last):
            size += len(self._frames[stop])
            if size >= CHUNK_BYTES:
                break
        return self._frames[after : stop + 1]

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()


def _size(frames: Sequence[bytes]) -> int:
    return sum(map(len, frames)) + FRAME_OVERHEAD * len(frames)
