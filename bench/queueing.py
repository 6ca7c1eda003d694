"""Compare the policies of the queue in virtual time: `python -m bench.queueing`.

A trace is a list of requests; a virtual Ollama has room for so many models, serves so many requests of each at once,
and takes a time to load one. It prefers what is loaded and prepares one load after the other, as the real one does.
"""

import itertools
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from statistics import mean, quantiles

from gateway.streams.fits import Memory
from gateway.streams.line import Line
from gateway.streams.places import Rules, Server
from gateway.streams.queue import SURE_SECONDS
from gateway.streams.turns import Request

LOOK_SECONDS = 0.25  # how often the queue looks at what is loaded, as in the gateway


@dataclass(eq=False)
class Ask:
    """A request that comes `at` a time and takes `seconds` once its model is loaded.

    After each answer before the time `until`, its client asks again.
    """

    at: float
    client: str
    model: str
    seconds: float
    until: float = 0
    began: float = -1.0


@dataclass(frozen=True)
class Machine:
    """How many models Ollama has room for, how many requests each serves at once, how long a load takes, and how many
    such servers there are. `loaded` is in the memory of the first one.
    """

    room: int = 1
    parallel: int = 1
    load_seconds: float = 5.0
    servers: int = 1
    loaded: str = ""


@dataclass
class Runner:
    """A model in memory, or on its way there."""

    ready: bool = False
    users: int = 0
    busy: int = 0
    waiting: deque[Ask] = field(default_factory=deque)


class Ollama:
    """A server. `run` tells it the time, calls it back later, and is told what begins and what ends."""

    def __init__(self, name: str, machine: Machine, run: "Run") -> None:
        self.name, self.loads = name, 0
        self._machine, self._run = machine, run
        self._runners: dict[str, Runner] = {}
        self._line: deque[Ask] = deque()
        self._seen = Memory()
        if machine.loaded and name in ("", "1"):
            self._runners[machine.loaded] = Runner(ready=True)

    def look(self, running: Sequence[Request]) -> Server:
        """What a gateway knows of it after a look."""
        loaded = {model for model, runner in self._runners.items() if runner.ready}
        self._seen.see(loaded, [each.model for each in running if each.server == self.name], self._run.now)
        return Server(self.name, self._seen.loaded, fits=self._seen.fits, since=self._seen.since)

    def send(self, ask: Ask) -> None:
        """Ask it for an answer."""
        runner = self._runners.get(ask.model)
        if runner is not None and runner.ready:
            self._attach(ask)
        else:
            self._line.append(ask)
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
            self._run.at(self._run.now + ask.seconds, partial(self._end, ask, runner))
            self._run.begin(ask)

    def _end(self, ask: Ask, runner: Runner) -> None:
        runner.busy -= 1
        runner.users -= 1
        self._serve(runner)
        self._prepare()
        self._run.end(ask)

    def _prepare(self) -> None:
        """Load what is asked for, one after the other, as long as there is room or a model that nobody uses."""
        while self._line:
            ask = self._line[0]
            if ask.model not in self._runners:
                idle = [model for model, runner in self._runners.items() if not runner.users]
                if len(self._runners) >= self._machine.room and not idle:
                    return
                if len(self._runners) >= self._machine.room:
                    del self._runners[idle[0]]
                self.loads += 1
                runner = self._runners[ask.model] = Runner()
                self._run.at(self._run.now + self._machine.load_seconds, partial(self._ready, runner))
            self._attach(self._line.popleft())

    def _ready(self, runner: Runner) -> None:
        runner.ready = True
        self._serve(runner)
        self._run.advance()


class Run:
    """One trace on one machine under one policy; `ollamas`, and the times of all `asks`, are the result.

    A policy that does not know the models takes the servers in turn.
    """

    def __init__(self, trace: Sequence[Ask], machine: Machine, rules: Rules, *, fair: bool, models: bool) -> None:
        self.now = 0.0
        self._rules, self._fair, self._models = rules, fair, models
        names = [str(number) for number in range(1, machine.servers + 1)] if machine.servers > 1 else [""]
        self.ollamas = [Ollama(name, machine, self) for name in names]
        self._turn = itertools.cycle(self.ollamas)
        self._line, self._looking = Line(), False
        self.asks: list[Ask] = []
        self._names: dict[Ask, str] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        for ask in trace:
            self._expect(ask)
        while self._events:
            self.now, _, event = heappop(self._events)
            event()

    @property
    def loads(self) -> int:
        """How many models were loaded."""
        return sum(each.loads for each in self.ollamas)

    def at(self, moment: float, event: Callable[[], None]) -> None:
        """Let `event` happen then."""
        heappush(self._events, (moment, next(self._numbers), event))

    def begin(self, ask: Ask) -> None:
        """It has its first token."""
        ask.began = self.now
        self.at(self.now + SURE_SECONDS, partial(self._count, ask))

    def end(self, ask: Ask) -> None:
        """It has its answer."""
        self._line.remove(self._names[ask])
        if self.now < ask.until:
            self._expect(replace(ask, at=self.now))
        self.advance()

    def advance(self) -> None:
        """Let those go whose turn it is."""
        running = [*self._line.running.values()]
        before = {*self._line.running}
        servers = [each.look(running) for each in self.ollamas] if self._models else []
        self._line.advance(self._rules, servers, self.now)
        for name in [*self._line.running]:
            if name not in before:
                self._ollama(self._line.running[name].server).send(self.asks[int(name)])
        if self._models and self._line.waiting and not self._looking:
            self._looking = True
            self.at(self.now + LOOK_SECONDS, self._look)

    def _ollama(self, name: str) -> Ollama:
        return next((each for each in self.ollamas if each.name == name), None) or next(self._turn)

    def _expect(self, ask: Ask) -> None:
        self._names[ask] = str(len(self.asks))
        self.asks.append(ask)
        self.at(ask.at, partial(self._come, ask))

    def _come(self, ask: Ask) -> None:
        client = ask.client if self._fair else ""
        self._line.add(self._names[ask], client, ask.model, self.now, seconds=ask.seconds)
        self.advance()

    def _count(self, ask: Ask) -> None:
        if self._line.begin(self._names[ask]):
            self.advance()

    def _look(self) -> None:
        self._looking = False
        self.advance()


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


def looping(seconds: float = 600) -> list[Ask]:
    """Three clients that use a model without a pause, and now and then a request for another one."""
    steady = [Ask(0.1 * number, f"c{number}", "a", 2.0, until=seconds) for number in range(3)]
    return [*steady, *(Ask(at, "other", "b", 2) for at in range(7, int(seconds), 60))]


def eight(seconds: float = 20) -> list[Ask]:
    """Eight clients ask for the model that one server has loaded."""
    return [Ask(0, f"c{number}", "a", seconds) for number in range(8)]


TRACES: dict[str, tuple[Callable[[], list[Ask]], Machine]] = {
    "alternating": (alternating, Machine()),
    "bursts": (bursts, Machine()),
    "greedy": (greedy, Machine()),
    "Zipf": (zipf, Machine(room=2)),
    "looping": (looping, Machine()),
    "room for both": (alternating, Machine(room=2)),
    "two servers": (lambda: zipf(every=2), Machine(room=2, servers=2)),
    "eight for one": (eight, Machine(room=2, servers=2, loaded="a")),
}
POLICIES: dict[str, tuple[bool, bool]] = {"first come": (False, False), "fair": (True, False), "ours": (True, True)}
"""Whether a policy is fair, and whether it knows the models."""

PATIENCE = 25.0
PATIENCES = (0, 5, 10, 15, 20, 25, 30, 60)
MAX_ACTIVE = 64


def measured(name: str, policy: str, patience: float = PATIENCE, max_active: int = MAX_ACTIVE) -> list[str]:
    """The cells of a row: total time, loads, mean, 95th percentile and longest wait, Jain's index of clients' waits."""
    make, machine = TRACES[name]
    fair, models = POLICIES[policy]
    run = Run(make(), machine, Rules(max_active, patience), fair=fair, models=models)
    trace = run.asks
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


def plot() -> str:
    """What the patience costs and brings, as a chart that Markdown can hold."""
    totals = [measured("alternating", "ours", each)[0] for each in PATIENCES]
    longest = [measured("looping", "ours", each)[4] for each in PATIENCES]
    return f"""```mermaid
xychart-beta
    title "alternating: total time (bars); looping: longest wait (line)"
    x-axis "patience, s" [{", ".join(map(str, PATIENCES))}]
    y-axis "seconds" 0 --> 100
    bar [{", ".join(totals)}]
    line [{", ".join(longest)}]
```"""


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
    print("\n" + plot())
    return 0


if __name__ == "__main__":
    sys.exit(main())
