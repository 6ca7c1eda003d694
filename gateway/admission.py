"""The fair queue in front of Ollama.

Clients wait here and not in Ollama, which leaks the handler of a client that leaves its queue.
"""

import asyncio
from collections.abc import Callable

from gateway.errors import Busy


class Ticket:
    """A place in the queue, later a slot at Ollama. `release` gives back whichever it is; it may be called twice."""

    def __init__(self, admission: "Admission", on_move: Callable[[int], None]) -> None:
        self.position = 0
        self._admission = admission
        self._on_move = on_move
        self._admitted = asyncio.Event()

    async def admitted(self) -> None:
        """Until this ticket has a slot."""
        await self._admitted.wait()

    def release(self) -> None:
        self._admission.release(self)

    def move(self, position: int) -> None:
        """Take `position` in the queue; 0 is a slot."""
        if position == 0:
            self._admitted.set()
        elif position != self.position:
            self.position = position
            self._on_move(position)


class Admission:
    """At most `max_active` tickets hold a slot; at most `max_queued` wait, first come, first served."""

    def __init__(self, *, max_active: int, max_queued: int) -> None:
        self._max_active = max_active
        self._max_queued = max_queued
        self._active: set[Ticket] = set()
        self._queue: list[Ticket] = []

    @property
    def active(self) -> int:
        return len(self._active)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def check(self) -> None:
        """Raise `Busy` when there is no place left, before anything is made that would have to be unmade."""
        if len(self._active) >= self._max_active and len(self._queue) >= self._max_queued:
            raise Busy(f"{self.active} generations run and {self.queued} wait already. Try again in a moment.")

    def enter(self, on_move: Callable[[int], None]) -> Ticket:
        """Join the queue. `on_move` gets each new position, 1 being the next to go."""
        ticket = Ticket(self, on_move)
        self._queue.append(ticket)
        self._advance()
        return ticket

    def release(self, ticket: Ticket) -> None:
        """Give back a slot or a place in the queue; those behind move up."""
        if ticket in self._active:
            self._active.remove(ticket)
        elif ticket in self._queue:
            self._queue.remove(ticket)
        else:
            return
        self._advance()

    def _advance(self) -> None:
        while self._queue and len(self._active) < self._max_active:
            ticket = self._queue.pop(0)
            self._active.add(ticket)
            ticket.move(0)
        for position, ticket in enumerate(self._queue, 1):
            ticket.move(position)
