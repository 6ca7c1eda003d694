"""The fair queue in front of Ollama that all replicas share, in Redis.

Two sorted sets hold the tickets that wait and those that have a slot, both in the order in which Redis saw them come.
Every change is told to all replicas; each then looks where its own tickets stand. So a message that is lost delays a
ticket by a second at most.
"""

import asyncio
from typing import Any

from redis.exceptions import RedisError

from gateway.admission import Ticket, full
from gateway.errors import Busy
from gateway.replicas import KEY_TTL_MS, RETRY_SECONDS, Fields, Replica, translated

QUEUE, ACTIVE, TURNS = "gateway:queue", "gateway:active", "gateway:turns"

LOOK_AGAIN_SECONDS = 1.0

CHANGE = """
local queue, active, turns = KEYS[1], KEYS[2], KEYS[3]
local what, ticket, max_active, max_queued, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local changed = false
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local function missing(member)
  return not redis.call('ZSCORE', active, member) and not redis.call('ZSCORE', queue, member)
end
if what == 'enter' then
  if missing(ticket) then
    local running, waiting = redis.call('ZCARD', active), redis.call('ZCARD', queue)
    if running >= max_active and waiting >= max_queued then return {-1, running, waiting} end
    redis.call('ZADD', queue, now(), ticket)
  end
elseif what == 'leave' then
  changed = redis.call('ZREM', queue, ticket) + redis.call('ZREM', active, ticket) > 0
elseif what == 'hold' then
  local newest, held = tonumber(ARGV[6]), {}
  for index = 7, #ARGV, 2 do
    local member, state = ARGV[index], ARGV[index + 1]
    held[member] = true
    if state == 'active' and missing(member) then redis.call('ZADD', active, now(), member) end
    if state == 'queued' and missing(member) then redis.call('ZADD', queue, now() + index, member) end
  end
  for _, set in ipairs({queue, active}) do
    for _, member in ipairs(redis.call('ZRANGE', set, 0, -1)) do
      local number = string.sub(member, 1, #ticket) == ticket and tonumber(string.sub(member, #ticket + 1))
      if number and number <= newest and not held[member] then
        redis.call('ZREM', set, member)
        changed = true
      end
    end
  end
end
while redis.call('ZCARD', active) < max_active do
  local next = redis.call('ZPOPMIN', queue)
  if #next == 0 then break end
  redis.call('ZADD', active, next[2], next[1])
  if next[1] ~= ticket then changed = true end
end
redis.call('PEXPIRE', queue, ttl)
redis.call('PEXPIRE', active, ttl)
if changed then
  redis.call('XADD', turns, 'MAXLEN', '~', 16, '*', 'by', ticket)
  redis.call('PEXPIRE', turns, ttl)
end
local place = redis.call('ZRANK', queue, ticket)
return {place and place + 1 or 0, 0, 0}
"""
"""Enter, leave, or `hold` of a replica's tickets up to the number `newest` these and no others; then give free slots to
those who wait longest. Returns the ticket's place, or -1 if full."""

NO_MORE = 2**53
"""Above the number of every ticket."""

PLACES = """
local places = {}
for index, ticket in ipairs(ARGV) do
  local place = redis.call('ZRANK', KEYS[1], ticket)
  places[index] = place and place + 1 or (redis.call('ZSCORE', KEYS[2], ticket) and 0 or -1)
end
return places
"""
"""Where each ticket stands: 0 is a slot, -1 is nowhere."""


class SharedAdmission:
    """`Admission` for all replicas together. `active` and `queued` count this replica's own."""

    def __init__(self, replica: Replica, *, max_active: int, max_queued: int) -> None:
        self._replica = replica
        self._max_active = max_active
        self._max_queued = max_queued
        self._active: dict[Ticket, str] = {}
        self._queue: dict[Ticket, str] = {}
        self._entering: set[str] = set()
        self._count = 0
        self._moved = asyncio.Event()
        self._closing = False
        replica.on_renewal.append(self._hold)
        replica.on_death.append(self._bury)
        replica.on_outage.append(self._give_up)

    async def __aenter__(self) -> "SharedAdmission":
        self._replica.follow(TURNS, "$", self._hear)
        self._watch = asyncio.create_task(self._look_for_ever(), name="turns")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True  # because redis-py may swallow a cancellation
        self._watch.cancel()
        await asyncio.wait([self._watch])

    @property
    def active(self) -> int:
        return len(self._active)

    @property
    def queued(self) -> int:
        return len(self._queue)

    async def enter(self) -> Ticket:
        """Join the queue. Raises `Busy` when there is no place left, or no Redis."""
        self._count += 1
        ticket, name = Ticket(self), f"{self._replica.name}:{self._count}"
        self._entering.add(name)
        try:
            with translated():
                place, running, waiting = await self._replica.run(*self._change("enter", name))
        except BaseException:
            self._replica.post(*self._change("leave", name))  # it may have entered, unheard
            raise
        finally:
            self._entering.discard(name)
        if place < 0:
            raise full(running, waiting)
        if place:
            self._queue[ticket] = name
        else:
            self._active[ticket] = name
        ticket.move(place)
        return ticket

    def release(self, ticket: Ticket) -> None:
        """Give back a slot or a place in the queue; those behind move up."""
        name = self._active.pop(ticket, None) or self._queue.pop(ticket, None)
        if name is not None:
            self._replica.post(*self._change("leave", name))

    def _change(self, what: str, ticket: str) -> tuple[Any, ...]:
        limits = self._max_active, self._max_queued, KEY_TTL_MS
        return "EVAL", CHANGE, 3, QUEUE, ACTIVE, TURNS, what, ticket, *limits

    def _hear(self, _: bytes, fields: Fields) -> None:
        self._moved.set()

    async def _look_for_ever(self) -> None:
        while not self._closing:
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._moved.wait()
            except TimeoutError:
                pass
            self._moved.clear()
            try:
                await self._look()
            except (RedisError, OSError) as error:
                self._replica.trouble(error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _look(self) -> None:
        """See where this replica's waiting tickets stand."""
        if not self._queue:
            return
        asked = dict(self._queue)
        places = await self._replica.run("EVAL", PLACES, 2, QUEUE, ACTIVE, *asked.values())
        for ticket, place in zip(asked, places, strict=True):
            if ticket not in self._queue:  # it has left meanwhile
                continue
            if place == 0:
                self._active[ticket] = self._queue.pop(ticket)
            if place >= 0:
                ticket.move(place)
        if -1 in places:
            await self._hold()

    async def _hold(self) -> None:
        """Let Redis know what is held, and nothing else: it may be new, may have taken this replica for dead, or may
        have run an `enter` that was given up only after its `leave`."""
        states = ("active", self._active.values()), ("queued", self._queue.values()), ("entering", self._entering)
        held = [word for state, names in states for name in names for word in (name, state)]
        await self._replica.run(*self._change("hold", f"{self._replica.name}:"), self._count, *held)

    async def _bury(self, replica: str) -> None:
        await self._replica.run(*self._change("hold", f"{replica}:"), NO_MORE)

    def _give_up(self) -> None:
        """Without Redis nobody's turn comes."""
        for ticket in list(self._queue):
            ticket.refuse(Busy("The gateway has lost its Redis, which holds the queue. Try again in a moment."))
