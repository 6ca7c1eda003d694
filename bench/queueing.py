"""Compare the policies of the queue in virtual time: `python -m bench.queueing`.

A trace is a list of requests; a virtual Ollama has room for so many models, serves so many requests of each at once,
and takes a time to load one. It prefers what is loaded and prepares one load after the other, as the real one does.
"""

import itertools
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from statistics import mean, quantiles

from gateway.streams.fits import Memory
from gateway.streams.line import Line
from gateway.streams.policy import Rules, Server

LOOK_SECONDS = 0.25  # how often the queue looks at what is loaded, as in the gateway


@dataclass(eq=False)
class Ask:
    """A request that comes `at` a time and takes `seconds` once its model is loaded."""

    at: float
    client: str
    model: str
    seconds: float
    began: float = -1.0


@dataclass(frozen=True)
class Machine:
    """An Ollama: how many models it has room for, how many requests each serves at once, how long a load takes."""

    room: int = 1
    parallel: int = 1
    load_seconds: float = 5.0


@dataclass
class Runner:
    """A model in memory, or on its way there."""

    ready: bool = False
    users: int = 0
    busy: int = 0
    waiting: deque[Ask] = field(default_factory=deque)


class Run:
    """One trace on one machine under one policy; `loads` and the times in the trace's requests are the result."""

    def __init__(self, trace: Sequence[Ask], machine: Machine, rules: Rules, *, fair: bool, models: bool) -> None:
        self.loads = 0
        self.now = 0.0
        self._machine, self._rules, self._fair, self._models = machine, rules, fair, models
        self._runners: dict[str, Runner] = {}
        self._ollamas_line: deque[Ask] = deque()
        self._line, self._seen, self._looking = Line(), Memory(), False
        self._asks = {str(number): ask for number, ask in enumerate(trace)}
        self._names = {ask: name for name, ask in self._asks.items()}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        for ask in trace:
            self._at(ask.at, partial(self._come, ask))
        while self._events:
            self.now, _, event = heappop(self._events)
            event()

    def _at(self, moment: float, event: Callable[[], None]) -> None:
        heappush(self._events, (moment, next(self._numbers), event))

    def _come(self, ask: Ask) -> None:
        self._line.add(self._names[ask], ask.client if self._fair else "", ask.model, self.now)
        self._advance()

    def _look(self) -> None:
        self._looking = False
        self._advance()

    def _advance(self) -> None:
        before = {*self._line.running}
        self._line.advance(self._rules, [self._server()] if self._models else [], self.now)
        for name in self._line.running:
            if name not in before:
                self._send(self._asks[name])
        if self._models and self._line.waiting and not self._looking:
            self._looking = True
            self._at(self.now + LOOK_SECONDS, self._look)

    def _server(self) -> Server:
        loaded = {model for model, runner in self._runners.items() if runner.ready}
        self._seen.see(loaded, [each.model for each in self._line.running.values()], self.now)
        return Server("", self._seen.loaded, fits=self._seen.fits, since=self._seen.since)

    def _send(self, ask: Ask) -> None:
        runner = self._runners.get(ask.model)
        if runner is not None and runner.ready:
            self._attach(ask)
        else:
            self._ollamas_line.append(ask)
            self._prepare()

    def _attach(self, ask: Ask) -> None:
        runner = self._runners[ask.model]
        runner.users += 1
        runner.waiting.append(ask)
        self._serve(runner)

    def _serve(self, runner: Runner) -> None:
        while runner.ready and runner.waiting and runner.busy < self._machine.parallel:
            ask = runner.waiting.popleft()
            runner.busy += 1
            ask.began = self.now
            self._at(self.now + ask.seconds, partial(self._end, ask, runner))

    def _end(self, ask: Ask, runner: Runner) -> None:
        runner.busy -= 1
        runner.users -= 1
        self._serve(runner)
        self._prepare()
        self._line.remove(self._names[ask])
        self._advance()

    def _prepare(self) -> None:
        """Load what is asked for, one after the other, as long as there is room or a model that nobody uses."""
        while self._ollamas_line:
            ask = self._ollamas_line[0]
            if ask.model not in self._runners:
                idle = [model for model, runner in self._runners.items() if not runner.users]
                if len(self._runners) >= self._machine.room and not idle:
                    return
                if len(self._runners) >= self._machine.room:
                    del self._runners[idle[0]]
                self.loads += 1
                runner = self._runners[ask.model] = Runner()
                self._at(self.now + self._machine.load_seconds, partial(self._ready, runner))
            self._attach(self._ollamas_line.popleft())

    def _ready(self, runner: Runner) -> None:
        runner.ready = True
        self._serve(runner)
        self._advance()


def alternating(count: int = 20, seconds: float = 2) -> list[Ask]:
    return [Ask(0, f"c{number}", "ab"[number % 2], seconds) for number in range(count)]


def bursts() -> list[Ask]:
    """Every half minute ten clients ask for one of two models at once."""
    chance = random.Random(1)
    return [Ask(30.0 * burst, f"c{number}", chance.choice("ab"), 2) for burst in range(10) for number in range(10)]


def greedy() -> list[Ask]:
    """One client sends a hundred requests for one model; nine others send one each, for either."""
    return [Ask(0, "greedy", "a", 2) for _ in range(100)] + [Ask(5, f"c{n}", "ab"[n % 2], 2) for n in range(9)]


def zipf(models: int = 6, count: int = 200, every: float = 4) -> list[Ask]:
    """Requests at random times, for models of which the second is asked for half as often as the first, and so on."""
    chance = random.Random(2)
    weights = [1 / rank for rank in range(1, models + 1)]
    at = itertools.accumulate(chance.expovariate(1 / every) for _ in range(count))
    return [Ask(when, f"c{chance.randrange(12)}", chance.choices("abcdef"[:models], weights)[0], 2) for when in at]


def looping(clients: int = 3, seconds: float = 600) -> list[Ask]:
    """A model that is in use without a pause, and now and then a request for another one."""
    steady = [Ask(2.0 * turn, f"c{turn % clients}", "a", 2.0) for turn in range(int(seconds / 2))]
    return sorted([*steady, *(Ask(60.0 * turn + 7, "other", "b", 2) for turn in range(9))], key=lambda ask: ask.at)


TRACES: dict[str, tuple[Callable[[], list[Ask]], Machine]] = {
    "alternating": (alternating, Machine()),
    "bursts": (bursts, Machine()),
    "greedy": (greedy, Machine()),
    "Zipf": (zipf, Machine(room=2)),
    "looping": (looping, Machine()),
    "room for both": (alternating, Machine(room=2)),
}
POLICIES: dict[str, tuple[bool, bool]] = {"first come": (False, False), "fair": (True, False), "ours": (True, True)}
"""Whether a policy is fair, and whether it knows the models."""

PATIENCE = 15.0
PATIENCES = (0, 5, 10, 15, 30, 60)
MAX_ACTIVE = 64


def measured(name: str, policy: str, patience: float = PATIENCE, max_active: int = MAX_ACTIVE) -> list[str]:
    """The cells of a row: total time, loads, mean, 95th percentile and longest wait, Jain's index of clients' waits."""
    make, machine = TRACES[name]
    trace = make()
    fair, models = POLICIES[policy]
    run = Run(trace, machine, Rules(max_active, patience), fair=fair, models=models)
    waits = [ask.began - ask.at for ask in trace]
    clients = Counter(ask.client for ask in trace)
    shares = [sum(ask.began - ask.at for ask in trace if ask.client == each) / clients[each] for each in clients]
    jain = sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares) or 1)
    total = max(ask.began + ask.seconds for ask in trace)
    figures = total, run.loads, mean(waits), quantiles(waits, n=20)[-1], max(waits)
    return [*(f"{figure:.0f}" for figure in figures), f"{jain:.2f}"]


def optimum(trace: Sequence[Ask], machine: Machine) -> float:
    """The shortest total time for requests that all come at once: each model is loaded once."""
    models = Counter(ask.model for ask in trace)
    seconds = {ask.model: ask.seconds for ask in trace}
    return sum(machine.load_seconds + -(-models[each] // machine.parallel) * seconds[each] for each in models)


def main() -> int:
    head = "total, s | loads | mean wait, s | 95 %, s | longest, s | Jain"
    print(f"| trace | policy | {head} |\n|---|---|--:|--:|--:|--:|--:|--:|")
    for trace in TRACES:
        for policy in POLICIES:
            print(f"| {trace} | {policy} | {' | '.join(measured(trace, policy))} |")
    print(f"\nThe optimum for the alternating trace: {optimum(*(alternating(), Machine())):.0f} s\n")
    print(f"| trace | patience, s | {head} |\n|---|--:|--:|--:|--:|--:|--:|--:|")
    for trace in ("bursts", "Zipf", "looping"):
        for patience in PATIENCES:
            print(f"| {trace} | {patience} | {' | '.join(measured(trace, 'ours', patience))} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
