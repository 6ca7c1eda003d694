"""The fair queue in front of Ollama.

Clients wait here and not in Ollama, which leaks the handler of a client that leaves its queue.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.errors import Busy, GatewayError


class Admission(Protocol):
    """At most so many tickets hold a slot; at most so many wait, first come, first served."""

    @property
    def active(self) -> int:
        """How many hold a slot."""
        ...

    @property
    def queued(self) -> int:
        """How many wait."""
        ...

    async def enter(self) -> "Ticket":
        """Join the queue. Raises `Busy` when there is no place left."""
        ...

    def release(self, ticket: "Ticket") -> None:
        """Give back a slot or a place in the queue; those behind move up."""
        ...


class Ticket:
    """A place in the queue, later a slot at Ollama. `release` gives back whichever it is; it may be called twice.

    `on_move` gets each new `position`, 1 being the next to go.
    """

    def __init__(self, admission: Admission) -> None:
        self.position = 0
        self.on_move: Callable[[int], None] | None = None
        self._admission = admission
        self._admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def admitted(self) -> None:
        """Until this ticket has a slot. Raises what it was refused with."""
        await self._admitted

    def release(self) -> None:
        self._admission.release(self)

    def move(self, position: int) -> None:
        """Take `position` in the queue; 0 is a slot."""
        if position == 0:
            if not self._admitted.done():
                self._admitted.set_result(None)
        elif position != self.position:
            self.position = position
            if self.on_move is not None:
                self.on_move(position)

    def refuse(self, error: GatewayError) -> None:
        """There will be no slot."""
        if not self._admitted.done():
            self._admitted.set_exception(error)


def full(active: int, queued: int) -> Busy:
    """There is no place left."""
    return Busy(f"{active} generations run and {queued} wait already. Try again in a moment.")


class LocalAdmission:
    """The queue of this process alone. See `Admission`."""

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

    async def enter(self) -> Ticket:
        if self.active >= self._max_active and self.queued >= self._max_queued:
            raise full(self.active, self.queued)
        ticket = Ticket(self)
        self._queue.append(ticket)
        self._advance()
        return ticket

    def release(self, ticket: Ticket) -> None:
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
