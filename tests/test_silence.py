"""Waits that last too long are ended, by one timer for all of them, and nobody else waits for that."""

import asyncio
import itertools

from gateway.silence import SLICE, Listener, Silence


async def test_each_wait_lasts_its_own_time() -> None:
    """Also one that begins while others wait; and again and again."""
    loop = asyncio.get_running_loop()
    silence = Silence(0.05)
    ended: list[tuple[str, float]] = []

    async def reader(name: str, times: int) -> None:
        listener = silence.listen()
        for _ in range(times):
            began = loop.time()
            assert not await listener.news()
            ended.append((name, loop.time() - began))
        silence.leave(listener)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reader("first", 3))
        await asyncio.sleep(0.02)
        tasks.create_task(reader("second", 3))
    assert [name for name, _ in ended] == ["first", "second"] * 3
    assert all(seconds >= 0.045 for _, seconds in ended)


async def test_news_begin_a_new_wait() -> None:
    """Who hears something again and again is never woken by silence; once it stops, a whole silence later."""
    loop = asyncio.get_running_loop()
    silence = Silence(0.1)
    listener = silence.listen()
    for _ in range(10):
        loop.call_later(0.02, listener.wake)
        began = loop.time()
        assert await listener.news()
    assert not await listener.news()
    assert loop.time() - began >= 0.115


async def test_a_wait_that_was_cut_short_wakes_nobody_later() -> None:
    silence = Silence(0.05)
    cut, stays = silence.listen(), silence.listen()
    waiting = asyncio.ensure_future(_wait(cut))
    await asyncio.sleep(0)
    waiting.cancel()
    assert not await stays.news()
    silence.leave(cut)
    silence.leave(stays)
    late = silence.listen()
    cut.wake()  # nobody is there
    assert not await late.news()  # the timer runs again after nobody has waited


async def test_who_does_not_wait_is_put_off() -> None:
    """A reader whose client does not read is busy sending: it has its whole time when it waits again."""
    loop = asyncio.get_running_loop()
    silence = Silence(0.05)
    listener = silence.listen()
    await asyncio.sleep(0.12)
    began = loop.time()
    assert not await listener.news()
    assert loop.time() - began >= 0.045


async def test_those_who_left_are_forgotten() -> None:
    """Long before their silence would be over: what is kept does not grow with those who have come and gone."""
    silence = Silence(3600)
    stays = silence.listen()
    for _ in range(50 * SLICE):
        silence.leave(silence.listen())
    assert len(silence) <= 2 * SLICE + 2
    silence.leave(stays)
    silence.close()


async def test_all_at_one_moment_are_woken_in_slices() -> None:
    """Between two slices everything else has its turn."""
    silence = Silence(0.01)
    waits = [asyncio.create_task(_wait(silence.listen())) for _ in range(4 * SLICE)]
    awake: list[int] = []
    while not all(each.done() for each in waits):
        await asyncio.sleep(0)
        awake.append(sum(each.done() for each in waits))
    steps = [later - earlier for earlier, later in itertools.pairwise(awake)]
    assert max(steps) <= SLICE
    assert awake[-1] == 4 * SLICE


async def _wait(listener: Listener) -> bool:
    return await listener.news()
