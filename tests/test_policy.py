"""Who goes next: fair between clients, in order within a client, and nobody waits for ever."""

import random
from collections import Counter
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs import Reason
from gateway.streams.fits import Fits
from gateway.streams.line import Line
from gateway.streams.places import Rules, Server
from gateway.streams.policy import choose
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
    for number, (admitted, _) in enumerate(
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


def ask(number: int, model: str = "m", **fields: Any) -> Request:
    """A request that waits, of a client of its own."""
    return Request(str(number), f"c{number}", model, number, number, since=0, **fields)


def run(number: int, server: str, model: str = "m", **fields: Any) -> Request:
    """One that has a slot."""
    return ask(number, model, server=server, **fields)


def placed(
    waiting: list[Request], running: list[Request], *servers: Server, seen: int = 1, now: float = 0, **rules: float
) -> dict[str, str]:
    """Who goes where."""
    chosen = choose(waiting, running, Rules(64, **{"patience": 15, **rules}), servers, now, {"m": seen})  # type: ignore[arg-type]
    return {each.name: server for each, server in chosen}


ONE, OTHER = Server("1", frozenset({"m"})), Server("2", frozenset({"m"}))
EMPTY, FULL_OF_N = Server("2", frozenset()), Server("2", frozenset({"n"}), fits=Fits(crowded={frozenset("mn"): None}))


MODELS = st.sampled_from("mno")
SERVERS = st.lists(st.frozensets(MODELS, max_size=2), min_size=1, max_size=3)
RUNNING = st.lists(st.tuples(MODELS, st.integers(0, 2)), max_size=8)
CROWDED = st.sets(st.frozensets(MODELS, min_size=2, max_size=3), max_size=2)


@given(st.lists(MODELS, max_size=12), RUNNING, SERVERS, CROWDED, SLOTS, st.integers(1, 12))
def test_with_several_servers_no_slot_is_idle_and_none_is_given_twice(
    waiting: list[str],
    running: list[tuple[str, int]],
    loaded: list[frozenset[str]],
    crowded: set[frozenset[str]],
    parallel: int,
    most: int,
) -> None:
    """As long as nobody has waited too long, and nothing is being loaded that a model has to go for."""
    fits = Fits(dict.fromkeys(loaded), dict.fromkeys(crowded))
    servers = [Server(str(number), models, fits=fits) for number, models in enumerate(loaded)]
    here = [run(100 + n, str(at % len(loaded)), model) for n, (model, at) in enumerate(running)]
    here = [each for each in here if each.model in loaded[int(each.server)]][:most]
    line = [ask(number, model) for number, model in enumerate(waiting)]
    chosen = choose(line, here, Rules(most, 1e9, parallel), servers, 0, {})
    used = Counter((each.server, each.model) for each in here)
    before = used.copy()
    used.update((server, each.model) for each, server in chosen)
    assert used.total() <= most
    assert all(count <= max(parallel, before[place]) for place, count in used.items())
    left = {each.model for each in line} - {each.model for each, _ in chosen}
    if used.total() < most:
        assert all(used[server.name, model] >= parallel for server in servers for model in left & server.loaded)


def test_a_model_has_twice_the_slots_that_it_was_seen_to_use_or_those_that_are_set() -> None:
    waiting = [ask(number) for number in range(9)]
    assert len(placed(waiting, [])) == 2
    assert len(placed(waiting, [], seen=2)) == 4
    assert len(placed(waiting, [], seen=2, parallel=3)) == 3
    assert len(placed([*waiting, ask(9, "n")], [], seen=2, parallel=3)) == 4  # another model has its own


def test_what_is_answered_at_once_was_seen_in_the_line() -> None:
    line = Line()
    for name in "abcdef":
        line.add(name, name, "m", 0, server="")
    assert [line.begin(name) for name in "aabc"] == [False, False, True, True]
    assert line.seen == {"m": 3}
    line.remove("a")
    assert not line.begin("d")  # three at once, as before
    for number in range(1000):
        for name in "xy":
            line.add(name, name, str(number), 0, server="")
            line.begin(name)
        line.remove("x")
        line.remove("y")
    assert len(line.seen) == 256


def test_a_slot_is_contested_by_those_whom_it_helps() -> None:
    line = Line()
    for name, model in (("1", "m"), ("2", "n")):
        line.add(name, name, model, 0, server="")
    contested = [line.contested("1", Rules(9)), line.contested("1", Rules(2))]
    for name, model in (("3", "n"), ("4", "m")):
        line.add(name, name, model, 0)
        contested += [line.contested("1", Rules(9)), line.contested("1", Rules(2))]
    line.remove("4")
    line.add("5", "5", "o", 0)  # needs room in memory
    contested.append(line.contested("1", Rules(9)))
    line.remove("5")
    line.add("6", "6", "m", 0, server="")  # has a slot, and may wait at Ollama until it begins
    contested += [line.contested("1", Rules(9)), line.contested("1", Rules(9, parallel=2))]
    line.begin("6")
    contested.append(line.contested("1", Rules(9)))
    assert contested == [False, False, False, True, True, True, True, True, False, False]


def test_a_request_goes_where_its_model_is_loaded_and_idle_and_back_to_its_conversation() -> None:
    assert placed([ask(1)], [], EMPTY, ONE) == {"1": "1"}
    assert placed([ask(1)], [], ONE, OTHER) == {"1": "1"}
    assert placed([ask(1, home="2")], [], ONE, OTHER) == {"1": "2"}
    assert placed([ask(1, home="2")], [run(2, "2")], ONE, OTHER) == {"1": "1"}  # its cache is worth no wait
    assert placed([ask(number) for number in range(5)], [], ONE, OTHER) == {"0": "1", "1": "2", "2": "1", "3": "2"}


def test_a_model_is_loaded_once_more_when_as_many_wait_as_are_answered_and_nothing_has_to_go() -> None:
    assert placed([ask(1)], [run(2, "1"), run(3, "1")], ONE, EMPTY, seen=2) == {"1": "1"}
    assert placed([ask(1), ask(4)], [run(2, "1"), run(3, "1")], ONE, EMPTY, seen=2) == {"1": "2", "4": "2"}
    assert placed([ask(1), ask(4)], [run(2, "1")], ONE, FULL_OF_N) == {"1": "1"}


def test_a_model_that_no_server_has_loaded_goes_to_the_one_that_has_room_and_the_least_to_do() -> None:
    assert placed([ask(1)], [], FULL_OF_N, Server("1", frozenset())) == {"1": "1"}
    assert placed([ask(1)], [run(2, "1", "n")], Server("1", frozenset({"n"})), EMPTY) == {"1": "2"}
    known = Server("1", frozenset("n"), fits=Fits(together={frozenset("mn"): None}))
    assert placed([ask(1)], [run(2, "1", "n")], known, Server("2", frozenset("o"))) == {"1": "2"}  # where it may fit


def test_a_server_without_the_model_is_asked_only_if_none_has_it() -> None:
    lacking = Server("2", frozenset(), lacks=frozenset({"m"}))
    assert placed([ask(1), ask(2), ask(3)], [], ONE, lacking) == {"1": "1", "2": "1"}
    assert placed([ask(1)], [], lacking) == {"1": "2"}


def test_who_has_waited_for_the_patience_gets_the_least_busy_server_and_nobody_goes_before_it() -> None:
    fits = Fits(crowded={frozenset("mn"): None})
    one, two = (Server(name, frozenset({"n"}), fits=fits) for name in "12")
    running = [run(2, "1", "n"), run(3, "1", "n"), run(4, "2", "n")]
    others = [ask(5, "n"), ask(6, "n"), ask(7, "n")]
    assert placed([ask(1), *others], running, one, two, seen=2, now=14) == {"5": "2"}
    assert placed([ask(1), *others], running, one, two, parallel=3, now=15) == {"5": "1"}
    assert placed([ask(1), *others], running[:2], one, two, parallel=3, now=15) == {"1": "2", "5": "1"}


def test_others_are_held_back_early_enough_to_be_gone_by_then() -> None:
    server = Server("", frozenset({"n"}), fits=Fits(crowded={frozenset("mn"): None}))
    for seconds, since in ((0, 15), (2, 11), (100, 7.5)):  # two answers ahead, and half of the patience at most
        running = [run(2, "", "n", seconds=seconds)]
        assert placed([ask(1), ask(3, "n")], running, server, now=since - 0.1) == {"3": ""}
        assert placed([ask(1), ask(3, "n")], running, server, now=since) == {}


def test_who_waits_too_long_for_a_slot_is_not_overtaken_by_a_swap() -> None:
    server = Server("", frozenset({"n"}), fits=Fits(crowded={frozenset("mn"): None}))
    running = [run(1, "", "n"), run(2, "", "n")]
    waiting = [ask(3, "n"), ask(4)]
    assert placed(waiting, running, server, now=100) == {}
    assert placed(waiting, running[:1], server, now=100) == {"3": ""}
