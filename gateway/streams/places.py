"""The servers while the policy of the queue admits requests: what each has in memory, and what comes into it. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from gateway.streams.fits import Fits
from gateway.streams.turns import Request


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of an Ollama server: the models that it has loaded, and `since` when the last of them is loaded.

    `names` maps each model of the line to the one that Ollama takes it for: several names may share their weights.
    `lacks` has the models of the line that are not installed there.
    """

    name: str
    loaded: frozenset[str]
    names: Mapping[str, str] = field(default_factory=dict)
    fits: Fits = field(default_factory=Fits)
    since: float = float("-inf")
    lacks: Set[str] = frozenset()

    def model(self, request: Request) -> str:
        """What Ollama takes the request's model for."""
        return self.names.get(request.model, request.model)


@dataclass(frozen=True, slots=True)
class Rules:
    """How many requests may run at once, and how many seconds one waits at most for a model that others want.

    `parallel` is how many a model answers at once at a server; with 0 it is as many as it was seen to answer there.
    Then twice as many get a slot: so more are seen if it can, and the next one is there when one ends.
    """

    max_active: int
    patience: float = 0
    parallel: int = 0

    def answered(self, model: str, seen: Mapping[str, int]) -> int:
        """How many requests for a model a server answers at once."""
        return self.parallel or seen.get(model, 1)

    def slots(self, model: str, seen: Mapping[str, int]) -> int:
        """How many requests for a model may have a slot at a server."""
        return self.parallel or 2 * seen.get(model, 1)


class Demand:
    """How many wait for each model, and how long its longest answer takes, of all requests; the shortest first."""

    def __init__(self, waiting: Sequence[Request], running: Sequence[Request]) -> None:
        self.waiting = Counter([each.model for each in waiting])
        longest: dict[str, float] = {}
        for each in (*waiting, *running):
            if each.seconds >= longest.get(each.model, 0):
                longest[each.model] = each.seconds
        self.seconds = sorted(longest.items(), key=lambda each: each[1])


class Places:
    """All servers while requests are admitted one after the other. `taken` is where the last one went."""

    def __init__(self, places: Sequence["Place"], wanted: Counter[str]) -> None:
        self.taken = ""
        self._places = places
        self._wanted = wanted
        self._refused: set[str] = set()  # models for which there is no place, until something changes

    def admit(self, request: Request) -> bool:
        """Whether the request may go. If so, it counts as running from now on."""
        if not any(each.is_open(request) for each in self._places):
            return False
        overdue = any(each.is_overdue(request) for each in self._places)
        if request.model in self._refused and not overdue:
            return False
        able = [each for each in self._places if each.has(request)] or self._places
        able = [each for each in able if each.is_open(request)]
        place = self._idle(request, able) or self._new(request, able) or self._busy(request, able)
        if place is not None:
            place.take(request)
            self.taken = place.name
            self._wanted[request.model] -= 1
            self._refused.clear()
        elif not overdue:
            self._refused.add(request.model)
        elif has_it := [each for each in able if each.is_loaded(request)]:
            for each in has_it:
                each.keep(request)
        elif able:
            min(able, key=Place.demand).reserve(request)
        return place is not None

    def _idle(self, request: Request, able: Sequence["Place"]) -> "Place | None":
        """Where the request is answered at once, if possible by the server that knows its conversation."""
        idle = [each for each in able if each.runs(request) < each.answered(request) and each.has_slot(request)]
        if len(idle) <= 1:
            return idle[0] if idle else None
        return min(idle, key=lambda each: (each.name != request.home, each.runs(request), each.demand()))

    def _new(self, request: Request, able: Sequence["Place"]) -> "Place | None":
        """Where the model may be loaded: it is nowhere, or as many requests wait for it as are answered."""
        has_it = [each for each in able if each.holds(request)]
        if len(has_it) == len(able):
            return None
        answered = sum([min(each.runs(request), each.answered(request)) for each in has_it])
        waiting = self._wanted[request.model] + sum([each.runs(request) for each in has_it]) - answered
        if has_it and waiting < answered:
            return None
        room = [each for each in able if each not in has_it and each.has_room(request, beside=bool(has_it))]
        return min(room, key=lambda each: (each.fits(request) is False, each.demand()), default=None)

    def _busy(self, request: Request, able: Sequence["Place"]) -> "Place | None":
        """Where the request is answered next."""
        return min([each for each in able if each.has_slot(request)], key=lambda each: each.runs(request), default=None)


class Place:
    """A server while requests are admitted one after the other: what it has in memory, and what comes into it."""

    def __init__(
        self,
        server: Server,
        demand: Demand,
        running: Sequence[Request],
        rules: Rules,
        now: float,
        seen: Mapping[str, int],
        *,
        alone: bool,
    ) -> None:
        self.name = server.name
        self._server, self._model, self._fits = server, server.model, server.fits
        self._rules, self._seen = rules, seen
        here = running if alone else [each for each in running if each.server == server.name]
        self._due = now - rules.patience
        longest = [(server.names.get(name, name), seconds) for name, seconds in reversed(demand.seconds)]
        self._longest = longest[:1] + [each for each in longest if each[0] != longest[0][0]][:1]  # of two models
        self._swapped_at = server.since
        self._used = Counter([self._model(each) for each in here])
        self._wanted = {server.names.get(name, name) for name in demand.waiting}
        self._known: dict[str, bool | None] = {}  # which models fit beside what is there now
        self._loaded: Set[str] = server.loaded
        self._next: str | None = None  # the model that has waited too long, for which all others are held back
        for each in sorted(here, key=lambda each: each.number):
            model = self._model(each)
            if model in server.loaded:
                continue
            fits = self._fits(self._loaded | {model})
            self._make_room(model)
            if not fits and self.is_overdue(each) and self._others(model):
                self._next = self._next or model  # Ollama may keep it waiting as long as others use what is loaded

    def has(self, request: Request) -> bool:
        """Whether the request's model is installed, as far as that is known."""
        return request.model not in self._server.lacks

    def is_open(self, request: Request) -> bool:
        """Whether no other model has waited too long."""
        return self._next in (None, self._model(request))

    def is_loaded(self, request: Request) -> bool:
        """Whether the request's model is in memory."""
        return self._model(request) in self._loaded

    def holds(self, request: Request) -> bool:
        """Whether the request's model is in memory, or was asked for."""
        return self.is_loaded(request) or self._model(request) in self._used

    def runs(self, request: Request) -> int:
        """How many requests for that model have a slot."""
        return self._used[self._model(request)]

    def demand(self) -> int:
        """How many requests have a slot."""
        return self._used.total()

    def answered(self, request: Request) -> int:
        """How many requests for that model are answered at once."""
        return self._rules.answered(request.model, self._seen)

    def has_slot(self, request: Request) -> bool:
        """Whether the model is there, or on its way, and one more request may have a slot for it."""
        model = self._model(request)
        if not self.holds(request) or self._used[model] >= self._rules.slots(request.model, self._seen):
            return False
        # one request is enough until the model is loaded
        return model in self._loaded or not self._others(model) or self.fits(request) is True

    def has_room(self, request: Request, *, beside: bool) -> bool:
        """Whether the model may be loaded; with `beside`, only if no other has to go for it."""
        if self.fits(request) is not False:
            return True
        if beside:
            return False
        model = self._model(request)
        others = self._others(model)
        in_demand = others | (self._wanted & self._loaded)
        if self._fits(in_demand | {model}) is not False:
            return True
        return self.is_overdue(request) and self._fits(others | {model}) is not False

    def fits(self, request: Request) -> bool | None:
        """Whether the model fits beside all that is in memory or on its way."""
        model = self._model(request)
        if model not in self._known:
            self._known[model] = self._fits(self._loaded | self._used.keys() | {model})
        return self._known[model]

    def take(self, request: Request) -> None:
        """Give the request a slot."""
        model = self._model(request)
        self._used[model] += 1
        self._make_room(model)
        self._known.clear()

    def reserve(self, request: Request) -> None:
        """Hold back all other models if the request has waited too long."""
        if self.is_overdue(request):
            self._next = self._model(request)

    def keep(self, request: Request) -> None:
        """Let nobody whose turn is later have the model thrown out if the request has waited too long for a slot."""
        if self.is_overdue(request):
            self._due = float("-inf")

    def _make_room(self, model: str) -> None:
        """Forget what Ollama is about to throw out for this model: all that is not in use."""
        if self._fits(self._loaded | {model}) is False:
            self._loaded &= self._used.keys()

    def _others(self, model: str) -> Set[str]:
        return self._used.keys() - {model}

    def is_overdue(self, request: Request) -> bool:
        """Whether others must be held back now, for the request to have its model after the patience."""
        model = self._model(request)
        # what is admitted now may wait for one more answer at Ollama, before its own
        lead = 2 * next((seconds for other, seconds in self._longest if other != model), 0)
        return max(request.since, self._swapped_at) <= self._due + min(lead, self._rules.patience / 2)
