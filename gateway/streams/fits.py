"""What fits beside what in Ollama's memory, learned from what was seen there: Ollama does not tell. Pure."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from gateway.upstream.wire import OPTIONS

MAX_SETS = 64  # of models that are remembered: of those seen together, and of those that were too many


@dataclass(slots=True)
class Fits:
    """Sets of models that were seen in memory together, and sets of which one had to go.

    As long as none had to go, nothing is known not to fit. After that, what was never seen does not fit if it is as
    many models as did not fit once: the next time that nobody wants the others, it will be tried.
    """

    together: dict[frozenset[str], None] = field(default_factory=dict)
    crowded: dict[frozenset[str], None] = field(default_factory=dict)

    def __call__(self, models: Set[str]) -> bool | None:
        """Whether these models fit into memory together; None if nothing is known."""
        if len(models) <= 1 or any(models <= seen for seen in self.together):
            return True
        if len({model.partition(OPTIONS)[0] for model in models}) < len(models):
            return False  # the same weights with other options: Ollama has them once
        return False if any(len(models) >= len(seen) for seen in self.crowded) else None

    def note_together(self, models: Set[str]) -> None:
        """These were in memory at the same time."""
        self.crowded = {seen: None for seen in self.crowded if not seen <= models}
        _remember(self.together, models)

    def note_crowded(self, models: Set[str]) -> None:
        """When the last of these came, another one had to go."""
        self.together = {seen: None for seen in self.together if not models <= seen}
        _remember(self.crowded, models)


def _remember(sets: dict[frozenset[str], None], models: Set[str]) -> None:
    key = frozenset(models)
    sets.pop(key, None)
    sets[key] = None
    if len(sets) > MAX_SETS:
        del sets[next(iter(sets))]


KEPT_SECONDS = 0.5
"""When nobody has used a model for this long, and Ollama has not thrown it out for another that it was asked for, it
loads the other one beside it."""


class Memory:
    """What a server has loaded, since when, and what fits into it, as it is seen from time to time."""

    def __init__(self) -> None:
        self.loaded: frozenset[str] = frozenset()
        self.fits = Fits()
        self.since = float("-inf")
        self._kept_at: float | None = None

    def see(self, loaded: Set[str], asked: Sequence[str], now: float) -> None:
        """Take in what is loaded now. `asked` are the models of the requests that run, the oldest first."""
        before, self.loaded = self.loaded, frozenset(loaded)
        came = next((model for model in (*asked, *loaded) if model not in before), None)
        if came and before - loaded:
            self.fits.note_crowded(before | {came})
        if loaded - before:
            self.since = now
        if len(loaded) > 1:
            self.fits.note_together(loaded)
        awaited = next((model for model in asked if model not in loaded), None)
        if awaited is None or not loaded or loaded & {*asked}:
            self._kept_at = None
        elif self._kept_at is None:
            self._kept_at = now
        elif now - self._kept_at >= KEPT_SECONDS and self.fits(loaded | {awaited}) is None:
            self.fits.note_together(loaded | {awaited})
