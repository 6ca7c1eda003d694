"""Waits that last too long are ended, by one timer for all of them, and nobody else waits for that."""

import asyncio
import itertools

from gateway.silence import SLICE, Silence


async def wait(silence: Silence) -> None:
    waiter = asyncio.get_running_loop().create_future()
    silence.begin(waiter)
    try:
        await waiter
    finally:
        silence.end(waiter)


async def test_each_wait_lasts_its_own_time() -> None:
    """Also one that begins while others wait; and again and again."""
    loop = asyncio.get_running_loop()
    silence = Silence(0.05)
    ended: list[tuple[str, float]] = []

    async def reader(name: str, times: int) -> None:
        for _ in range(times):
            began = loop.time()
            await wait(silence)
            ended.append((name, loop.time() - began))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reader("first", 3))
        await asyncio.sleep(0.02)
        tasks.create_task(reader("second", 3))
    assert [name for name, _ in ended] == ["first", "second"] * 3
    assert all(seconds >= 0.045 for _, seconds in ended)


async def test_a_wait_that_was_cut_short_wakes_nobody_later() -> None:
    silence = Silence(0.05)
    loop = asyncio.get_running_loop()
    cut, answered = (asyncio.create_task(wait(silence)) for _ in range(2))
    waiter = loop.create_future()
    silence.begin(waiter)
    waiter.set_result(True)
    silence.end(waiter)
    await asyncio.sleep(0.01)
    cut.cancel()
    await answered
    assert cut.cancelled()
    await wait(silence)  # its timer runs again after nobody has waited


async def test_all_at_one_moment_are_woken_in_slices() -> None:
    """Between two slices everything else has its turn."""
    silence = Silence(0.01)
    waits = [asyncio.create_task(wait(silence)) for _ in range(4 * SLICE)]
    awake: list[int] = []
    while not all(each.done() for each in waits):
        await asyncio.sleep(0)
        awake.append(sum(each.done() for each in waits))
    steps = [later - earlier for earlier, later in itertools.pairwise(awake)]
    assert max(steps) <= SLICE
    assert awake[-1] == 4 * SLICE
