"""How long requests will probably wait, from how long others for the same models took. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapreplace
from math import inf
from typing import NamedTuple

from gateway.streams.places import Rules, Server
from gateway.streams.turns import Request

NEWEST = 0.3  # the share of the newest time in an average: what a model is asked for changes
MAX_MODELS = 256  # whose times are known; those that were learned longest ago are forgotten


class Times(NamedTuple):
    """Averages of a model, in seconds; None if there was none yet.

    `start` is the time from a slot to the first token, `load` the same when the model was not loaded, and `answer` the
    time from the first token to the slot's end.
    """

    start: float | None = None
    load: float | None = None
    answer: float | None = None


class Slot(NamedTuple):
    """A request that has a slot: which of its `Times` is measured at present, and since when."""

    model: str
    stage: str
    since: float


class Estimates:
    """The times of each model, and what follows from them. Times are in seconds."""

    def __init__(self) -> None:
        self._times: dict[str, Times] = {}
        self._slots: dict[str, Slot] = {}

    def admit(self, name: str, model: str, now: float, *, loaded: bool) -> None:
        """A request has a slot; `loaded` tells whether its model needs not be loaded, as far as that is known."""
        self._slots[name] = Slot(model, "start" if loaded else "load", now)

    def begin(self, name: str, now: float) -> None:
        """It has its first token."""
        if slot := self._slots.get(name):
            self._note(slot, now)
            self._slots[name] = Slot(slot.model, "answer", now)

    def leave(self, name: str, now: float) -> None:
        """It has given its slot back. One without a token tells nothing: it may have failed."""
        slot = self._slots.pop(name, None)
        if slot and slot.stage == "answer":
            self._note(slot, now)

    def length(self, model: str) -> float:
        """How long an answer of this model takes, from the slot on, once it is loaded; 0 if that is not known."""
        times = self._times.get(model, Times())
        return 0 if times.answer is None else times.answer + (times.start or 0)

    def waits(
        self,
        order: Iterable[Request],
        running: Iterable[Request],
        rules: Rules,
        servers: Sequence[Server],
        now: float,
        seen: Mapping[str, int],
    ) -> Iterator[float | None]:
        """The seconds until each request of `order` is answered; None where that is not known.

        `order` is the one in which they will go. At each server a model answers as many at once as were `seen` to run;
        others that have a slot wait at Ollama. A model that does not fit is loaded when all slots are free.
        """
        slots = _Slots(rules, max(len(servers), 1), seen)
        for each in sorted(running, key=lambda each: not each.begun):
            slots.fill(each, self._length(each), slots.free(each) or each.since - now)
        loaded = {model: 0.0 for server in servers for model in server.loaded}  # and when that is so
        for request in order:
            wait, model = slots.free(request), servers[0].model(request) if servers else ""
            if servers and model not in loaded:
                if all(server.fits({*loaded, model}) is False for server in servers):
                    wait, loaded = slots.all_free(), {}
                load = self._of(request).load
                loaded[model] = wait + (inf if load is None else load)
            wait = max(wait, loaded.get(model, 0))
            slots.fill(request, self._length(request), wait)
            yield None if wait == inf else wait

    def _length(self, request: Request) -> float:
        """How long it has its slot; one that still waits for it will find its model loaded."""
        times, slot = self._of(request), self._slots.get(request.name)
        start = times.load if slot and slot.stage == "load" else times.start
        return inf if times.answer is None else times.answer + (start or 0)

    def _of(self, request: Request) -> Times:
        return self._times.get(request.model, Times())

    def _note(self, slot: Slot, now: float) -> None:
        times, took = self._times.pop(slot.model, Times()), max(now - slot.since, 0)
        before = getattr(times, slot.stage)
        average = took if before is None else before + NEWEST * (took - before)
        self._times[slot.model] = times._replace(**{slot.stage: average})
        if len(self._times) > MAX_MODELS:
            del self._times[next(iter(self._times))]


class _Slots:
    """When requests end, for each model and for all together. Times are in seconds from now."""

    def __init__(self, rules: Rules, servers: int, seen: Mapping[str, int]) -> None:
        self._rules, self._servers, self._seen = rules, servers, seen
        self._all = [0.0] * rules.max_active
        self._ends: dict[str, list[float]] = {}

    def free(self, like: Request) -> float:
        """When a request for this model can be answered."""
        return max(self._of(like)[0], self._all[0])

    def all_free(self) -> float:
        """When nothing runs any more."""
        return max(self._all)

    def fill(self, request: Request, seconds: float, start: float) -> None:
        """Let a request be answered for so many seconds from `start` on."""
        end = max(start + seconds, 0)
        heapreplace(self._of(request), end)
        heapreplace(self._all, end)

    def _of(self, request: Request) -> list[float]:
        ends = self._ends.get(request.model)
        if ends is None:
            answered = self._rules.answered(request.model, self._seen)
            ends = self._ends[request.model] = [0.0] * (answered * self._servers)
        return ends
