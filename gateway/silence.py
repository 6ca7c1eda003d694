"""One timer for all who wait for something to read, so that no wait is silent for too long."""

import asyncio
from itertools import islice

SLICE = 50
"""How many are woken before others have their turn: all streams may have begun at one moment."""


class Silence:
    """Ends waits that have lasted `seconds`. Most last from one token to the next: a timer for each would cost more."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._since: dict[asyncio.Future[bool], float] = {}  # who waits, the longest first
        self._timer: asyncio.Handle | None = None

    def begin(self, waiter: asyncio.Future[bool]) -> None:
        """`waiter` waits from now on, for True; it gets False when the time is over."""
        self._since[waiter] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._break)

    def end(self, waiter: asyncio.Future[bool]) -> None:
        """`waiter` waits no more."""
        del self._since[waiter]

    def close(self) -> None:
        """Stop the timer, at the end of the process's life."""
        if self._timer is not None:
            self._timer.cancel()

    def _break(self) -> None:
        self._timer = None
        for waiter, since in islice(self._since.items(), SLICE):
            if since + self._seconds > self._loop.time():
                self._timer = self._loop.call_at(since + self._seconds, self._break)
                return
            if not waiter.done():
                waiter.set_result(False)
        if self._since:
            self._timer = self._loop.call_soon(self._break)  # those just woken have ended their wait by then
