"""Fair use: what one client, known by its key or its address, may take of the gateway."""

import ipaddress
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from gateway.errors import Busy
from gateway.relay import Generation, Phase
from gateway.streams import Observer

WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Quota:
    """What each client may have: streams at once, of these waiting in the queue, and starts per minute; 0 is any."""

    streams: int = 0
    queued: int = 0
    starts_per_minute: int = 0


class Quotas(Observer):
    """Counts what each client has. Nothing is kept of one that has nothing and has not asked for a minute."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._running: dict[str, set[Generation]] = {}
        self._starting: Counter[str] = Counter()
        self._starts: dict[str, deque[float]] = {}

    @contextmanager
    def starting(self, client: str) -> Iterator[None]:
        """Count a start by this key or address. Raises `Busy` with status 429 when it has all it may have."""
        self._admit(client)
        self._starting[client] += 1  # or a burst of requests would pass the check before the first one runs
        try:
            yield
        finally:
            self._starting[client] -= 1
            if not self._starting[client]:
                del self._starting[client]

    def _admit(self, client: str) -> None:
        running = self._running.get(client, set())
        count = len(running) + self._starting[client]
        if self._quota.streams and count >= self._quota.streams:
            raise Busy(f"You have {count} streams running, which is all you may have at once.", status=429)
        waiting = Counter(generation.phase for generation in running)[Phase.QUEUED]
        if self._quota.queued and waiting >= self._quota.queued:
            raise Busy(f"You have {waiting} requests waiting, which is all you may have in the queue.", status=429)
        if self._quota.starts_per_minute:
            self._count_start(client, monotonic())

    def started(self, generation: Generation) -> None:
        self._running.setdefault(generation.job.client, set()).add(generation)

    def ended(self, generation: Generation) -> None:
        client = generation.job.client
        self._running[client].discard(generation)
        if not self._running[client]:
            del self._running[client]

    def _count_start(self, client: str, now: float) -> None:
        self._forget(now)
        starts = self._starts.setdefault(client, deque())
        while starts and starts[0] <= now - WINDOW_SECONDS:
            starts.popleft()
        if len(starts) >= self._quota.starts_per_minute:
            wait = int(starts[0] + WINDOW_SECONDS - now) + 1
            raise Busy(f"You have started {len(starts)} streams within a minute.", status=429, retry_after=wait)
        # clients stand in the order of their last start, so that the idle ones are found at the front
        self._starts[client] = self._starts.pop(client)
        starts.append(now)

    def _forget(self, now: float) -> None:
        while self._starts:
            client, starts = next(iter(self._starts.items()))
            if starts[-1] > now - WINDOW_SECONDS:
                return
            del self._starts[client]


def network(address: str) -> str:
    """What of an address is one client: all of it, or the /64 of IPv6, of which one household has every address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"
