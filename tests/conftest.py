"""What holds for all tests: the event loop they run in, and that the gateway never blocks it."""

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest
import uvloop
from blockbuster import BlockBuster, blockbuster_ctx

from tests.redis_server import Redis, redis_server

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """asyncio's own loop; a test may ask for uvloop, which serves in production, by its `asyncio` marker."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    marker = item.get_closest_marker("asyncio")
    if marker is not None and "loop_factories" in marker.kwargs:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


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
