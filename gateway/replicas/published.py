"""A log that this replica writes and Redis gets a copy of."""

from collections.abc import Callable, Sequence
from typing import Any

from gateway.jobs import End
from gateway.replicas.claims import Held
from gateway.replicas.connection import lasting
from gateway.replicas.replica import Replica
from gateway.streams.buffer import Buffered, EventBuffer

ENTRY_BYTES = 2**20  # of events in one entry of a Redis stream, about
HEAD_ID = "0-1"


class PublishedLog(Buffered):
    """An `EventLog` whose readers in this process are served from `buffer`; `publish` is called when there is news.

    Redis has the events up to number `sent`, and of a `fresh` log not even the head. `replicas` are the others that
    have viewers of it, and `notice` is the newest sidecar for them. A log is `disowned` once the others have ended it.
    `claim` is the one that the stream holds, if any.
    """

    def __init__(self, buffer: EventBuffer, replica: Replica, publish: Callable[["PublishedLog"], None]) -> None:
        super().__init__(buffer)
        self.key = replica.keys.log(self.sid)
        self.fresh = False
        self.sent = 0
        self.replicas: set[str] = set()
        self.notice = b""
        self.disowned = False
        self.claim: Held | None = None
        self._replica = replica
        self._publish = publish

    @property
    def unsent(self) -> int:
        """How many events Redis does not have yet."""
        return self.last - self.sent

    def append(self, lines: Sequence[bytes]) -> None:
        self.buffer.append(lines)
        self._publish(self)

    def announce(self, frame: bytes) -> None:
        self.buffer.announce(frame)
        self.notice = frame
        for replica in self.replicas:
            self._replica.send(replica, "notice", self.sid, frame)

    def end(self, terminal: bytes | None, payload: End, retry_ms: int | None = None) -> None:
        if self.disowned and terminal is not None:  # the others have ended it, with numbers far above these
            self.buffer.end_lost(terminal, payload)
        else:
            self.buffer.end(terminal, payload, retry_ms)
        self._publish(self)

    def beginning(self) -> tuple[Any, ...]:
        """The command that creates the log in Redis."""
        fields = ("head", self.buffer.head, "producer", self._replica.name, "client", self.client)
        return lasting("XADD", self.key, HEAD_ID, *fields)

    def commands(self, ttl_ms: int) -> list[tuple[int, tuple[Any, ...]]]:
        """The commands that publish what is new, each with the event that it goes up to, or 0.

        `ttl_ms` is how long an ended log is kept in Redis.
        """
        commands = [(0, self.beginning())] if self.fresh else []
        if frames := self.buffer.frames(self.sent, ENTRY_BYTES):
            last = self.sent + len(frames)
            fields: list[object] = ["first", self.sent + 1, "events", b"".join(frames)]
            if self.buffer.ended and last == self.last:
                fields += ["end", 1]
            commands.append((last, ("XADD", self.key, "NOMKSTREAM", f"{last}-0", *fields)))
        if self.buffer.ended:
            keys = [self.key, self.claim[0]] if self.claim else [self.key]
            commands += [(0, ("PEXPIRE", key, ttl_ms)) for key in keys]
        return commands
