"""Who goes next: fair between clients, in order within a client, and nobody waits for ever."""

import random
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs import Reason
from gateway.streams.line import Line
from gateway.streams.policy import Rules, choose
from gateway.streams.turns import Request

CLIENTS = "abcde"
STEPS = st.lists(st.one_of(st.sampled_from(CLIENTS), st.integers(0, 20)), max_size=60)
"""Of a client that sends a request, or of a request that leaves, be it waiting or running."""

SLOTS = st.integers(1, 4)


def walked(steps: list[str | int], slots: int) -> Line:
    """A line after all of this has happened in it."""
    line, names = Line(), count()
    for step in steps:
        here = [*line.waiting, *line.running]
        if isinstance(step, str):
            line.add(str(next(names)), step, "m", 0)
        elif here:
            line.remove(here[step % len(here)])
        line.advance(Rules(slots, parallel=slots), (), 0)
    return line


def admissions(line: Line, slots: int) -> list[Request]:
    """All that wait, in the order in which they go when the oldest always ends first."""
    order: list[Request] = []
    while line.waiting:
        line.remove(next(iter(line.running)))
        before = {*line.running}
        line.advance(Rules(slots, parallel=slots), (), 0)
        order += [each for name, each in line.running.items() if name not in before]
    return order


@given(STEPS, SLOTS)
def test_no_slot_is_idle_while_a_request_waits(steps: list[str | int], slots: int) -> None:
    line = walked(steps, slots)
    assert len(line.running) == slots or not line.waiting
    assert len(line.running) <= slots


@given(STEPS, SLOTS, st.integers(1, 30))
def test_the_client_with_the_fewest_running_goes_next(steps: list[str | int], slots: int, more: int) -> None:
    """Of equal ones, the one whose last turn is longest ago. Within a client, in order."""
    line = walked(steps, slots)
    running = [each.caller for each in line.running.values()]
    left = [*line.waiting.values()]
    turns = {each.caller: each.turn for each in reversed(left)}
    for number, admitted in enumerate(
        choose(left, [*line.running.values()], Rules(slots + more, parallel=99), (), 0, {})
    ):
        assert admitted == next(each for each in left if each.caller == admitted.caller)
        ranks = {each.caller: (running.count(each.caller), turns[each.caller]) for each in left}
        assert ranks[admitted.caller] == min(ranks.values())
        left.remove(admitted)
        running.append(admitted.caller)
        turns[admitted.caller] = line.count + number


@given(STEPS, SLOTS, st.randoms(use_true_random=False))
def test_the_order_depends_on_nothing_else(steps: list[str | int], slots: int, chance: random.Random) -> None:
    line = walked(steps, slots)
    running = [*line.running.values()]
    chance.shuffle(running)
    waiting, rules = [*line.waiting.values()], Rules(slots + 5, parallel=99)
    assert choose(waiting, running, rules, (), 0, {}) == choose(waiting, [*line.running.values()], rules, (), 0, {})


@given(STEPS, SLOTS)
def test_places_are_those_in_which_requests_will_go(steps: list[str | int], slots: int) -> None:
    line = walked(steps, slots)
    projected = [request.name for request, _ in line.reasons(Rules(slots, parallel=slots), (), 0)]
    assert projected == [each.name for each in admissions(line, slots)]


@given(st.integers(1, 30), SLOTS)
def test_one_client_is_served_in_order(requests: int, slots: int) -> None:
    line = walked(["a"] * requests, slots)
    assert [int(each.name) for each in admissions(line, slots)] == [*range(min(slots, requests), requests)]


@given(STEPS, SLOTS, st.lists(st.integers(0, 20), min_size=len(CLIENTS), max_size=len(CLIENTS)))
def test_newcomers_overtake_nobody_for_ever(steps: list[str | int], slots: int, ends: list[int]) -> None:
    """A client of which nothing runs goes before all that come later, whoever ends first, and after at most one request
    of each client that waits already.
    """
    line = walked(steps, slots)
    running = {each.caller for each in line.running.values()}
    for caller in sorted({each.caller for each in line.waiting.values()} - running)[:1]:
        ahead = {each.caller for each in line.waiting.values()}
        first = next(each.name for each in line.waiting.values() if each.caller == caller)
        for number, end in enumerate(ends[: len(ahead)]):
            line.add(f"new {number}", f"new {number}", "m", 0)
            line.remove([*line.running][end % len(line.running)])
            line.advance(Rules(slots, parallel=slots), (), 0)
        assert first not in line.waiting


def test_a_hundred_requests_of_one_client_do_not_hold_up_nine_others() -> None:
    line = walked([*"a" * 100, *"bcdefghij"], 2)
    order = [each.caller for each in admissions(line, 2)]
    assert set("bcdefghij") <= set(order[:18])
    assert len(order) == 107


def test_a_newcomer_goes_before_a_client_that_was_just_served_and_not_before_one_that_waits_longer() -> None:
    line = walked([*"aab"], 1)
    line.remove("0")
    line.advance(Rules(1), (), 0)
    assert [*line.running] == ["2"]
    line.add("3", "c", "m", 0)
    assert [(each.name, why) for each, why in line.reasons(Rules(1), (), 0)] == [
        ("1", Reason.SLOTS),
        ("3", Reason.SLOTS),
    ]
