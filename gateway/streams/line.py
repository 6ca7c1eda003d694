"""The line in front of Ollama: plain data, and what may happen to it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from gateway.jobs import Reason
from gateway.streams.policy import Rules, Server, choose, project
from gateway.streams.turns import Request


@dataclass(slots=True)
class Line:
    """All requests that wait, in the order in which they came, and all that run, in the order of their admission.

    `changed` has the names of those that have come, gone or changed; whoever stores the line empties it. `models`
    counts the requests for each model. Times are in seconds, by a clock that all who use the line share.
    """

    waiting: dict[str, Request] = field(default_factory=dict)
    running: dict[str, Request] = field(default_factory=dict)
    count: int = 0
    changed: set[str] = field(default_factory=set)
    models: Counter[str] = field(default_factory=Counter)

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

    def add(self, name: str, caller: str, model: str, now: float, *, running: bool = False) -> None:
        """Append a request that has just come, or one that has a slot already."""
        number = self.count + 1
        self.put(Request(name, caller, model, number, number, now), running=running)
        self.changed.add(name)

    def put(self, request: Request, *, running: bool) -> None:
        """Append a request as it was stored."""
        (self.running if running else self.waiting)[request.name] = request
        self.models[request.model] += 1
        self.count = max(self.count, request.number, request.turn)

    def remove(self, name: str) -> bool:
        """Take a request out of the line, or give its slot back. Returns whether it was there."""
        request = self.running.pop(name, None)
        if request is not None:
            self.count += 1
            self._serve({request.caller: self.count})
        else:
            request = self.waiting.pop(name, None)
            if request is None:
                return False
        self.changed.add(name)
        self.models[request.model] -= 1
        if not self.models[request.model]:
            del self.models[request.model]
        return True

    def advance(self, rules: Rules, server: Server | None, now: float) -> None:
        """Give the free slots to those whose turn it is. See `choose`."""
        served: dict[str, int] = {}
        for each in choose([*self.waiting.values()], [*self.running.values()], rules, server, now):
            self.count += 1
            served[each.caller] = self.count
            del self.waiting[each.name]
            self.running[each.name] = replace(each, number=self.count, since=now)
            self.changed.add(each.name)
        self._serve(served)

    def reasons(self, rules: Rules, server: Server | None, now: float) -> Iterator[tuple[Request, Reason]]:
        """Each request that waits and why it does, in the order in which they will probably go."""
        came = {name: number for number, name in enumerate(self.waiting, 1)}
        order = project([*self.waiting.values()], [*self.running.values()], rules, server, now)
        for place, request in enumerate(order, 1):
            if len(self.running) < rules.max_active or (server and server.is_full_for(request)):
                yield request, Reason.MODEL
            else:
                yield request, Reason.FAIRNESS if place > came[request.name] else Reason.SLOTS

    def _serve(self, callers: dict[str, int]) -> None:
        """Note when these clients were last served."""
        for name, each in self.waiting.items() if callers else ():
            if each.caller in callers:
                self.waiting[name] = replace(each, turn=callers[each.caller])
                self.changed.add(name)
