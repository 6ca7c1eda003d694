"""The queue in front of Ollama: fair, bounded, and without a leak."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Busy
from gateway.jobs import Phase, Status
from gateway.streams.places import Rules
from gateway.streams.queue import LocalQueue, Ticket


def admitted(ticket: Ticket) -> bool:
    return ticket.position == 0


async def test_first_come_first_served() -> None:
    queue = LocalQueue(Rules(2), 10)
    moves: list[tuple[str, int]] = []

    async def follow(name: str, ticket: Ticket) -> None:
        def moved() -> None:
            status: Status = {"phase": Phase.QUEUED, "elapsed_ms": 0}
            ticket.describe(status, now=0)
            moves.append((name, status["position"]))

        await ticket.admitted(moved)

    first, second, *waiting = [await queue.enter("a", "m") for _ in range(5)]
    assert [admitted(ticket) for ticket in (first, second, *waiting)] == [True, True, False, False, False]
    assert queue.waiting == 3
    second.release()
    assert admitted(waiting[0])
    waiting[1].release()  # it gives up while it waits
    first.release()
    assert admitted(waiting[2])
    async with asyncio.timeout(1):
        await follow("a", waiting[0])
        await follow("c", waiting[2])
    assert moves == [("a", 1), ("c", 3), ("c", 2), ("c", 1)]
    for ticket in (waiting[0], waiting[2]):
        ticket.release()
    assert queue.waiting == 0


async def test_release_twice() -> None:
    """The second release gives nothing back; otherwise a slot would be given out twice."""
    queue = LocalQueue(Rules(1), 10)
    first, second, third = [await queue.enter("a", "m") for _ in range(3)]
    first.release()
    first.release()
    assert (admitted(second), admitted(third)) == (True, False)


async def test_busy() -> None:
    queue = LocalQueue(Rules(1), 1)
    await queue.enter("a", "m")
    second = await queue.enter("a", "m")
    with pytest.raises(Busy) as raised:
        await queue.enter("a", "m")
    assert raised.value.retry_after
    assert raised.value.retryable
    second.release()
    await queue.enter("a", "m")


async def test_no_queue() -> None:
    queue = LocalQueue(Rules(1), 0)
    await queue.enter("a", "m")
    with pytest.raises(Busy):
        await queue.enter("a", "m")


@given(st.integers(1, 3), st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=40))
async def test_any_order_of_coming_and_going(max_active: int, steps: list[int | None]) -> None:
    """None adds a ticket and a number releases one: the oldest run, and the others know their places."""
    queue = LocalQueue(Rules(max_active, parallel=max_active), 100)
    here: list[Ticket] = []
    for step in steps:
        if step is None:
            ticket = await queue.enter("a", "m")
            here.append(ticket)
        elif here:
            here.pop(step % len(here)).release()
        # a ticket with a slot keeps it, and of the others the oldest come first
        running = [each for each in here if admitted(each)]
        waiting = [each for each in here if not admitted(each)]
        assert len(running) == min(max_active, len(here))
        assert here == running + waiting or not waiting
        assert [each.position for each in waiting] == list(range(1, len(waiting) + 1))
        assert queue.waiting == len(waiting)
