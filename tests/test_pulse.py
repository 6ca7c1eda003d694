"""The heartbeat of waiting streams: often at first, then less, and never in the way of others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from gateway.jobs import Job, Kind
from gateway.streams.generation import Generation
from gateway.streams.moments import Moments
from gateway.streams.pulse import FRESH_SECONDS, SLICE, SLOW_SECONDS, Pulse

INTERVAL = 0.02


class Waiter:
    """The part of a generation that a pulse uses."""

    server = None
    job = Job(Kind.CHAT, "m", b"{}")

    def __init__(self, waited: float = 0) -> None:
        self.waiting = True
        self.moments = Moments(asyncio.get_running_loop().time() - waited)
        self.shown = 0
        self.news = asyncio.Event()

    def announce(self) -> None:
        self.shown += 1
        self.news.set()

    async def until_shown(self, times: int) -> None:
        while self.shown < times:
            self.news.clear()
            await self.news.wait()


@asynccontextmanager
async def followed(*waiters: Waiter) -> AsyncIterator[None]:
    pulse = Pulse(INTERVAL)
    for waiter in waiters:
        pulse.started(cast(Generation, waiter))
    yield
    for waiter in waiters:
        waiter.waiting = False
        pulse.ended(cast(Generation, waiter))


async def test_a_long_wait_is_shown_less_often() -> None:
    """A new wait is shown at every beat; an old one now and then, but at once if it is new to this pulse."""
    new, old = Waiter(), Waiter(FRESH_SECONDS)
    async with followed(new, old):
        await new.until_shown(20)
    assert SLOW_SECONDS / INTERVAL > 20
    assert old.shown == 1


async def test_thousands_are_shown_in_slices() -> None:
    """Between two slices everything else has its turn."""
    waiters = [Waiter() for _ in range(4 * SLICE)]
    turns: list[int] = []
    async with followed(*waiters):
        await waiters[0].until_shown(1)
        while waiters[-1].shown == 0:
            turns.append(sum(waiter.shown for waiter in waiters))
            await asyncio.sleep(0)
    assert len(turns) >= 3
    assert turns[0] <= SLICE
