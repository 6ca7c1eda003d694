"""The claims of starts that must not happen twice, by their `Idempotency-Key`, which all replicas share in Redis."""

from typing import Any

from gateway.jobs import Claim
from gateway.replicas.connection import KEY_TTL_MS, busy_without_redis
from gateway.replicas.replica import Replica

TAKE = """
local held = redis.call('GET', KEYS[1])
if held then
  local sid, replica = string.match(held, '^(%S+) %S+ (%S+)$')
  if redis.call('EXISTS', ARGV[3] .. sid) == 1 or redis.call('EXISTS', ARGV[4] .. replica) == 1 then return held end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
"""Take a claim, unless it is held. One whose replica has died, and left no log, is not."""

FREE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

Held = tuple[str, str]
"""A claim that a stream holds: its key in Redis, and the value there."""


class Claims:
    """See `LogStore`. `ttl_ms` is how long a claim is kept without being renewed, once its stream has been created."""

    def __init__(self, replica: Replica, ttl_ms: int) -> None:
        self._replica = replica
        self._ttl_ms = ttl_ms
        self._taken: dict[str, Held] = {}  # by the id of a stream that is being created

    async def take(self, claim: Claim, sid: str) -> tuple[str, str]:
        """See `LogStore.claim`."""
        keys = self._replica.keys
        key, value = self._taken[sid] = keys.claim(claim.name), f"{sid} {claim.request} {self._replica.name}"
        try:
            with busy_without_redis():
                held = await self._replica.run("EVAL", TAKE, 1, key, value, KEY_TTL_MS, keys.log(""), keys.lease(""))
        except BaseException:
            self.free(sid)  # it may hold the claim, although no answer has come
            raise
        holder, request, _ = held.decode().split()
        if holder != sid:
            del self._taken[sid]
        return holder, request

    def free(self, sid: str) -> None:
        """See `LogStore.disclaim`."""
        if held := self._taken.pop(sid, None):
            self._replica.post("EVAL", FREE, 1, *held)

    def hand_over(self, sid: str) -> Held | None:
        """The claim of a stream that has been created, which keeps it from now on."""
        held = self._taken.pop(sid, None)
        if held:
            self._replica.post(*self.keeping(held))
        return held

    def keeping(self, held: Held) -> tuple[Any, ...]:
        """The command that renews a claim, or restores it. It outlives this replica, as the log of its stream does."""
        return "SET", *held, "PX", self._ttl_ms
