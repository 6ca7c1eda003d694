"""One timer for all who wait for something to read, so that no wait is silent for too long."""

import asyncio
import itertools
from heapq import heapify, heappop, heappush

SLICE = 50
"""How many are looked at before others have their turn: all streams may have begun at one moment."""


class Listener:
    """Somebody who waits again and again, made by `Silence.listen`."""

    __slots__ = ("_loop", "_waiter", "gone", "since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.gone = False
        self.since = loop.time()
        """When its newest wait began."""
        self._loop = loop
        self._waiter: asyncio.Future[bool] | None = None

    def news(self) -> asyncio.Future[bool]:
        """A wait that begins now. It ends with True by `wake`, or with False when nothing has come for too long."""
        self.since = self._loop.time()
        self._waiter = self._loop.create_future()
        return self._waiter

    def wake(self, news: bool = True) -> None:
        """End its wait, if it waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(news)


class Silence:
    """Ends waits that have lasted `seconds`.

    Most last from one token to the next. So a wait costs nothing here: each listener is looked at when its newest wait
    would have become too long, and put off when it has waited anew.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._order = itertools.count()
        self._due: list[tuple[float, int, Listener]] = []  # a heap: when to look at whom
        self._gone = 0
        self._timer: asyncio.Handle | None = None

    def __len__(self) -> int:
        """How many it looks at, some of whom have left."""
        return len(self._due)

    def listen(self) -> Listener:
        """Whoever calls this must `leave` in the end."""
        listener = Listener(self._loop)
        self._put(listener, listener.since)
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)
        return listener

    def leave(self, listener: Listener) -> None:
        """`listener` waits no more."""
        listener.gone = True
        self._gone += 1
        if self._gone > SLICE + len(self._due) // 2:
            self._due = [each for each in self._due if not each[2].gone]
            heapify(self._due)
            self._gone = 0

    def close(self) -> None:
        """Stop the timer, at the end of the process's life."""
        if self._timer is not None:
            self._timer.cancel()

    def _put(self, listener: Listener, since: float) -> None:
        heappush(self._due, (since + self._seconds, next(self._order), listener))

    def _look(self) -> None:
        now = self._loop.time()
        for _ in range(SLICE):
            if not self._due or self._due[0][0] > now:
                self._timer = self._loop.call_at(self._due[0][0], self._look) if self._due else None
                return
            _, _, listener = heappop(self._due)
            if listener.gone:
                self._gone -= 1
            elif listener.since + self._seconds > now:
                self._put(listener, listener.since)
            else:
                listener.wake(False)
                self._put(listener, now)
        self._timer = self._loop.call_soon(self._look)
