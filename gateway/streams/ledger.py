"""One budget of bytes for whatever requests and answers hold in this process: bodies, unfinished lines, and logs."""

from collections.abc import Callable

from gateway.errors import Busy

NO_ROOM = "The gateway has no room left, and you take most of it (GATEWAY_MAX_LOG_BYTES)."

Payer = Callable[[str], bool]
"""Lets go of something that a client holds, and gives back its bytes; False when there is nothing of it."""


class Ledger:
    """The bytes that each client holds, at most `limit` together.

    When there is no room, the client that holds most pays: with its ended logs, the oldest first; then by being
    refused, if it is the one that asks, and otherwise with its largest stream. So nobody loses anything to a client
    that holds more.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.reading: dict[str, int] = {}  # by client, what is part of its request bodies
        self._held: dict[str, int] = {}
        self.forget_ended: Payer = lambda client: False
        self.stop_running: list[Payer] = []

    @property
    def largest(self) -> int:
        """The bytes of the client that holds most."""
        return max(self._held.values(), default=0)

    def take(self, client: str, size: int) -> None:
        """Count `size` more bytes of a client's. Raises `Busy` when there is no room."""
        while self.size + size > self.limit:
            self._make_room(client, size)
        self.size += size
        self._held[client] = self._held.get(client, 0) + size

    def add(self, client: str, size: int) -> None:
        """Count bytes that no bound can prevent, or, if `size` is negative, that are given back."""
        self.size += size
        _add(self._held, client, size)

    def _make_room(self, client: str, size: int) -> None:
        payers = {**self._held, client: self._held.get(client, 0) + size}
        while payers:
            largest = max(payers, key=payers.__getitem__)
            if self.forget_ended(largest):
                return
            if largest == client:
                break
            if any(stop(largest) for stop in self.stop_running):
                return
            del payers[largest]
        raise Busy(f"The running streams use all of the {self.limit} bytes that they may use (GATEWAY_MAX_LOG_BYTES).")


class Holding:
    """What one request of a client holds, besides its log. `size` is in bytes."""

    def __init__(self, ledger: Ledger, client: str) -> None:
        self.size = 0
        self._own = 0
        self._ledger = ledger
        self._client = client

    def become(self, size: int) -> None:
        """Hold `size` bytes from now on. Raises `Busy` when there is no room for more."""
        more = size - self.size
        if more > 0:
            self._ledger.take(self._client, more)
        else:
            self._ledger.add(self._client, more)
        self.size = self._own = size

    def extra(self, size: int) -> None:
        """Hold `size` bytes more than what it was to become, if that was anything. Raises `Busy`."""
        if (own := self._own) and self.size != own + size:
            self.become(own + size)
            self._own = own


class Reading(Holding):
    """The body of a request that is being read. Nothing can stop a client that sends slowly.

    So all that one client sends at a time may take half of the room, and the other half is for what can be stopped.
    """

    def grow(self, size: int) -> None:
        """Hold `size` bytes more. Raises `Busy`."""
        reading, limit = self._ledger.reading, self._ledger.limit // 2
        if reading.get(self._client, 0) + size > limit:
            raise Busy(f"Your requests take all of the {limit} bytes that they may use (GATEWAY_MAX_LOG_BYTES).")
        self.become(self.size + size)
        _add(reading, self._client, size)

    def close(self) -> None:
        """Let go of it."""
        _add(self._ledger.reading, self._client, -self.size)
        self.become(0)


def _add(sizes: dict[str, int], client: str, size: int) -> None:
    if total := sizes.get(client, 0) + size:
        sizes[client] = total
    else:
        sizes.pop(client, None)
