"""Fair use: how much of the gateway one caller, known by its key or its address, may have."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from gateway.errors import Busy
from gateway.streams.queue import Queue
from gateway.streams.running import Running

WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Quota:
    """What each caller may have: streams at once, how many of them queued, starts per minute. 0 means no limit."""

    streams: int = 0
    queued: int = 0
    starts_per_minute: int = 0


class Quotas:
    """Holds callers to their quota. A caller without streams and without a start in the last minute takes no memory."""

    def __init__(self, quota: Quota, running: Running, queue: Queue) -> None:
        self._quota = quota
        self._queue = queue
        self._running = running
        self._starting: Counter[str] = Counter()
        self._starts: dict[str, deque[float]] = {}

    @contextmanager
    def starting(self, caller: str) -> Iterator[None]:
        """Count a start by this key or address. Raises `Busy` with status 429 when it already has all it may have."""
        self._admit(caller)
        self._starting[caller] += 1  # otherwise a burst of requests would pass the check before the first of them runs
        try:
            yield
        finally:
            self._starting[caller] -= 1
            if not self._starting[caller]:
                del self._starting[caller]

    def check_waiting(self, caller: str, more: int = 0) -> None:
        """Raise `Busy` with status 429 when this key or address would have too many requests waiting with `more`."""
        most = self._quota.queued
        if most and self._queue.waiting_of(caller) + more > most:
            raise Busy(f"You have {most} requests waiting, the most that you may have.", status=429)

    def _admit(self, caller: str) -> None:
        running = sum(each.job.caller == caller for each in self._running.all())
        count = running + self._starting[caller]
        if self._quota.streams and count >= self._quota.streams:
            raise Busy(f"You have {count} streams, the most that you may have at once.", status=429)
        self.check_waiting(caller, 1)
        if self._quota.starts_per_minute:
            self._count_start(caller, monotonic())

    def _count_start(self, caller: str, now: float) -> None:
        self._forget_idle(now)
        starts = self._starts.setdefault(caller, deque())
        while starts and starts[0] <= now - WINDOW_SECONDS:
            starts.popleft()
        if len(starts) >= self._quota.starts_per_minute:
            wait = int(starts[0] + WINDOW_SECONDS - now) + 1
            raise Busy(f"You have started {len(starts)} streams within a minute.", status=429, retry_after=wait)
        # callers are kept in the order of their last start, so that idle ones are found at the front
        self._starts[caller] = self._starts.pop(caller)
        starts.append(now)

    def _forget_idle(self, now: float) -> None:
        while self._starts:
            caller, starts = next(iter(self._starts.items()))
            if starts[-1] > now - WINDOW_SECONDS:
                return
            del self._starts[caller]
