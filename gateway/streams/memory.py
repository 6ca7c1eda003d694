"""Logs in this process's memory."""

from gateway.jobs import Claim, End
from gateway.streams.buffer import EventBuffer
from gateway.streams.shelf import Shelf


class MemoryLog(EventBuffer):
    """A log that is retained as soon as it has ended."""

    def end(self, terminal: bytes | None, payload: End, retry_ms: int | None = None) -> None:
        super().end(terminal, payload, retry_ms)
        self._shelf.retain(self.sid)


class MemoryLogs:
    """The logs of a gateway that runs as one process. See `LogStore`."""

    def __init__(self, shelf: Shelf[MemoryLog]) -> None:
        self._shelf = shelf

    @property
    def size(self) -> int:
        return self._shelf.size

    async def create(self, sid: str, head: bytes, client: str) -> MemoryLog:
        log = MemoryLog(sid, head, client, self._shelf)
        self._shelf.add(log)
        return log

    async def claim(self, claim: Claim, sid: str) -> tuple[str, str]:
        return self._shelf.claim(claim, sid)

    def disclaim(self, sid: str) -> None:
        self._shelf.disclaim(sid)

    def forget(self, sid: str) -> None:
        self._shelf.forget(sid)

    async def find(self, sid: str) -> MemoryLog | None:
        return self._shelf.get(sid)
