"""The queue in front of Ollama, which is fair between clients: Ollama's own is not, and leaks handlers of clients that
leave.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

from gateway.errors import Busy, GatewayError
from gateway.jobs import Reason, Status
from gateway.streams.estimates import Estimates
from gateway.streams.line import Line
from gateway.streams.loads import Loads
from gateway.streams.places import Rules, Server
from gateway.upstream.servers import OllamaServer

SURE_SECONDS = 0.05
"""How long after its first token a request counts as one that runs. The one before it may have ended meanwhile: then it
was not seen that Ollama answers both at once.
"""


class Queue(Protocol):
    """A bounded number of tickets hold a slot, and a bounded number wait for one. `policy` says whose turn it is."""

    @property
    def waiting(self) -> int:
        """How many tickets of this process wait."""

    def waiting_of(self, caller: str) -> int:
        """How many of them this key or address has."""

    def contested(self, ticket: "Ticket") -> bool:
        """Whether others, in any process, wait for the slot that it has."""

    async def enter(self, caller: str, model: str, home: str = "") -> "Ticket":
        """Join the queue, for this key or address and this model. Raises `Busy` when there is no place left.

        `home` is the server that has answered the beginning of the conversation, if any.
        """

    def carries(self, ticket: "Ticket") -> bool:
        """Whether it alone asks Ollama for a model that others wait for."""

    def begin(self, ticket: "Ticket") -> None:
        """Note that the ticket's first token has come, so that its model is loaded."""

    def leave(self, ticket: "Ticket") -> None:
        """Give back a slot or a place in the queue; the tickets behind it move up. Leaving twice is fine."""


class Ticket:
    """A place in the queue, and later a slot at Ollama. `release` gives back whichever it is.

    `name` is unique in its queue; `caller` is the key or the address that it belongs to, and `model` what Ollama must
    have loaded for it. `home` is the server that it would rather go to, and `server` the one where it has a slot; both
    are empty where there is nothing to choose from.
    """

    def __init__(self, queue: Queue, name: str, caller: str, model: str, home: str = "") -> None:
        self.name, self.caller, self.model, self.home = name, caller, model, home
        self._queue = queue
        self.server = ""
        self.reason: Reason | None = None
        self.due: float | None = None
        """When its turn will probably come, by the loop's clock; None while nothing is known of that."""
        self.position: int | None = None
        """Its place in the queue, 1 being the next to go; 0 is a slot; None before it has been told."""
        self._shown: int | None = None
        # an asyncio.Queue would take 3 KiB of each stream
        self._moves: list[int | GatewayError] = []
        self._moved: asyncio.Future[None] | None = None

    async def admitted(self, moved: Callable[[], None]) -> None:
        """Wait for a slot, and call `moved` at each place on the way. Raises the error that it was refused with."""
        while True:
            for move in self._moves:
                if isinstance(move, GatewayError):
                    raise move
                if move == 0:
                    return
                self._shown = move
                moved()
            self._moves.clear()
            self._moved = asyncio.get_running_loop().create_future()
            await self._moved

    def keep(self, reason: Reason) -> None:
        """Wait once more, for this reason, with the slot and without a place."""
        self.reason, self._shown, self.due = reason, None, None

    def describe(self, status: Status, now: float) -> None:
        """Add to a status where it waits, as `moved` was called last, and why."""
        if self._shown is not None:
            status["position"] = self._shown
        if self.reason is not None:
            status["reason"] = self.reason
        if self.due is not None:
            status["eta_ms"] = max(round((self.due - now) * 1000), 0)

    @property
    def contested(self) -> bool:
        """Whether others wait for its slot."""
        return self._queue.contested(self)

    @property
    def carries(self) -> bool:
        """Whether it alone asks Ollama for a model that others wait for."""
        return self._queue.carries(self)

    def begin(self) -> None:
        """Tell the queue that the first token has come."""
        self._queue.begin(self)

    def release(self) -> None:
        """Leave the queue, or give the slot to the next ticket. It may be called twice."""
        self._queue.leave(self)

    def move(self, position: int) -> None:
        """Take `position` in the queue; 0 is a slot."""
        if position != self.position:
            self.position = position
            self._tell(position)

    def refuse(self, error: GatewayError) -> None:
        """End the wait with `error`, because there will be no slot."""
        self._tell(error)

    def _tell(self, move: int | GatewayError) -> None:
        self._moves.append(move)
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)


def full(active: int, waiting: int) -> Busy:
    """The error of a queue with no place left."""
    return Busy(f"{active} generations run and {waiting} wait already. Try again in a moment.")


class LocalQueue:
    """The queue of one process. See `Queue`. `servers` tell what they have loaded; without them that is not known."""

    def __init__(self, rules: Rules, max_queued: int, servers: Sequence[OllamaServer] = ()) -> None:
        self._rules = rules
        self._places = rules.max_active + max_queued
        self._line = Line()
        self._waiting: dict[str, Ticket] = {}
        self._names = count()
        self._now = asyncio.get_running_loop().time
        self._loads = Loads(servers, lambda: self._line, self._now, self._advance)
        self._estimates = Estimates()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def waiting_of(self, caller: str) -> int:
        return sum(ticket.caller == caller for ticket in self._waiting.values())

    def contested(self, ticket: Ticket) -> bool:
        return self._line.contested(ticket.name, self._rules)

    async def enter(self, caller: str, model: str, home: str = "") -> Ticket:
        running = len(self._line.running)
        if running + self.waiting >= self._places:
            raise full(running, self.waiting)
        ticket = Ticket(self, str(next(self._names)), caller, model, home)
        self._waiting[ticket.name] = ticket
        self._line.add(ticket.name, caller, model, self._now(), seconds=self._estimates.length(model), home=home)
        self._advance()
        return ticket

    def carries(self, ticket: Ticket) -> bool:
        return self._line.carries(ticket.name)

    def begin(self, ticket: Ticket) -> None:
        self._loads.note_loaded(ticket.model, ticket.server)
        self._estimates.begin(ticket.name, self._now())
        if not self._rules.parallel:
            asyncio.get_running_loop().call_later(SURE_SECONDS, self._count, ticket)

    def leave(self, ticket: Ticket) -> None:
        self._estimates.leave(ticket.name, self._now())
        self._waiting.pop(ticket.name, None)
        if self._line.remove(ticket.name):
            self._loads.note_end()
            self._advance()

    def _count(self, ticket: Ticket) -> None:
        if self._line.begin(ticket.name):
            self._advance()

    def _advance(self) -> None:
        if self._loads.ready():
            self._line.advance(self._rules, self._loads.servers, self._now())
        self._line.changed.clear()
        settle(self._waiting, self._line, self._rules, self._loads.servers, self._estimates, self._now())


def settle(
    waiting: dict[str, Ticket],
    line: Line,
    rules: Rules,
    servers: Sequence[Server],
    estimates: Estimates,
    now: float,
) -> list[Ticket]:
    """Tell these tickets their places in the line. Those that have a slot now are taken out, and returned."""
    admitted = [waiting.pop(name) for name in [*waiting] if name in line.running]
    for ticket in admitted:
        request = line.running[ticket.name]
        at = [each for each in servers if each.name == request.server]
        estimates.admit(ticket.name, ticket.model, now, loaded=all(each.model(request) in each.loaded for each in at))
        ticket.server = request.server
        ticket.move(0)
    if not waiting:
        return admitted
    clock = asyncio.get_running_loop().time()
    reasons = [*line.reasons(rules, servers, now)]
    order = [request for request, _ in reasons]
    waits = estimates.waits(order, line.running.values(), rules, servers, now, line.seen)
    for place, ((request, reason), seconds) in enumerate(zip(reasons, waits, strict=True), 1):
        if waits_here := waiting.get(request.name):
            waits_here.reason, waits_here.due = reason, None if seconds is None else clock + seconds
            waits_here.move(place)
    return admitted
