"""The queue in front of Ollama that all replicas share, in Redis.

The line is one value with a version. A replica changes it by the same policy as a queue of one process, and Redis takes
the change only if the line is still the one that was changed; otherwise the replica begins again with the new one. So
each change is whole, however many replicas make changes, and one that is made twice does no harm. Every change that
concerns another replica is told to all; a message that is lost delays a ticket by a second at most.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import Self

import orjson
from redis.exceptions import RedisError

from gateway.errors import Busy
from gateway.replicas.connection import KEY_TTL_MS, busy_without_redis
from gateway.replicas.replica import RETRY_SECONDS, Fields, Member, Replica
from gateway.streams.estimates import Estimates
from gateway.streams.line import Line
from gateway.streams.loads import Loads
from gateway.streams.places import Rules
from gateway.streams.queue import SURE_SECONDS, Ticket, full, settle
from gateway.streams.turns import Request
from gateway.upstream.servers import OllamaServer

REFRESH_SECONDS = 1.0  # the line is looked at this often while a ticket waits: the message of a change may be lost

EXCHANGE = """
local time, version = redis.call('TIME'), redis.call('HGET', KEYS[1], '') or ''
if version ~= ARGV[2] then return {time, redis.call('HGETALL', KEYS[1])} end
if ARGV[3] ~= version then
  for index = 5, #ARGV, 2 do
    if ARGV[index + 1] == '' then
      redis.call('HDEL', KEYS[1], ARGV[index])
    else
      redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
    end
  end
  redis.call('HSET', KEYS[1], '', ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if ARGV[4] ~= '' then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 16, '*', 'by', ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
return {time, false}
"""
"""If the line has the version ARGV[2], set its fields to the values that follow ARGV[4], where an empty one deletes the
field, and its version to ARGV[3]; then tell all replicas that ARGV[4] has changed it, unless that is empty. Returns the
time, and if it had another version the whole line, whose version is the field without a name."""

UNREAD = "?"  # the version of no line: what Redis has must be read first


class SharedQueue(Member):
    """The queue of all replicas together. See `Queue`. Times in the line are by Redis's clock."""

    def __init__(
        self,
        replica: Replica,
        rules: Rules,
        max_queued: int,
        servers: Sequence[OllamaServer] = (),
    ) -> None:
        self._replica = replica
        self._rules = rules
        self._places = rules.max_active + max_queued
        self._ahead = 0.0  # of this process's clock
        self._loads = Loads(servers, lambda: self._line, self._now, lambda: self._changed.set())
        self._estimates = Estimates()
        self._active: dict[str, Ticket] = {}
        self._waiting: dict[str, Ticket] = {}  # one without a position has yet to enter
        self._begun: set[str] = set()  # names of tickets whose first token has come
        self._unsettled: dict[str, None] = {}  # names of tickets that may be here and not in the line, or the reverse
        self._line, self._version = Line(), UNREAD
        self._entered = self._changes = 0
        self._failed = 0  # the last ticket that had come when Redis failed
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closing = False
        replica.members.append(self)

    async def __aenter__(self) -> Self:
        self._replica.follow(self._replica.keys.turns, "$", self._hear)
        self._following = asyncio.create_task(self._follow(), name="turns")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True  # because redis-py may swallow a cancellation
        self._loads.close()
        self._following.cancel()
        await asyncio.wait([self._following])
        with suppress(RedisError, OSError):
            await self.renew()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def waiting_of(self, caller: str) -> int:
        return sum(ticket.caller == caller for ticket in self._waiting.values() if ticket.position is not None)

    def contested(self, ticket: Ticket) -> bool:
        self._changed.set()  # have the line looked at: others may wait since then
        return self._line.contested(ticket.name, self._rules)

    async def enter(self, caller: str, model: str, home: str = "") -> Ticket:
        self._entered = number = self._entered + 1
        ticket = Ticket(self, f"{self._replica.name}:{number}", caller, model, home)
        self._waiting[ticket.name] = ticket
        self._unsettled[ticket.name] = None
        try:
            with busy_without_redis():
                async with self._lock:
                    if number <= self._failed:  # otherwise each would wait for Redis once more, one after the other
                        raise ConnectionError
                    if ticket.position is None:  # otherwise it has entered with another one
                        await self._exchange()
        except BaseException:
            self.leave(ticket)
            raise
        if ticket.position is None:
            raise full(len(self._line.running), len(self._line.waiting))
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
        if self._waiting.pop(ticket.name, None) or self._active.pop(ticket.name, None):
            self._begun.discard(ticket.name)
            self._unsettled[ticket.name] = None
            self._loads.note_end()
            self._changed.set()

    def _count(self, ticket: Ticket) -> None:
        if ticket.name in self._active:  # how many run at once is learned by all replicas together
            self._begun.add(ticket.name)
            self._unsettled[ticket.name] = None
            self._changed.set()

    async def renew(self) -> None:
        """Let Redis know which tickets are held here, and that no others are.

        Redis may be new, may have taken this replica for dead, or may have taken a change although no answer came.
        """
        async with self._lock:
            await self._exchange()

    async def bury(self, replica: str) -> None:
        async with self._lock:
            await self._exchange(replica)

    def give_up(self) -> None:
        """Refuse all waiting tickets: without Redis nobody's turn comes."""
        for ticket in self._waiting.values():
            ticket.refuse(Busy("The gateway has lost its Redis, which holds the queue. Try again in a moment."))

    def _hear(self, _: bytes, fields: Fields) -> None:
        if self._waiting and fields[b"by"].decode() != self._replica.name:
            self._changed.set()

    async def _follow(self) -> None:
        """Bring what leaves here to Redis, and look at the line while a ticket waits."""
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._changed.wait()
            if not (self._changed.is_set() or self._waiting):
                continue
            self._changed.clear()
            try:
                await self.renew()
            except (RedisError, OSError) as error:
                self._changed.set()
                self._replica.report(error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _exchange(self, dead: str = "") -> None:
        """Bring the line and the tickets here into agreement, without the replica `dead`, and tell them their places.

        Raises `RedisError` or `OSError`.
        """
        while True:
            concerned = any(_owner(name) != self._replica.name for name in self._line.waiting)
            self._reconcile(dead)
            if self._loads.ready():
                self._line.advance(self._rules, self._loads.servers, self._now())
            refused = self._refuse()
            version, self._version = self._version, UNREAD  # unless the answer comes
            changes = [word for name in sorted(self._line.changed) for word in (name, self._record(name))]
            if changes:
                self._changes += 1
            new = f"{self._replica.name}:{self._changes}" if changes else version
            by = self._replica.name if changes and concerned else ""
            keys = 2, self._replica.keys.line, self._replica.keys.turns
            try:
                command = "EVAL", EXCHANGE, *keys, KEY_TTL_MS, version, new, by, *changes
                (seconds, micros), newer = await self._replica.run_first(*command)
            except (RedisError, OSError):
                self._failed = self._entered
                raise
            self._ahead = int(seconds) + int(micros) / 1e6 - asyncio.get_running_loop().time()
            if newer is None:
                break
            self._read(newer)
        self._version = new
        self._line.changed.clear()
        for name in refused:
            self._waiting.pop(name, None)
        admitted = settle(self._waiting, self._line, self._rules, self._loads.servers, self._estimates, self._now())
        self._active |= {ticket.name: ticket for ticket in admitted}

    def _now(self) -> float:
        return asyncio.get_running_loop().time() + self._ahead

    def _reconcile(self, dead: str) -> None:
        """Have in the line what is held here and nothing else of this replica, and nothing of the replica `dead`."""
        names, self._unsettled = self._unsettled, {}
        for name in names:
            ticket = self._waiting.get(name) or self._active.get(name)
            if ticket is None:
                self._line.remove(name)
            elif name not in self._line.waiting and name not in self._line.running:
                server = ticket.server if name in self._active else None
                seconds, now = self._estimates.length(ticket.model), self._now()
                self._line.add(name, ticket.caller, ticket.model, now, seconds=seconds, home=ticket.home, server=server)
            if name in self._begun:
                self._line.begin(name)
        for name in [*self._line.waiting, *self._line.running] if dead else ():
            if _owner(name) == dead:
                self._line.remove(name)

    def _refuse(self) -> list[str]:
        """Take the tickets out of the line that would enter here, but for which there is no place."""
        entering = [name for name, ticket in self._waiting.items() if ticket.position is None]
        entering = [name for name in entering if name in self._line.waiting]
        running = min(len(self._line.running), self._rules.max_active)
        beyond = min(len(self._line.waiting) + running - self._places, len(entering))
        refused = entering[-beyond:] if beyond > 0 else []
        for name in refused:
            self._line.remove(name)
        return refused

    def _record(self, name: str) -> bytes:
        """A request as it is stored; empty if it is not in the line any more."""
        request = self._line.waiting.get(name) or self._line.running.get(name)
        if request is None:
            return b""
        running = name in self._line.running
        return orjson.dumps([running, *astuple(request)[1:]])

    def _read(self, stored: list[bytes]) -> None:
        """Take over the line that Redis has."""
        fields = dict(zip(stored[::2], stored[1::2], strict=True))
        self._version = fields.pop(b"", b"").decode()
        self._line = Line(seen=self._line.seen)
        records = [(orjson.loads(record), name.decode()) for name, record in fields.items()]
        for (running, *record), name in sorted(records, key=lambda each: each[0][3]):
            self._line.put(Request(name, *record), running=running)
        own = (name for name in [*self._line.waiting, *self._line.running] if _owner(name) == self._replica.name)
        self._unsettled = dict.fromkeys([*self._active, *self._waiting, *own])


def _owner(name: str) -> str:
    """The replica that a ticket belongs to."""
    return name.rpartition(":")[0]
