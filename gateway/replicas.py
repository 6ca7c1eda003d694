"""This process among its peers, by way of Redis: who lives, mail from one to another, and one reader for it all.

Whatever is written here has a TTL, so that Redis forgets replicas and streams that nobody looks after any more.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.errors import Busy

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
LEASE_SECONDS = 4.0
"""How long a replica counts as alive after its last beat."""

LOOK_SECONDS = 2.0
"""Between two looks at the leases. Two in a row must find none: after a pause of Redis every lease has run out,
and each living replica beats again before the second look."""

LOST_SECONDS = LEASE_SECONDS + 2 * LOOK_SECONDS
"""When the death of a replica, or the loss of Redis, is known at the latest."""

COMMAND_SECONDS = 5.0
RETRY_SECONDS = 0.25
BLOCK_MS = 1000
READ_AT_ONCE = 256
INBOX_LENGTH = 10_000
OUTBOX_LENGTH = 100_000
"""What is posted beyond it, while Redis is away, is lost: whatever matters is told again at the next renewal."""

KEY_TTL_MS = 60_000
RENEW_BEATS = 15
"""So many beats apart the keys that are needed get their TTL anew, and what Redis should know is told again."""

REPLICAS = "gateway:replicas"

LASTING = """
local answer = redis.call(unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return answer
"""

Fields = dict[bytes, bytes]
Handler = Callable[[bytes, Fields], None]


def lease_key(replica: str) -> str:
    return f"gateway:replica:{replica}"


def inbox_key(replica: str) -> str:
    return f"gateway:inbox:{replica}"


def lasting(*command: Any) -> tuple[Any, ...]:
    """A command that writes the key it names first, and at the same moment gives this `KEY_TTL_MS` to live."""
    return "EVAL", LASTING, 1, command[1], KEY_TTL_MS, *command


def connect(url: str, seconds: float = COMMAND_SECONDS) -> "Redis":
    """A client whose commands fail after `seconds`. A connection that has died since its last use is replaced."""
    return Redis.from_url(
        url,
        socket_timeout=seconds,
        socket_connect_timeout=COMMAND_SECONDS,
        retry=Retry(NoBackoff(), 1),
        protocol=2,
        driver_info=None,  # it reads files to tell Redis its version
    )


async def unreachable(url: str) -> str | None:
    """Why there is no Redis at `url`; None when there is."""
    try:
        async with connect(url) as redis:
            await redis.execute_command("PING")  # type: ignore[no-untyped-call]
    except (RedisError, OSError, ValueError) as error:
        return str(error)
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Redis being away is `busy` to a client."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise Busy("The gateway cannot reach its Redis (GATEWAY_REDIS_URL). Try again in a moment.") from error


class Replica:
    """One process of several. To be used as an async context manager; what it hears is told to the callbacks.

    `watched` tells of which replicas a death must be noticed in any case. `on_mail` gets each message from another
    replica, by its fields; `on_death` the name of a replica that is gone; `on_renewal` is called each `RENEW_BEATS`,
    and at once when Redis is new or this one was taken for dead: the keys that are needed get their TTL anew, and
    what may have been lost is told again; `on_outage` when Redis has done nothing for `LOST_SECONDS`.
    """

    def __init__(self, url: str) -> None:
        self.name = secrets.token_hex(8)
        self.on_mail: list[Callable[[Fields], None]] = []
        self.on_death: list[Callable[[str], Coroutine[None, None, None]]] = []
        self.on_renewal: list[Callable[[], Coroutine[None, None, None]]] = []
        self.on_outage: list[Callable[[], None]] = []
        self.watched: Callable[[], set[str]] = set
        self._redis = connect(url)
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
        self.follow(inbox_key(self.name), "0-0", self._mail)
        self._tasks = [
            asyncio.create_task(self._for_ever(step, pause), name=step.__name__)
            for step, pause in (
                (self._beat, BEAT_SECONDS),
                (self._look, LOOK_SECONDS),
                (self._read, 0.0),
                (self._deliver, 0.0),
            )
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True  # because redis-py may swallow a cancellation
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(RedisError, OSError):
            while self._outbox:
                await self._deliver()
            await self.run("SREM", REPLICAS, self.name)
            await self.run("DEL", lease_key(self.name), inbox_key(self.name))
        await self._redis.aclose()
        await self._reader.aclose()

    @property
    def silent_seconds(self) -> float:
        """How long Redis has not answered, or has refused what is written: it may be full, or a read-only copy."""
        return asyncio.get_running_loop().time() - min(self._read_at, self._beat_at)

    async def run(self, *command: Any) -> Any:
        """One command's answer. Raises `RedisError` or `OSError`."""
        return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def run_all(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Several commands in one round trip; an answer may be an exception. Raises as `run` does."""
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    def post(self, *command: Any) -> None:
        """Run a command soon, after those posted before, and again until Redis has answered: it must bear that."""
        if len(self._outbox) < OUTBOX_LENGTH:
            self._outbox.append(command)
        self._posted.set()

    def send(self, replica: str, what: str, sid: str, data: bytes = b"") -> None:
        """A message to another replica."""
        fields = ("what", what, "sid", sid, "from", self.name, "data", data)
        inbox = inbox_key(replica)
        self.post(*lasting("XADD", inbox, "MAXLEN", "~", INBOX_LENGTH, "*", *fields))

    def follow(self, key: str, after: str, handler: Handler) -> None:
        """Give every entry of the Redis stream `key` with an id above `after` to `handler`."""
        self._followed[key] = after, handler
        if self._tasks:
            self.send(self.name, "wake", "")  # or it would be read only when something else has come

    def unfollow(self, key: str) -> None:
        self._followed.pop(key, None)

    def trouble(self, error: Exception) -> None:
        """Redis has failed. Said once, until it answers again."""
        if not self._troubled:
            self._troubled = True
            logger.warning("Redis: %s", error)

    async def _for_ever(self, step: Callable[[], Coroutine[None, None, None]], pause: float) -> None:
        while not self._closing:
            try:
                await step()
            except (RedisError, OSError) as error:
                self.trouble(error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                logger.exception("a replica's %s failed", step.__name__)
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(pause)

    async def _beat(self) -> None:
        """Show that this replica lives, and now and then what it needs."""
        lease, lease_ms = lease_key(self.name), round(LEASE_SECONDS * 1000)
        new, *_ = await self.run_all(
            [
                lasting("SADD", REPLICAS, self.name),
                ("PEXPIRE", inbox_key(self.name), KEY_TTL_MS),
                ("PEXPIRE", lease, lease_ms),  # which a full Redis does, where it refuses the next
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
            self._beats_to_renewal = 0  # until all is done
            for callback in self.on_renewal:
                await callback()
            self._beats_to_renewal = RENEW_BEATS
        self._beats_to_renewal -= 1

    async def _look(self) -> None:
        """Find out who has died, and whether Redis itself is there."""
        if self.silent_seconds > LOST_SECONDS:
            if not self._lost:
                self._lost = True
                for give_up in self.on_outage:
                    give_up()
            return
        self._lost = False
        known = {name.decode() for name in await self.run("SMEMBERS", REPLICAS)} | self.watched()
        peers = sorted(known - {self.name})
        alive = await self.run_all([("EXISTS", lease_key(peer)) for peer in peers]) if peers else []
        absent = {peer for peer, answer in zip(peers, alive, strict=True) if answer == 0}
        dead, self._suspects = absent & self._suspects, absent
        for peer in dead:
            for callback in self.on_death:
                await callback(peer)
            await self.run("SREM", REPLICAS, peer)

    async def _read(self) -> None:
        """Wait for something new in any of the streams that are followed."""
        cursors = {key: after for key, (after, _) in self._followed.items()}
        answer = await self._reader.execute_command(  # type: ignore[no-untyped-call]
            "XREAD", "COUNT", READ_AT_ONCE, "BLOCK", BLOCK_MS, "STREAMS", *cursors, *cursors.values()
        )
        self._read_at = asyncio.get_running_loop().time()
        for name, entries in answer or ():
            for entry_id, fields in entries:
                self._hand_out(name.decode(), entry_id, fields)

    def _hand_out(self, key: str, entry_id: bytes, fields: Fields) -> None:
        if key not in self._followed:  # the one before it was the last that was wanted
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
        refused = next((place for place, answer in enumerate(answers) if isinstance(answer, Exception)), None)
        del self._outbox[: len(answers) if refused is None else refused]
        if refused is not None:
            raise answers[refused]  # and this one and those after it again, in their order

    def _mail(self, _: bytes, fields: Fields) -> None:
        if fields[b"what"] != b"wake":
            for callback in self.on_mail:
                callback(fields)
