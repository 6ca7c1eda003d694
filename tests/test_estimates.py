"""How long a wait will probably be: from measured times, and not at all while there are none."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.streams.estimates import MAX_MODELS, Estimates
from gateway.streams.fits import Fits
from gateway.streams.places import Rules, Server
from gateway.streams.turns import Request


def request(name: str, model: str, since: float = 0) -> Request:
    return Request(name, "caller", model, 1, 1, since)


def known(**models: tuple[float, float, float]) -> Estimates:
    """Estimates after each model was loaded once and used once loaded: its load, start and answer took so long."""
    estimates = Estimates()
    for model, (load, start, answer) in models.items():
        for first, loaded in ((load, False), (start, True)):
            estimates.admit("x", model, 0, loaded=loaded)
            estimates.begin("x", first)
            estimates.leave("x", first + answer)
    return estimates


def test_slots_become_free_one_after_the_other() -> None:
    order = [request(str(number), "a") for number in range(4)]
    running = [request("r", "a", since=7), request("s", "a", since=10)]
    waits = known(a=(30, 1, 9)).waits(order, running, Rules(2, parallel=2), (), 10, {})
    assert [*waits] == [7, 10, 17, 20]


def test_a_model_that_must_displace_another_waits_for_it_and_for_its_load() -> None:
    fits = Fits()
    fits.note_crowded({"a", "b"})
    server = Server("", frozenset({"a"}), fits=fits, since=0)
    order = [request("1", "a"), request("2", "b"), request("3", "b")]
    waits = known(a=(30, 1, 9), b=(20, 1, 4)).waits(
        order, [request("r", "a", since=5)], Rules(2, parallel=2), [server], 10, {}
    )
    # a free slot; then both slots must be free of `a`, and the load takes 20 s
    assert [*waits] == [0, 30, 30]


def test_nothing_is_told_of_what_is_not_known() -> None:
    order = [request("1", "a"), request("2", "b"), request("3", "a")]
    assert [*known(a=(30, 1, 9)).waits(order, [request("r", "a")], Rules(1), (), 4, {})] == [6, 16, None]


def test_what_fails_before_its_first_token_is_no_answer() -> None:
    estimates = Estimates()
    estimates.admit("x", "a", 0, loaded=True)
    estimates.leave("x", 1)
    assert [*estimates.waits([request("1", "a")], [request("r", "a")], Rules(1), (), 0, {})] == [None]


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))), st.floats(-1e3, 1e3))
def test_no_wait_is_negative_whatever_the_clock_does(times: list[tuple[float, float]], now: float) -> None:
    estimates = Estimates()
    for admitted, begun in times:
        estimates.admit("x", "a", admitted, loaded=True)
        estimates.begin("x", begun)
        estimates.leave("x", now)
    waits = estimates.waits([request("1", "a"), request("2", "a")], [request("r", "a")], Rules(1), (), now, {})
    assert all(wait is None or wait >= 0 for wait in waits)


def test_ten_thousand_models_do_not_grow_memory() -> None:
    estimates = Estimates()
    for number in range(10_000):
        estimates.admit("x", str(number), 0, loaded=True)
        estimates.begin("x", 1)
        estimates.leave("x", 2)
    assert len(estimates._times) == MAX_MODELS
    assert not estimates._slots
