"""Where the logs of this process are found, and the time that ended ones are kept."""

import asyncio
from typing import Generic, Protocol, TypeVar

from gateway.jobs import Claim
from gateway.streams.ledger import Ledger


class Shelved(Protocol):
    """A log, as far as a shelf uses it."""

    @property
    def sid(self) -> str: ...

    @property
    def client(self) -> str: ...  # whose bytes they are

    @property
    def size(self) -> int: ...  # in bytes

    def clear(self) -> None:
        """Let go of everything, even under a reader that has stalled."""


L = TypeVar("L", bound=Shelved)


class Shelf(Generic[L]):
    """The logs of this process by stream id, whose bytes the ledger bounds.

    An ended log that is `retain`ed is removed after `retain_seconds`, or earlier when its room is needed.
    """

    def __init__(self, ledger: Ledger, *, max_stream_bytes: int, retain_seconds: float) -> None:
        self.size = 0  # in bytes, of all logs
        self.ledger = ledger
        self.max_stream_bytes = max_stream_bytes
        self.retain_seconds = retain_seconds
        self._logs: dict[str, L] = {}
        self._expiry: dict[str, float] = {}  # retained logs, oldest first: all are retained equally long
        self._ended: dict[str, dict[str, None]] = {}  # the same, by client
        self._timer: asyncio.TimerHandle | None = None
        self._claims: dict[str, tuple[str, str]] = {}  # the holder and what it was asked, by the claim's name
        self._claimed: dict[str, str] = {}  # the claim's name, by its holder
        ledger.forget_ended = self._remove_oldest

    def __len__(self) -> int:
        return len(self._logs)

    def logs(self) -> list[L]:
        return list(self._logs.values())

    def get(self, sid: str) -> L | None:
        return self._logs.get(sid)

    def add(self, log: L) -> None:
        """Keep a log. Raises `Busy` when there is no room."""
        self.ledger.take(log.client, log.size)
        self.size += log.size
        self._logs[log.sid] = log

    def grow(self, log: Shelved, size: int, *, bounded: bool = True) -> None:
        """Count `size` more bytes of a log, unless it has been forgotten. Raises `Busy` when there is no room."""
        if log.sid in self._logs:
            (self.ledger.take if bounded else self.ledger.add)(log.client, size)
            self.size += size

    def retain(self, sid: str) -> None:
        """Start the retention of a log that has ended."""
        if sid not in self._logs:
            return
        loop = asyncio.get_running_loop()
        self._expiry[sid] = loop.time() + self.retain_seconds
        self._ended.setdefault(self._logs[sid].client, {})[sid] = None
        if self._timer is None:
            self._timer = loop.call_later(self.retain_seconds, self._expire)

    def remove(self, sid: str) -> None:
        """Forget a log, and let go of what it holds."""
        if log := self.forget(sid):
            log.clear()

    def forget(self, sid: str) -> L | None:
        """Stop counting and finding a log. Readers that have it can read on to its end."""
        log = self._logs.pop(sid, None)
        self.disclaim(sid)
        if log:
            self.size -= log.size
            self.ledger.add(log.client, -log.size)
            if self._expiry.pop(sid, None) is not None:
                ended = self._ended[log.client]
                del ended[sid]
                if not ended:
                    del self._ended[log.client]
        return log

    def claim(self, claim: Claim, sid: str) -> tuple[str, str]:
        """See `LogStore.claim`. A claim is freed with its holder's log."""
        holder = self._claims.setdefault(claim.name, (sid, claim.request))
        if holder[0] == sid:
            self._claimed[sid] = claim.name
        return holder

    def disclaim(self, sid: str) -> None:
        """See `LogStore.disclaim`."""
        if name := self._claimed.pop(sid, None):
            del self._claims[name]

    def close(self) -> None:
        """Forget everything, at the end of the process's life."""
        if self._timer is not None:
            self._timer.cancel()
        self._logs.clear()
        self._expiry.clear()
        self._ended.clear()

    def _remove_oldest(self, client: str) -> bool:
        for sid in self._ended.get(client, ()):
            self.remove(sid)
            return True
        return False

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for sid, due in list(self._expiry.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._expire)
                return
            self.remove(sid)
