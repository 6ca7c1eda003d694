"""The seam between those who write a stream and those who read it.

A generation appends to a log, and readers pull from it. A backend for logs implements `EventLog` and `LogStore`, and
`Peers`, too, if other processes read the same logs.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from enum import Enum
from typing import Protocol

from gateway.jobs import Claim, End


class Progress(Enum):
    """What is left for a reader that has seen a certain event."""

    MORE = "there is more to read, or there will be"
    NOTHING = "the reader has seen the end"
    UNKNOWN = "the stream has no such event"


class ReadableLog(Protocol):
    """One stream's events, for any number of readers."""

    @property
    def head(self) -> bytes:
        """What every reader gets first: `retry` and `meta`."""

    def progress(self, seq: int) -> Progress:
        """What is left for a reader whose last event was number `seq`."""

    def read(self, after: int, *, reconnects: bool = False) -> AsyncGenerator[bytes]:
        """Whole events, several to a chunk: the head, all events after number `after`, then live until the end.

        A reader that `reconnects` by itself may be sent away before the end, to read on at another replica.
        """


class EventLog(ReadableLog, Protocol):
    """A log that is written: append-only, bounded, and by one generation."""

    @property
    def last(self) -> int:
        """The `seq` of the newest event; 0 when there is none."""

    @property
    def size(self) -> int:
        """How many bytes it holds."""

    def append(self, lines: Sequence[bytes]) -> None:
        """Append one unnamed event per line. Raises `TooLarge` or `Busy` when a bound would be crossed."""

    def announce(self, frame: bytes) -> None:
        """Show a sidecar to those who read now, without making it an event of the log.

        A reader that comes before the first event sees the newest sidecar; one that comes later sees none.
        """

    def end(self, terminal: bytes | None, payload: End, retry_ms: int | None = None) -> None:
        """Append the terminal message, if one is still owed, and the `end` event, which no bound can prevent.

        `retry_ms` is how long a client should wait before it reconnects.
        """


class LogStore(Protocol):
    """Where logs live: made with a stream, and kept for a while after its end."""

    @property
    def size(self) -> int:
        """How many bytes all logs hold in this process."""

    async def create(self, sid: str, head: bytes, client: str) -> EventLog:
        """A new log of a client's, with what every reader gets first. Raises `Busy` when there is no room."""

    def forget(self, sid: str) -> None:
        """Hold an ended log no longer. Readers that have it can read on to its end."""

    async def claim(self, claim: Claim, sid: str) -> tuple[str, str]:
        """Have a claim held by a stream that is about to be created, and then for as long as its log is held.

        Returns the id of the stream that holds it, which may be an earlier one, and what that one was asked. Raises
        `Busy` when that is not known.
        """

    def disclaim(self, sid: str) -> None:
        """Free the claim of a stream that is not created after all."""

    async def find(self, sid: str) -> ReadableLog | None:
        """The log of a stream that runs or is retained, wherever it runs. Raises `Busy` when that is not known."""


class Peers(Protocol):
    """The further abilities of a `LogStore` whose logs other processes read and write, too."""

    @property
    def problem(self) -> str | None:
        """Why logs can be neither made nor found, as a sentence for a person; None when they can."""

    def watch(self, sid: str) -> Callable[[], None] | None:
        """Count a viewer here of a stream that another process writes.

        Call the function that is returned when it leaves.
        """

    async def stop(self, sid: str, caller: str) -> None:
        """Ask the process that writes a stream, if it is another one, to stop it for `caller`. Raises `Busy`."""

    def send_away(self, retry_ms: int) -> None:
        """Send every reader that reconnects by itself to another process, after `retry_ms` milliseconds."""
