"""This process among its peers, by way of Redis: which of them are alive, the messages between them, and one reader.

Everything that is written here has a time to live, so that Redis forgets replicas and streams that nobody renews.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

from redis.exceptions import RedisError

from gateway.replicas.connection import (
    COMMAND_SECONDS,
    KEY_TTL_MS,
    LOOKUP_CONNECTIONS,
    Keys,
    connect,
    execute,
    lasting,
)

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
LEASE_SECONDS = 4.0  # how long a replica counts as alive after its last beat
CHECK_SECONDS = 2.0
"""The time between two checks of the leases. A replica is dead when two checks in a row find no lease: after a pause of
Redis all leases have run out at once, and each living replica beats again before the second check."""

LOST_SECONDS = LEASE_SECONDS + 2 * CHECK_SECONDS  # within which a replica's death, or the loss of Redis, is noticed
RETRY_SECONDS = 0.25  # the pause after Redis has failed
RENEW_BEATS = 15  # after which all that is still needed is renewed in Redis, and told again

BLOCK_MS = 1000
READ_AT_ONCE = 256
INBOX_LENGTH = 10_000
OUTBOX_LENGTH = 100_000
"""Commands that are posted beyond it while Redis is away are lost. What matters is sent again by the next renewal."""

Fields = dict[bytes, bytes]
Handler = Callable[[bytes, Fields], None]


class Member:
    """A part of this process that shares something with the other replicas. Subclasses override what concerns them."""

    def partners(self) -> set[str]:
        """The replicas whose death this part must hear of, even when Redis has forgotten them."""
        return set()

    def receive(self, fields: Fields) -> None:
        """Handle a message from another replica, given by its fields."""

    async def bury(self, replica: str) -> None:
        """Clean up after another replica, which is gone."""

    async def renew(self) -> None:
        """Renew the keys that are needed, and tell again what may have been lost.

        Called every `RENEW_BEATS`, and at once when Redis is new or took this replica for dead.
        """

    def give_up(self) -> None:
        """Stop waiting for Redis, which has done nothing for `LOST_SECONDS`."""


class Replica:
    """One process of several. Use it as an async context manager; its `members` are told what it hears."""

    def __init__(self, url: str, prefix: str = "gateway:") -> None:
        self.keys = Keys(prefix)
        self.name = secrets.token_hex(8)
        self.members: list[Member] = []
        self._redis = connect(url)
        self._lookups = connect(url, connections=LOOKUP_CONNECTIONS)
        self._life = connect(url)  # a burst of commands must not keep this replica from showing that it is alive
        self._reader = connect(url, COMMAND_SECONDS + BLOCK_MS / 1000)
        self._followed: dict[str, tuple[str, Handler]] = {}
        self._outbox: list[tuple[Any, ...]] = []
        self._posted = asyncio.Event()
        self._suspects: set[str] = set()
        self._read_at = self._beat_at = asyncio.get_running_loop().time()
        self._lost = self._troubled = False
        self._beats_to_renewal = 0
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._beat()
        self.follow(self.keys.inbox(self.name), "0-0", self._receive)
        steps = (self._beat, BEAT_SECONDS), (self._check_peers, CHECK_SECONDS), (self._read, 0.0), (self._deliver, 0.0)
        self._tasks = [asyncio.create_task(self._repeat(step, pause), name=step.__name__) for step, pause in steps]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True  # because redis-py may swallow a cancellation
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(RedisError, OSError):
            while self._outbox:
                await self._deliver()
            await self.run("SREM", self.keys.replicas, self.name)
            await self.run("DEL", self.keys.lease(self.name), self.keys.inbox(self.name))
        for redis in (self._redis, self._lookups, self._life, self._reader):
            await redis.aclose()

    @property
    def silent_seconds(self) -> float:
        """How long Redis has not answered, or has refused all writes: it may be full, or a read-only copy."""
        return asyncio.get_running_loop().time() - min(self._read_at, self._beat_at)

    async def run(self, *command: Any) -> Any:
        """One command's answer. Raises `RedisError` or `OSError`."""
        return await execute(self._redis, *command)

    async def look_up(self, *command: Any) -> Any:
        """The same, for what anybody may ask for: many of these commands wait for one another, and for nothing else."""
        return await execute(self._lookups, *command)

    async def run_first(self, *command: Any) -> Any:
        """As `run`, but not behind a burst of other commands."""
        return await execute(self._life, *command)

    async def run_all(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Several commands in one round trip. An answer may be an exception. Raises as `run` does."""
        pipeline = self._life.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    def post(self, *command: Any) -> None:
        """Run a command soon, after those posted before. It must do no harm if it runs twice: an answer can be lost."""
        if len(self._outbox) < OUTBOX_LENGTH:
            self._outbox.append(command)
        self._posted.set()

    def send(self, replica: str, what: str, sid: str, data: bytes = b"") -> None:
        """Send a message to another replica."""
        fields = ("what", what, "sid", sid, "from", self.name, "data", data)
        self.post(*lasting("XADD", self.keys.inbox(replica), "MAXLEN", "~", INBOX_LENGTH, "*", *fields))

    def follow(self, key: str, after: str, handler: Handler) -> None:
        """Give every entry of the Redis stream `key` with an id above `after` to `handler`."""
        self._followed[key] = after, handler
        if self._tasks:
            self.send(self.name, "wake", "")  # otherwise the key would be read only when something else has come

    def unfollow(self, key: str) -> None:
        """Stop reading the Redis stream `key`."""
        self._followed.pop(key, None)

    def report(self, error: Exception) -> None:
        """Log that Redis has failed, once until it answers again."""
        if not self._troubled:
            self._troubled = True
            logger.warning("Redis: %s", error)

    async def _repeat(self, step: Callable[[], Coroutine[None, None, None]], pause: float) -> None:
        while not self._closing:
            try:
                await step()
            except (RedisError, OSError) as error:
                self.report(error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                logger.exception("a replica's %s failed", step.__name__)
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(pause)

    async def _beat(self) -> None:
        """Show that this replica is alive, and every `RENEW_BEATS` have its members renew what they need."""
        lease, lease_ms = self.keys.lease(self.name), round(LEASE_SECONDS * 1000)
        new, *_ = await self.run_all(
            [
                lasting("SADD", self.keys.replicas, self.name),
                ("PEXPIRE", self.keys.inbox(self.name), KEY_TTL_MS),
                ("PEXPIRE", lease, lease_ms),  # a full Redis still does this, where it refuses the next command
                ("SET", lease, "", "PX", lease_ms),
            ]
        )
        if isinstance(new, Exception):
            raise new
        self._beat_at = asyncio.get_running_loop().time()
        if self._troubled:
            self._troubled = False
            logger.info("Redis answers again.")
        if new or self._beats_to_renewal == 0:
            self._beats_to_renewal = 0  # a failure on the way starts the renewal again at the next beat
            for member in self.members:
                await member.renew()
            self._beats_to_renewal = RENEW_BEATS
        self._beats_to_renewal -= 1

    async def _check_peers(self) -> None:
        """Find out which replicas have died, and whether Redis itself is there."""
        if self.silent_seconds > LOST_SECONDS:
            if not self._lost:
                self._lost = True
                for member in self.members:
                    member.give_up()
            return
        self._lost = False
        known = {name.decode() for name in await self.run("SMEMBERS", self.keys.replicas)}
        peers = sorted(known.union(*(member.partners() for member in self.members)) - {self.name})
        alive = await self.run_all([("EXISTS", self.keys.lease(peer)) for peer in peers]) if peers else []
        absent = {peer for peer, answer in zip(peers, alive, strict=True) if answer == 0}
        dead, self._suspects = absent & self._suspects, absent
        for peer in dead:
            for member in self.members:
                await member.bury(peer)
            await self.run("SREM", self.keys.replicas, peer)

    async def _read(self) -> None:
        """Wait for something new in any of the Redis streams that are followed."""
        cursors = {key: after for key, (after, _) in self._followed.items()}
        options = ("COUNT", READ_AT_ONCE, "BLOCK", BLOCK_MS)
        answer = await execute(self._reader, "XREAD", *options, "STREAMS", *cursors, *cursors.values())
        self._read_at = asyncio.get_running_loop().time()
        for name, entries in answer or ():
            for entry_id, fields in entries:
                self._dispatch(name.decode(), entry_id, fields)

    def _dispatch(self, key: str, entry_id: bytes, fields: Fields) -> None:
        if key not in self._followed:  # the handler of an earlier entry has stopped following it
            return
        handler = self._followed[key][1]
        self._followed[key] = entry_id.decode(), handler
        try:
            handler(entry_id, fields)
        except Exception:
            logger.exception("an entry of %s failed", key.rpartition(":")[0])

    async def _deliver(self) -> None:
        if not self._outbox:
            self._posted.clear()
            await self._posted.wait()
        answers = await self.run_all(self._outbox[:READ_AT_ONCE])
        refused = next((index for index, answer in enumerate(answers) if isinstance(answer, Exception)), None)
        del self._outbox[: len(answers) if refused is None else refused]
        if refused is not None:
            raise answers[refused]  # the refused command and those after it are retried in order

    def _receive(self, _: bytes, fields: Fields) -> None:
        if fields[b"what"] != b"wake":
            for member in self.members:
                member.receive(fields)
