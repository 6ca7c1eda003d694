"""A process that has as many files open as it may: what runs goes on, and what is lost is told."""

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from gateway.errors import Busy
from gateway.upstream.client import OllamaClient
from gateway.web.files import MOST_FILES
from tests.asks import STORY_PATH, quick
from tests.processes import INSTALLED, process
from tests.servers import serve
from tests.sse import Events, ending
from tests.waits import until

LIMIT = 64


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def test_connections_beyond_the_limit_of_open_files_are_closed_and_all_else_goes_on(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(quick(token_rate=5).app))
        gw = await stack.enter_async_context(
            process(tmp_path, f"--ollama-url={url}", "--max-active=4", "--drain-seconds=0", shell=f"ulimit -n {LIMIT}")
        )
        connector = aiohttp.TCPConnector(keepalive_timeout=60)  # as long as the flood may take
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        running = Events(await stack.enter_async_context(session.get(f"{gw.url}{STORY_PATH}")))
        await running.next()
        async with session.get(gw.url + "/healthz") as response:
            assert response.status == 200
            await response.read()  # or the session may not keep its connection

        address = urlsplit(gw.url)
        for _ in range(3):
            with ExitStack() as flood:
                sockets = [flood.enter_context(socket.socket()) for _ in range(3 * LIMIT)]
                for sock in sockets:
                    sock.setblocking(False)
                    sock.connect_ex((address.hostname, address.port))
                await until(lambda: sum(map(is_closed, sockets)) > 2 * LIMIT, 60)  # noqa: B023
                async with session.get(f"{gw.url}/api/chat?model=fault:burst-20&prompt=Hi") as response:
                    assert ending([event async for event in Events(response)]) == ("complete", None)
                await running.next()

        async with aiohttp.ClientSession() as another:
            while True:
                with suppress(aiohttp.ClientConnectionError):
                    async with another.get(gw.url + "/healthz") as response:
                        assert response.status == 200
                        break
        gw.terminate()
        await gw.ended()
    said = "\n".join(gw.log)
    assert "GATEWAY_MAX_ACTIVE and GATEWAY_MAX_QUEUED need 364 open files, but the limit is 64" in said
    assert 1 <= said.count("new connections are closed") <= 3  # once a minute
    assert "Traceback" not in said


def test_the_limit_is_raised_as_far_as_it_may_be() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for shell, limit in {"ulimit -Sn 64": min(hard, MOST_FILES), "ulimit -n 64": 64}.items():
        show = "from gateway.web.files import raise_limit; print(raise_limit()); import os; os.system('ulimit -n')"
        command = ("sh", "-c", f'{shell} && exec "$@"', "sh", sys.executable, "-c", show)
        environment = {"PYTHONPATH": str(INSTALLED)}
        ended = subprocess.run(command, check=True, env=environment, capture_output=True, text=True, timeout=60)
        assert ended.stdout.split() == [str(limit)] * 2


@contextmanager
def no_file_left() -> Iterator[None]:
    """This process may open no file, for a moment."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as lowest:
        number = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_file_left_is_not_said_of_ollama(host: str) -> None:
    client = OllamaClient(f"http://{host}:9", connect_timeout=5, query_timeout=5, max_line=100)
    async with client:
        with no_file_left(), pytest.raises(Busy, match="too many files open"):
            await client.version()
        with no_file_left(), pytest.raises(Busy, match="too many files open"):
            await anext(client.lines("/api/chat", b"{}"))
