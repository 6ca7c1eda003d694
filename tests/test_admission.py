"""The queue in front of Ollama: fair, bounded, and without a leak."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import LocalAdmission, Ticket
from gateway.errors import Busy


def admitted(ticket: Ticket) -> bool:
    return ticket._admitted.done()


async def test_first_come_first_served() -> None:
    admission = LocalAdmission(max_active=2, max_queued=10)
    moves: list[tuple[str, int]] = []

    async def enter(name: str) -> Ticket:
        ticket = await admission.enter()
        moves.append((name, ticket.position))
        ticket.on_move = lambda position: moves.append((name, position))
        return ticket

    first, second = await admission.enter(), await admission.enter()
    waiting = [await enter(name) for name in "abc"]
    assert [admitted(ticket) for ticket in (first, second, *waiting)] == [True, True, False, False, False]
    assert moves == [("a", 1), ("b", 2), ("c", 3)]
    assert (admission.active, admission.queued) == (2, 3)
    moves.clear()
    second.release()
    async with asyncio.timeout(1):
        await waiting[0].admitted()
    assert moves == [("b", 1), ("c", 2)]
    moves.clear()
    waiting[1].release()  # it gives up while it waits
    assert moves == [("c", 1)]
    for ticket in (first, waiting[0], waiting[2]):
        ticket.release()
    assert (admission.active, admission.queued) == (0, 0)


async def test_release_twice() -> None:
    """What was given back is not given back again: else a slot would be had twice."""
    admission = LocalAdmission(max_active=1, max_queued=10)
    first, second, third = [await admission.enter() for _ in range(3)]
    first.release()
    first.release()
    assert (admitted(second), admitted(third)) == (True, False)


async def test_busy() -> None:
    admission = LocalAdmission(max_active=1, max_queued=1)
    await admission.enter()
    second = await admission.enter()
    with pytest.raises(Busy) as raised:
        await admission.enter()
    assert raised.value.retry_after
    assert raised.value.retryable
    second.release()
    await admission.enter()


async def test_no_queue() -> None:
    admission = LocalAdmission(max_active=1, max_queued=0)
    await admission.enter()
    with pytest.raises(Busy):
        await admission.enter()


@given(st.integers(1, 3), st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=40))
async def test_any_order_of_coming_and_going(max_active: int, steps: list[int | None]) -> None:
    """None is one more ticket, a number the release of one: always the oldest run, the others know their place."""
    admission = LocalAdmission(max_active=max_active, max_queued=100)
    here: list[tuple[Ticket, list[int]]] = []
    for step in steps:
        if step is None:
            ticket = await admission.enter()
            positions = [ticket.position]
            ticket.on_move = positions.append
            here.append((ticket, positions))
        elif here:
            here.pop(step % len(here))[0].release()
        # who has a slot keeps it; of the others the oldest come first
        running = [each for each in here if admitted(each[0])]
        waiting = [each for each in here if not admitted(each[0])]
        assert len(running) == min(max_active, len(here)) == admission.active
        assert here == running + waiting or not waiting
        assert [positions[-1] for _, positions in waiting] == list(range(1, len(waiting) + 1))
        assert admission.queued == len(waiting)
