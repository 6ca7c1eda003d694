"""Fixtures for all tests: an event loop that the gateway may not block, and common servers."""

import signal
import socket
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

from gateway.demo import Simulator
from tests.asks import quick
from tests.redis_server import Redis, redis_server

# What a script runs in the background ignores Ctrl-C, and so would every process that a test starts to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Times on a busy machine say nothing: an example of 0.05 ms has taken 283 ms there, which Hypothesis holds for a fault.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def no_blocking() -> Iterator[BlockBuster]:
    """A call below gateway code that would block the event loop (files, sleeps, locks, sockets) raises instead."""
    with blockbuster_ctx("gateway") as guard:
        for function in guard.functions.values():
            function.can_block_in("gateway/app.py", "_read_presets")  # at the start, and on SIGHUP
            function.can_block_in("coverage/collector.py", "lock_data")  # against the threads of hooks
        yield guard


@pytest.fixture(scope="session")
def redis_process() -> Iterator[Redis]:
    """A Redis for all tests of a session."""
    with redis_server() as redis:
        yield redis


@pytest.fixture
def redis(redis_process: Redis) -> Redis:
    """A Redis with nothing in it."""
    redis_process.run("FLUSHALL")
    return redis_process


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis that a test may fill, freeze and kill."""
    with redis_server() as redis:
        yield redis


@pytest.fixture
def simulator() -> Simulator:
    """An Ollama that answers without a pause."""
    return quick()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with any number of connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
def closed_port() -> Iterator[str]:
    """The URL of a port where nobody listens, and nobody else will."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def full_backlog() -> Iterator[str]:
    """The URL of a server whose kernel takes no more connections: a connect is neither accepted nor refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        for client in clients:
            client.close()
