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

    def read(self, after: int) -> AsyncIterator[bytes]:
        """Whole events, several to a chunk: the head, all events after `seq` `after`, then live until the end."""
        ...


class LogStore(Protocol):
    """Where logs live: made with a stream, kept for a while after its end. `len` counts them."""

    @property
    def size(self) -> int:
        """The bytes that all of them hold."""
        ...

    def __len__(self) -> int: ...

    def create(self, sid: str, head: bytes) -> EventLog:
        """A new log. `head` is what every reader gets first. Raises `Busy` when there is no room."""
        ...

    def get(self, sid: str) -> EventLog | None:
        """The log of a stream that runs or is retained."""
        ...
