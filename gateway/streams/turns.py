"""Whose turn it is: clients with the fewest requests running first, then those served least recently. Pure."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count


@dataclass(frozen=True, slots=True)
class Request:
    """A request in the line, or one that has a slot. `model` is what must be loaded for it, as `wire.model_key` has it.

    Numbers count what happens in the line, because the clocks of several replicas differ. `number` says when the
    request came, or got its slot; `turn`, when its client was last given a slot or gave one back, or when it came if
    that is later. `since` is the time of `number` in seconds, by a clock that all who use the line share. `seconds` is
    how long its answer will probably take, 0 if that is not known. `home` is the server that has answered the beginning
    of its conversation, `server` the one where it has its slot, and `begun` tells whether its first token has come.
    """

    name: str
    caller: str
    model: str
    number: int
    turn: int
    since: float
    seconds: float = 0
    home: str = ""
    server: str = ""
    begun: bool = False


Rank = tuple[int, int, int, tuple[str, str]]
"""The lowest goes next: how much of its client runs, its client's turn, its number, and its client and model."""


class Turns:
    """The clients that wait. With `models`, requests of a client for different models are not held up by each other."""

    def __init__(self, waiting: Sequence[Request], running: Sequence[Request], *, models: bool) -> None:
        self._running = Counter(each.caller for each in running)
        self._waiting: dict[tuple[str, str], deque[Request]] = {}
        self._turn: dict[str, int] = {}
        for each in waiting:
            self._waiting.setdefault((each.caller, each.model if models else ""), deque()).append(each)
            self._turn.setdefault(each.caller, each.turn)
        self._count = count(max((each.turn for each in waiting), default=0) + 1)
        self._ranks: list[Rank] = []
        self._valid: dict[tuple[str, str], Rank] = {}  # the rank that counts, of all that stand in the heap
        for group in self._waiting:
            self._push(group)

    def next(self, may_go: Callable[[Request], bool]) -> Request | None:
        """Take out the request whose turn it is, of those that may go; one that may not is never asked for again."""
        while self._ranks:
            rank = heappop(self._ranks)
            group = rank[-1]
            if rank is not self._valid[group]:
                continue
            if rank != self._rank(group):  # its client was served for another model meanwhile
                self._push(group)
            elif may_go(self._waiting[group][0]):
                request = self._waiting[group].popleft()
                self._serve(group, 1)
                return request
        return None

    def end(self, caller: str) -> None:
        """A request of this client has ended. Only without `models`."""
        self._serve((caller, ""), -1)

    def _serve(self, group: tuple[str, str], more: int) -> None:
        self._running[group[0]] += more
        self._turn[group[0]] = next(self._count)
        if self._waiting.get(group):
            self._push(group)

    def _push(self, group: tuple[str, str]) -> None:
        self._valid[group] = self._rank(group)
        heappush(self._ranks, self._valid[group])

    def _rank(self, group: tuple[str, str]) -> Rank:
        return self._running[group[0]], self._turn[group[0]], self._waiting[group][0].number, group
