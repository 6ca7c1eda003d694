"""Who goes next: the policy of the queue. Pure: plain data in, plain data out, no clock, no I/O.

A request may go if its model is loaded, or fits beside what is in use, as far as that is known. One that would make
Ollama throw out a model that others want waits until they are served, but no longer than `patience` seconds: then
nothing goes that would keep it waiting, and it goes as soon as the other model is free.

Of those that may go, the next slot goes to the client with the fewest requests running, and of several to the one that
was served least recently. A client that has just come counts as served then, so that newcomers overtake nobody for
ever. Requests of one client for one model go in the order in which they came.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from gateway.streams.fits import Fits
from gateway.streams.turns import Request, Turns


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of the Ollama server: the models that it has loaded, and `since` when the last of them is loaded.

    `names` maps each model of the line to the one that Ollama takes it for: several names may share their weights.
    """

    loaded: frozenset[str]
    names: Mapping[str, str]
    fits: Fits
    since: float

    def model(self, request: Request) -> str:
        """What Ollama takes the request's model for."""
        return self.names.get(request.model, request.model)

    def is_full_for(self, request: Request) -> bool:
        """Whether one of the loaded models must go for the request's."""
        return self.fits(self.loaded | {self.model(request)}) is False


@dataclass(frozen=True, slots=True)
class Rules:
    """How many requests may run at once, and how many seconds one waits at most for a model that others want."""

    max_active: int
    patience: float = 0


def choose(
    waiting: Sequence[Request], running: Sequence[Request], rules: Rules, server: Server | None, now: float
) -> list[Request]:
    """Which of `waiting` get a slot now, in their order. Without a server, all models count as one."""
    free = rules.max_active - len(running)
    if free <= 0 or not waiting:
        return []
    if server is None and len(waiting) == 1:  # need not be compared with thousands that run
        return [*waiting]
    may_go = _always if server is None else _Memory(waiting, running, rules, server, now).admit
    turns = Turns(waiting, running, models=server is not None)
    admitted: list[Request] = []
    while len(admitted) < free and (request := turns.next(may_go)):
        admitted.append(request)
    return admitted


def project(
    waiting: Sequence[Request], running: Sequence[Request], rules: Rules, server: Server | None, now: float
) -> list[Request]:
    """All of `waiting` in the order in which they would go if no other came and the oldest always ended first.

    With a server, requests for what is loaded go before the others, and each swap serves all that want the model.
    """
    turns = Turns(waiting, running, models=False)
    ending = deque(each.caller for each in running)
    order: list[Request] = []
    for _ in waiting:
        if len(ending) >= rules.max_active:
            turns.end(ending.popleft())
        request = turns.next(_always)
        assert request
        order.append(request)
        ending.append(request.caller)
    return order if server is None else _by_model(order, running, rules, server, now)


def _by_model(
    order: Sequence[Request], running: Sequence[Request], rules: Rules, server: Server, now: float
) -> list[Request]:
    loaded = {*server.loaded, *(server.model(each) for each in running)}
    overdue = [each for each in order if now - max(each.since, server.since) >= rules.patience]
    if overdue and server.fits(loaded | {server.model(overdue[0])}) is False:
        loaded = {server.model(overdue[0])}
    result: list[Request] = []
    while order:
        later: list[Request] = []
        beside: set[str] = set()  # models for which there is no room beside those that are loaded
        for each in order:
            model = server.model(each)
            if model not in loaded | beside and server.fits(loaded | {model}) is False:
                beside.add(model)
            if model in beside:
                later.append(each)
            else:
                loaded.add(model)
                result.append(each)
        order = later
        loaded = {server.model(each) for each in later[:1]}
    return result


def _always(_: Request) -> bool:
    return True


class _Memory:
    """What Ollama has in memory and what comes into it, while requests are admitted one after the other."""

    def __init__(
        self, waiting: Sequence[Request], running: Sequence[Request], rules: Rules, server: Server, now: float
    ) -> None:
        self._model, self._fits = server.model, server.fits
        self._due = now - rules.patience
        self._swapped_at = server.since
        self._used = Counter(self._model(each) for each in running)
        self._wanted = {self._model(each) for each in waiting}
        self._loaded: Set[str] = server.loaded
        self._next: str | None = None  # the model that has waited too long, for which all others are held back
        for each in sorted(running, key=lambda each: each.number):
            model = self._model(each)
            if model in server.loaded:
                continue
            fits = self._fits(self._loaded | {model})
            self._make_room(model)
            if not fits and self._overdue(each) and self._others(model):
                self._next = self._next or model  # Ollama may keep it waiting as long as others use what is loaded

    def admit(self, request: Request) -> bool:
        """Whether the request may go. If so, it counts as running from now on."""
        model = self._model(request)
        if self._next not in (None, model):
            return False
        if self._has_room(model, request):
            self._used[model] += 1
            self._make_room(model)
            return True
        if self._overdue(request):
            self._next = model
        return False

    def _has_room(self, model: str, request: Request) -> bool:
        if model in self._loaded:
            return True
        others = self._others(model)
        if model in self._used:  # Ollama is asked for it already: one request is enough until it is loaded
            return not others or self._fits(self._loaded | self._used.keys() | {model}) is True
        if self._fits(self._loaded | self._used.keys() | {model}) is not False:
            return True
        in_demand = others | (self._wanted & self._loaded)
        if self._fits(in_demand | {model}) is not False:
            return True
        return self._overdue(request) and self._fits(others | {model}) is not False

    def _make_room(self, model: str) -> None:
        """Forget what Ollama is about to throw out for this model: all that is not in use."""
        if self._fits(self._loaded | {model}) is False:
            self._loaded &= self._used.keys()

    def _others(self, model: str) -> Set[str]:
        return self._used.keys() - {model}

    def _overdue(self, request: Request) -> bool:
        return max(request.since, self._swapped_at) <= self._due
