"""The line in front of Ollama: plain data, and what may happen to it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from gateway.jobs import Reason
from gateway.streams.places import Rules, Server
from gateway.streams.policy import choose, project
from gateway.streams.turns import Request

MAX_MODELS = 256  # of which is remembered how many of their requests ran at once; the oldest are forgotten


@dataclass(slots=True)
class Line:
    """All requests that wait, in the order in which they came, and all that run, in the order of their admission.

    `changed` has the names of those that have come, gone or changed; whoever stores the line empties it. `models`
    counts the requests for each model, and `seen` tells how many of them were seen to run at once at a server. Times
    are in seconds, by a clock that all who use the line share.
    """

    waiting: dict[str, Request] = field(default_factory=dict)
    running: dict[str, Request] = field(default_factory=dict)
    count: int = 0
    changed: set[str] = field(default_factory=set)
    models: Counter[str] = field(default_factory=Counter)
    seen: dict[str, int] = field(default_factory=dict)
    _begun: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def mixed(self) -> bool:
        """Whether it matters what is loaded: there are requests for more than one model."""
        return len(self.models) > 1

    def carries(self, name: str) -> bool:
        """Whether it alone asks Ollama for a model that others wait for."""
        request = self.running.get(name)
        if request is None or self.models[request.model] == 1:
            return False
        return [each.model for each in self.running.values()].count(request.model) == 1

    def contested(self, name: str, rules: Rules) -> bool:
        """Whether others wait for this request's slot: for its model, for one that is not there, or for any.

        Some of them may have a slot already, and wait at Ollama.
        """
        request = self.running.get(name)
        if request is None:
            return False
        if len(self.running) >= rules.max_active and self.waiting:
            return True
        like = [each for each in self.running.values() if (each.model, each.server) == (request.model, request.server)]
        others_wait = any(not each.begun for each in like if each is not request)
        if others_wait and len(like) > rules.answered(request.model, self.seen):
            return True
        there = {each.model for each in self.running.values()} - {request.model}
        return any(each.model not in there for each in self.waiting.values())

    def add(
        self,
        name: str,
        caller: str,
        model: str,
        now: float,
        *,
        seconds: float = 0,
        home: str = "",
        server: str | None = None,
    ) -> None:
        """Append a request that has just come, or one that has a slot at `server` already."""
        number = self.count + 1
        request = Request(name, caller, model, number, number, now, seconds, home, server or "")
        self.put(request, running=server is not None)
        self.changed.add(name)

    def put(self, request: Request, *, running: bool) -> None:
        """Append a request as it was stored."""
        (self.running if running else self.waiting)[request.name] = request
        self.models[request.model] += 1
        self.count = max(self.count, request.number, request.turn)
        if request.begun:
            self._learn(request, 1)

    def begin(self, name: str) -> bool:
        """Note that a request has its first token. Returns whether more of its model run at once than were seen yet."""
        request = self.running.get(name)
        if request is None or request.begun:
            return False
        self.running[name] = replace(request, begun=True)
        self.changed.add(name)
        return self._learn(request, 1)

    def remove(self, name: str) -> bool:
        """Take a request out of the line, or give its slot back. Returns whether it was there."""
        request = self.running.pop(name, None)
        if request is not None:
            self.count += 1
            self._serve({request.caller: self.count})
            if request.begun:
                self._learn(request, -1)
        else:
            request = self.waiting.pop(name, None)
            if request is None:
                return False
        self.changed.add(name)
        self.models[request.model] -= 1
        if not self.models[request.model]:
            del self.models[request.model]
        return True

    def advance(self, rules: Rules, servers: Sequence[Server], now: float) -> None:
        """Give the free slots to those whose turn it is. See `choose`."""
        served: dict[str, int] = {}
        waiting, running = [*self.waiting.values()], [*self.running.values()]
        for each, server in choose(waiting, running, rules, servers, now, self.seen):
            self.count += 1
            served[each.caller] = self.count
            del self.waiting[each.name]
            self.running[each.name] = replace(each, number=self.count, since=now, server=server)
            self.changed.add(each.name)
        self._serve(served)

    def reasons(self, rules: Rules, servers: Sequence[Server], now: float) -> Iterator[tuple[Request, Reason]]:
        """Each request that waits and why it does, in the order in which they will probably go."""
        came = {name: number for number, name in enumerate(self.waiting, 1)}
        used = Counter(each.model for each in self.running.values())
        order = project([*self.waiting.values()], [*self.running.values()], rules, servers, now)
        for place, request in enumerate(order, 1):
            slots = rules.slots(request.model, self.seen) * max(len(servers), 1)
            full = len(self.running) >= rules.max_active or used[request.model] >= slots
            if servers and not (full and any(each.model(request) in each.loaded for each in servers)):
                yield request, Reason.MODEL
            else:
                yield request, Reason.FAIRNESS if place > came[request.name] else Reason.SLOTS

    def _learn(self, like: Request, more: int) -> bool:
        """Count one more or fewer of those that run at once. Returns whether they are more than were seen so far."""
        key = like.model, like.server
        self._begun[key] += more
        if not self._begun[key]:
            del self._begun[key]
        if self._begun[key] <= self.seen.get(like.model, 1):
            return False
        self.seen[like.model] = self._begun[key]
        if len(self.seen) > MAX_MODELS:
            del self.seen[next(iter(self.seen))]
        return True

    def _serve(self, callers: dict[str, int]) -> None:
        """Note when these clients were last served."""
        for name, each in self.waiting.items() if callers else ():
            if each.caller in callers:
                self.waiting[name] = replace(each, turn=callers[each.caller])
                self.changed.add(name)
