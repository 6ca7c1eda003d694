"""Who reads a generation, and how long it goes on when nobody does."""

import asyncio
from collections.abc import Callable

CONTESTED_SECONDS = 0.5  # how often it is looked whether others wait for the slot of a stream that nobody reads


class Audience:
    """Counts viewers. When there is none, `left` is called with the reason, at the latest after the time given.

    It is called sooner, `grace` seconds after the last viewer has left, if others wait for the slot by then, which
    `contested` tells; with a grace of 0 that does not matter.
    """

    def __init__(self, grace: float, contested: Callable[[], bool], left: Callable[[str], None]) -> None:
        self._grace, self._contested, self._left = grace, contested, left
        self._loop = asyncio.get_running_loop()
        self._viewers = 0
        self._alone_since = self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def join(self) -> None:
        """Count one more viewer."""
        self._viewers += 1
        self._stop_timer()

    def leave(self, window: float) -> None:
        """Count one viewer fewer. After the last one, another may come within `window` seconds."""
        self._viewers -= 1
        if self._viewers == 0:
            self.expect(window)

    def expect(self, seconds: float) -> None:
        """Wait for a viewer for so many seconds."""
        if not self._closed:
            self._alone_since = self._loop.time()
            self._until = self._alone_since + seconds
            self._check()

    def close(self) -> None:
        """The generation has ended: viewers do not matter any more."""
        self._closed = True
        self._stop_timer()
        del self._contested, self._left  # they hold the generation, which holds this: no one else is to free them

    def _check(self) -> None:
        now = self._loop.time()
        if now >= self._until:
            self._left("The last viewer left.")
        elif self._grace and now >= self._alone_since + self._grace and self._contested():
            self._left("Nobody was reading the answer, and others were waiting for their turn.")
        else:
            soon = max(self._alone_since + self._grace, now + CONTESTED_SECONDS) if self._grace else self._until
            self._timer = self._loop.call_at(min(soon, self._until), self._check)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
