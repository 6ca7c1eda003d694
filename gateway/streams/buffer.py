"""One stream's events in memory, and the readers that wait for more."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from gateway.dialects import events
from gateway.errors import NotFound, TooLarge
from gateway.jobs import End, Phase
from gateway.streams.log import Progress
from gateway.streams.shelf import Shelf

CHUNK_BYTES = 64 * 1024
"""Events are joined into chunks of about this size: large enough to make a replay cheap, small enough that a reader
that has stopped reading holds next to nothing."""

FRAME_OVERHEAD = 41  # bytes that Python adds to an event: the header of a bytes object and its place in the list
NOTICES = 64  # sidecars that are kept for readers a little behind, so that no queue position seems to be skipped


class EventBuffer:
    """The part that every kind of log is made of. See `EventLog`; `shelf` has the bounds and counts the bytes."""

    def __init__(self, sid: str, head: bytes, client: str, shelf: Shelf[Any]) -> None:
        self.sid = sid
        self.client = client
        self.head = head
        self.last = 0
        self.size = len(head)
        self.ended = False
        self._shelf = shelf
        self._frames: list[bytes] = []  # the event with `seq` n is at index n - 1
        self._notices: tuple[bytes, ...] = ()
        self._announced = 0
        self._farewell = b""  # for readers that reconnect
        self._last_words = b""  # the end, for readers that may have seen more than there is here
        self._waiting: set[asyncio.Future[None]] = set()

    def append(self, lines: Sequence[bytes]) -> None:
        """Append one unnamed event per line. Raises `TooLarge` or `Busy` when a bound would be crossed."""
        self.extend(events.messages(self.sid, self.last + 1, lines))

    def extend(self, frames: list[bytes]) -> None:
        """Append whole events. Raises `TooLarge` or `Busy` when a bound would be crossed."""
        size, limit = _size(frames), self._shelf.max_stream_bytes
        if self.size + size > limit:
            message = f"The answer is longer than the {limit} bytes that one stream may use (GATEWAY_MAX_STREAM_BYTES)."
            raise TooLarge(message)
        self._shelf.grow(self, size)
        self.size += size
        self._frames += frames
        self.last = len(self._frames)
        self._notices = ()
        self._wake()

    def announce(self, frame: bytes) -> None:
        """Show a sidecar to live readers without keeping it."""
        if not self._frames:
            self._notices = (*self._notices[1 - NOTICES :], frame)
            self._announced += 1
            self._wake()

    def end(self, terminal: bytes | None, payload: End, retry_ms: int | None = None) -> None:
        """Append the terminal message, if one is still owed, and the `end` event."""
        frames = events.messages(self.sid, self.last + 1, [] if terminal is None else [terminal])
        frames.append(events.end(self.sid, self.last + len(frames) + 1, payload, retry_ms))
        self._frames += frames
        self.last = len(self._frames)
        self.close(_size(frames))

    def end_lost(self, terminal: bytes, payload: End) -> None:
        """End the stream for readers at any place: its last two events are numbered from `events.LOST` on."""
        if not self.ended:
            message = events.messages(self.sid, events.LOST, [terminal])
            self._last_words = b"".join([*message, events.end(self.sid, events.LOST + 1, payload)])
            self.close(len(self._last_words))

    def close(self, size: int = 0) -> None:
        """Take no more events. The last ones, of `size` bytes, are counted, but no bound can prevent them."""
        self._shelf.grow(self, size, bounded=False)
        self.size += size
        self._notices = ()
        self.ended = True
        self._wake()

    def progress(self, seq: int) -> Progress:
        """What is left for a reader whose last event was number `seq`."""
        if seq in (events.LOST, events.LOST + 1):
            return Progress.NOTHING
        if self._last_words:
            return Progress.MORE
        if seq > self.last:
            return Progress.UNKNOWN
        return Progress.NOTHING if self.ended and seq == self.last else Progress.MORE

    def send_away(self, farewell: bytes) -> None:
        """Send away the readers that reconnect: `farewell` is their last chunk, once they have an id to resume from."""
        self._farewell = farewell
        self._wake()

    def clear(self) -> None:
        """Let go of everything. A reader that has not come to the end will be told that the rest is gone."""
        self._frames = []

    def frames(self, after: int, max_bytes: int) -> list[bytes]:
        """The events after number `after`: none once they are cleared, else at least one if there is one, and no more
        when `max_bytes` are reached."""
        if after + 1 == self.last:  # nearly always, with a reader that keeps up
            return self._frames[after:]
        size = 0
        for stop in range(after, len(self._frames)):
            size += len(self._frames[stop])
            if size >= max_bytes:
                return self._frames[after : stop + 1]
        return self._frames[after:]

    async def read(self, after: int, *, reconnects: bool = False) -> AsyncGenerator[bytes]:
        """Whole events, several to a chunk. See `EventLog.read`."""
        loop = asyncio.get_running_loop()  # once: each call is a system call on Python 3.11
        chunk = events.unprimed(self.head, self.sid) if after else self.head
        shown = max(self._announced - 1, 0)
        while True:
            if shown < self._announced:
                chunk += b"".join(self._notices[shown - self._announced :])
                shown = self._announced
            if after < self.last:
                frames = self.frames(after, CHUNK_BYTES)
                if not frames:
                    yield events.error(NotFound("The rest of this stream is no longer held.").payload(Phase.GENERATING))
                    return
                after += len(frames)
                chunk += b"".join(frames)
            if chunk:
                yield chunk
                chunk = b""
            elif self.ended:
                if self._last_words:
                    yield self._last_words
                return
            elif reconnects and self._farewell and after:
                yield self._farewell
                return
            else:
                news = loop.create_future()
                self._waiting.add(news)
                try:
                    await news
                finally:
                    self._waiting.discard(news)

    def _wake(self) -> None:
        for news in self._waiting:
            if not news.done():
                news.set_result(None)


class Buffered:
    """The part of a log that is read, for logs that are made of an `EventBuffer` and more."""

    def __init__(self, buffer: EventBuffer) -> None:
        self.buffer = buffer
        self.sid = buffer.sid
        self.client = buffer.client

    @property
    def size(self) -> int:
        return self.buffer.size

    @property
    def head(self) -> bytes:
        return self.buffer.head

    @property
    def last(self) -> int:
        return self.buffer.last

    def progress(self, seq: int) -> Progress:
        return self.buffer.progress(seq)

    def read(self, after: int, *, reconnects: bool = False) -> AsyncGenerator[bytes]:
        return self.buffer.read(after, reconnects=reconnects)

    def clear(self) -> None:
        self.buffer.clear()


def _size(frames: Sequence[bytes]) -> int:
    """The memory that they take: an eighth more than their own, for the holes that the heap has between them."""
    size = sum(map(len, frames))
    return size + size // 8 + FRAME_OVERHEAD * len(frames)
