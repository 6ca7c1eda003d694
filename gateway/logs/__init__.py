"""The log of a stream: what was generated, kept so that any reader can be a cursor on it.

A relay appends; readers pull. Live, late and resuming readers share one code path, fan-out costs nothing,
and a slow reader is a number that lags.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol


class EventLog(Protocol):
    """One stream's events, append-only and bounded, written by one relay and read by any number of readers."""

    @property
    def last(self) -> int:
        """The `seq` of the newest event; 0 when there is none."""
        ...

    @property
    def behind(self) -> bool:
        """Whether readers elsewhere may have seen events that are not here yet."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the `end` event is in the log, so that nothing can follow."""
        ...

    def append(self, lines: Sequence[bytes]) -> None:
        """Append unnamed events, one a line. Raises `TooLarge` or `Busy` when a bound would be crossed."""
        ...

    def announce(self, frame: bytes) -> None:
        """Show live readers a sidecar that is not kept: who comes later sees the newest, or none after an event."""
        ...

    def end(self, terminal: bytes | None, payload: Mapping[str, object], retry: int | None = None) -> None:
        """Append the terminal message, if one is still owed, and the `end` event. No bound can prevent it.

        `retry` is how many milliseconds a client shall wait before it reconnects.
        """
        ...

    def lose(self, terminal: bytes, payload: Mapping[str, object]) -> None:
        """End it for readers of any place: their last messages have the numbers from `events.LOST` on."""
        ...

    def read(self, after: int, returns: bool = False) -> AsyncIterator[bytes]:
        """Whole events, several to a chunk: the head, all events after `seq` `after`, then live until the end.

        A reader that `returns` by itself may be sent away before it, to read on at another replica. An empty chunk
        tells that nothing has come for a while: it is time for a sign of life.
        """
        ...


class Watched(Protocol):
    """What is to be told of viewers."""

    def join(self) -> None:
        """A viewer has come."""
        ...

    def leave(self) -> None:
        """A viewer has gone."""
        ...


class LogStore(Protocol):
    """Where logs live: made with a stream, kept for a while after its end. `len` counts those held here."""

    @property
    def shared(self) -> bool:
        """Whether other replicas serve the same logs."""
        ...

    @property
    def problem(self) -> str | None:
        """Why logs can be neither made nor found, in a word for a person; None when they can."""
        ...

    @property
    def size(self) -> int:
        """The bytes that all of them hold."""
        ...

    def __len__(self) -> int: ...

    async def create(self, sid: str, head: bytes) -> EventLog:
        """A new log. `head` is what every reader gets first. Raises `Busy` when there is no room."""
        ...

    async def find(self, sid: str) -> EventLog | None:
        """The log of a stream that runs or is retained, wherever it runs. Raises `Busy` when that cannot be told."""
        ...

    def elsewhere(self, sid: str) -> Watched | None:
        """The writer of a stream that was found, when it is another replica that still writes."""
        ...

    async def stop(self, sid: str) -> None:
        """Tell the replica that writes a stream, if it is another one, to stop it. Raises `Busy`."""
        ...

    def dismiss(self, retry: int) -> None:
        """Send away every reader that returns by itself, to another replica, in `retry` milliseconds."""
        ...
