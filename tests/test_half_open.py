"""A client whose cable is pulled sends nothing, not even a FIN: it is found, and Ollama is told to stop.

The cable is a packet filter on the client's own socket that drops all incoming packets. Its kernel acknowledges nothing
any more, as at the other side of a dead link; unlike a network namespace it needs no privileges.
"""

import asyncio
import ctypes
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.asks import STORY_PATH, chat, quick
from tests.processes import Process, process, resident_bytes
from tests.servers import serve

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")

PING, CLIENT_TIMEOUT = 1, 2
FLAGS = (f"--ping-interval={PING}", f"--client-timeout={CLIENT_TIMEOUT}")
FOUND = PING + CLIENT_TIMEOUT + 3
"""Seconds until a dead client must be found. The kernel checks only when it repeats a packet; without
TCP_USER_TIMEOUT it would take a quarter of an hour."""

SO_ATTACH_FILTER = 26  # from linux/filter.h, like the next one
RETURN = 0x06


def pull_cable(sock: socket.socket) -> None:
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", RETURN, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop_all)))


async def ask(url: str, path: str, receive_buffer: int | None = None) -> socket.socket:
    """A client that has asked and read nothing yet."""
    address = urlsplit(url)
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (address.hostname, address.port))
    await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    return sock


async def read_until(sock: socket.socket, text: bytes) -> None:
    received = b""
    while text not in received:
        received += await asyncio.get_running_loop().sock_recv(sock, 65536)


@pytest.mark.parametrize("path", [STORY_PATH, "/api/chat?model=fault:stall-1&prompt=Hi"], ids=["tokens", "pings"])
@pytest.mark.slow
async def test_a_pulled_cable_stops_ollama(tmp_path: Path, path: str) -> None:
    """In the middle of an answer an Ollama that stalls leaves nothing but pings that the client could acknowledge."""
    simulator = quick(token_rate=20)
    async with serve(simulator.app) as url, process(tmp_path, f"--ollama-url={url}", *FLAGS) as gateway:
        with await ask(gateway.url, path) as client:
            await read_until(client, b'"done":false')
            pull_cable(client)
            async with asyncio.timeout(FOUND):
                await simulator.until(lambda: simulator.states["cancelled"] == 1)


@pytest.mark.slow
async def test_viewers_that_read_nothing_cost_little_and_go_in_the_end(tmp_path: Path) -> None:
    """50 read one 16 MB answer: copies would be 800 MB. Although they are alive, their time is limited too."""
    simulator = quick()
    async with (
        serve(simulator.app) as url,
        process(tmp_path, f"--ollama-url={url}", *FLAGS) as gateway,
        aiohttp.ClientSession() as session,
    ):
        burst = chat("Hi", model="fault:burst-100000")
        async with session.post(f"{gateway.url}/api/streams", json={"chat": burst}) as response:
            stream = (await response.json())["url"]
        async with session.get(gateway.url + stream) as response:
            size = len(await response.read())
        assert size > 16e6
        before = resident_bytes(gateway)
        clients = [await ask(gateway.url, stream, receive_buffer=4096) for _ in range(50)]
        await until(session, gateway, "gateway_viewers_active", lambda viewers: viewers == 50)
        assert resident_bytes(gateway) - before < 5 * size
        await until(session, gateway, "gateway_viewers_active", lambda viewers: viewers == 0)
        for client in clients:
            client.close()


async def until(
    session: aiohttp.ClientSession, gateway: Process, metric: str, condition: Callable[[float], bool]
) -> None:
    """Wait until a metric of the gateway satisfies the condition."""
    while True:
        async with session.get(gateway.url + "/metrics") as response:
            match = re.search(rf"^{metric} (\S+)$", await response.text(), re.MULTILINE)
        assert match
        if condition(float(match[1])):
            return
