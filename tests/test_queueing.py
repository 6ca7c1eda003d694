"""The policy of the queue on a virtual Ollama: nobody waits for ever, and as few loads as possible."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.queueing import PATIENCE, POLICIES, Ask, Machine, Run, alternating, eight, looping, measured, optimum, plot
from gateway.streams.fits import Fits
from gateway.streams.places import Rules

DOCS = Path(__file__).parent.parent / "docs" / "queue.md"

ASKS = st.builds(
    Ask, at=st.floats(0, 30), client=st.sampled_from("xyz"), model=st.sampled_from("abc"), seconds=st.just(2.0)
)
TRACES = st.lists(ASKS, max_size=25)
MACHINES = st.builds(
    Machine, st.integers(1, 3), st.integers(1, 2), st.sampled_from([0.1, 5.0, 20.0]), st.integers(1, 3)
)


def run(trace: list[Ask], machine: Machine, rules: Rules) -> Run:
    return Run(trace, machine, rules, fair=True, models=True)


@given(TRACES, MACHINES, st.integers(1, 5), st.sampled_from([0.0, 3.0, 15.0, 1000.0]))
def test_everybody_is_served(trace: list[Ask], machine: Machine, max_active: int, patience: float) -> None:
    """However many models there are, and whatever fits: no request waits for a model for ever, and none is overtaken
    for longer than the patience and the turns of all models take.
    """
    run(trace, machine, Rules(max_active, patience))
    worst = len(trace) * (2 + machine.load_seconds)
    assert all(0 <= ask.began - ask.at <= worst for ask in trace)


@given(TRACES, MACHINES)
def test_the_same_happens_each_time(trace: list[Ask], machine: Machine) -> None:
    begins = []
    for _ in range(2):
        run(trace, machine, Rules(4, 15))
        begins.append([ask.began for ask in trace])
    assert begins[0] == begins[1]


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers(1, 3), st.integers(1, 5))
def test_without_patience_one_client_is_served_in_order(models: str, room: int, max_active: int) -> None:
    trace = [Ask(number / 100, "x", model, 2) for number, model in enumerate(models)]
    run(trace, Machine(room=1, load_seconds=room), Rules(max_active, 0))
    assert [ask.began for ask in trace] == sorted(ask.began for ask in trace)


def test_alternating_models_are_loaded_as_often_as_they_must() -> None:
    trace = alternating()
    assert run(trace, Machine(), Rules(64, PATIENCE)).loads == 2
    assert max(ask.began + ask.seconds for ask in trace) <= 1.05 * optimum(trace, Machine())


def test_a_model_that_one_of_two_servers_has_is_used_as_if_both_had_it() -> None:
    ends = []
    for load_seconds in (5.0, 0.0):
        asks = run(eight(), Machine(room=2, load_seconds=load_seconds, servers=2, loaded="a"), Rules(64, 15)).asks
        ends.append(max(ask.began + ask.seconds for ask in asks))
    assert ends[0] <= 1.1 * ends[1]


def test_with_room_for_all_models_knowing_them_costs_nothing() -> None:
    ends = []
    for models in (False, True):
        Run(trace := alternating(), Machine(room=2), Rules(64, 15), fair=True, models=models)
        ends.append(max(ask.began for ask in trace))
    assert ends[1] <= 1.02 * ends[0]


@pytest.mark.parametrize("patience", [5, 15, 30])
def test_no_model_starves_while_another_is_in_use(patience: int) -> None:
    """It waits for the patience and the load, and for what is left of an answer if that takes longer than planned."""
    asks = run(looping(seconds=50), Machine(load_seconds=5), Rules(64, patience)).asks
    (other,) = (ask for ask in asks if ask.client == "other")
    assert other.began - other.at <= patience + 5 + 1


def test_what_fits_is_learned_and_unlearned() -> None:
    fits = Fits()
    assert fits({"a?"}) is True
    assert fits({"a?", "b?"}) is None
    assert fits({"a?", "a?num_ctx=1"}) is False  # Ollama has the same weights once
    fits.note_together({"a?", "b?", "c?"})
    assert (fits({"a?", "c?"}), fits({"a?", "d?"})) == (True, None)
    fits.note_crowded({"a?", "b?"})
    assert (fits({"a?", "b?"}), fits({"a?", "b?", "c?"}), fits({"d?", "e?"})) == (False, False, False)
    fits.note_together({"a?", "b?"})
    assert (fits({"a?", "b?"}), fits({"d?", "e?"})) == (True, None)
    for number in range(1000):
        fits.note_crowded({f"{number}?", "x?"})
        fits.note_together({f"{number}?", "y?"})
    assert len(fits.crowded) + len(fits.together) <= 128


def test_the_documented_figures() -> None:
    text = DOCS.read_text()
    for policy in POLICIES:
        assert f"| alternating | {policy} | {' | '.join(measured('alternating', policy))} |" in text
    assert plot() in text
