"""Connections to Redis, and what its failures mean to a client."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.errors import Busy

MAX_CONNECTIONS = 50  # of one client: commands beyond that wait for one another
LOOKUP_CONNECTIONS = 8
"""Those of look-ups: anybody may ask for any id, also without a key, and that must hold up no start."""

COMMAND_SECONDS = 5.0  # how long a command may take
KEY_TTL_MS = 60_000  # how long a key lives after it was last renewed

LASTING = """
local answer = redis.call(unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return answer
"""


def lasting(*command: Any) -> tuple[Any, ...]:
    """A command that writes the key it names first and, atomically, gives that key `KEY_TTL_MS` to live."""
    return "EVAL", LASTING, 1, command[1], KEY_TTL_MS, *command


def connect(url: str, seconds: float = COMMAND_SECONDS, connections: int = MAX_CONNECTIONS) -> Redis:
    """A client whose commands fail after `seconds`. A connection that has died since its last use is replaced."""
    pool = BlockingConnectionPool.from_url(  # any other raises when all its connections are in use
        url,
        max_connections=connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=COMMAND_SECONDS,
        retry=Retry(NoBackoff(), 1),
        protocol=2,
        driver_info=None,  # otherwise it would read files to tell Redis its version
    )
    return Redis.from_pool(pool)


async def execute(redis: Redis, *command: Any) -> Any:
    return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def unreachable(url: str) -> str | None:
    """Why there is no Redis at `url`; None when there is one."""
    try:
        async with connect(url) as redis:
            await execute(redis, "PING")
    except (RedisError, OSError, ValueError) as error:
        return str(error)
    return None


class Keys:
    """The names of all keys of one deployment, which share a prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.replicas = f"{prefix}replicas"
        self.line = f"{prefix}line"
        self.turns = f"{prefix}turns"
        self.logouts = f"{prefix}logouts"
        self.logout_news = f"{prefix}logouts:news"

    def lease(self, replica: str) -> str:
        return f"{self._prefix}replica:{replica}"

    def inbox(self, replica: str) -> str:
        """Of the messages to a replica."""
        return f"{self._prefix}inbox:{replica}"

    def log(self, sid: str) -> str:
        return f"{self._prefix}log:{sid}"

    def claim(self, name: str) -> str:
        return f"{self._prefix}claim:{name}"


@contextmanager
def busy_without_redis() -> Iterator[None]:
    """Turn a failure of Redis into `busy`, for a client."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise Busy("The gateway cannot reach its Redis (GATEWAY_REDIS_URL). Try again in a moment.") from error
