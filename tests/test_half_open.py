"""A client whose cable is pulled says nothing, not even goodbye: it is found, and Ollama is told to stop.

The cable: a packet filter on the client's own socket that drops all that comes in. Its kernel acknowledges nothing
any more, as from the other side of a dead link; unlike a network namespace it needs no rights.
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

from gateway.demo import Simulator
from tests.processes import Process, process
from tests.servers import serve

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")

PING, CLIENT_TIMEOUT = 1, 2
FLAGS = (f"--ping-interval={PING}", f"--client-timeout={CLIENT_TIMEOUT}")
FOUND = PING + CLIENT_TIMEOUT + 3
"""Seconds until a dead client must be found. The kernel looks when it repeats a packet, so at intervals; without
TCP_USER_TIMEOUT it would take a quarter of an hour."""

SO_ATTACH_FILTER = 26  # linux/filter.h, as is what follows
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


async def test_a_pulled_cable_in_mid_stream_stops_ollama(tmp_path: Path) -> None:
    simulator = Simulator(load_seconds=0, prompt_seconds=0, token_rate=20)
    async with serve(simulator.app) as url, process(tmp_path, f"--ollama-url={url}", *FLAGS) as gateway:
        with await ask(gateway.url, "/api/chat?model=llama3.2&prompt=Write+a+long+story") as client:
            await read_until(client, b'"done":false')
            pull_cable(client)
            async with asyncio.timeout(FOUND):
                await simulator.until(lambda: simulator.states["cancelled"] == 1)


async def test_pings_find_it_while_ollama_is_silent(tmp_path: Path) -> None:
    """In mid-answer no status events are sent either: the ping is all that the client could acknowledge."""
    simulator = Simulator(load_seconds=0, prompt_seconds=0, token_rate=0)
    async with serve(simulator.app) as url, process(tmp_path, f"--ollama-url={url}", *FLAGS) as gateway:
        with await ask(gateway.url, "/api/chat?model=fault:stall-1&prompt=Hi") as client:
            await read_until(client, b'"done":false')
            pull_cable(client)
            async with asyncio.timeout(FOUND):
                await simulator.until(lambda: simulator.states["cancelled"] == 1)


async def test_viewers_that_read_nothing_cost_little_and_go_in_the_end(tmp_path: Path) -> None:
    """50 of one 16 MB answer: a copy for each would be 800 MB. Alive as they are, their time is limited too."""
    simulator = Simulator(load_seconds=0, prompt_seconds=0, token_rate=0)
    async with (
        serve(simulator.app) as url,
        process(tmp_path, f"--ollama-url={url}", *FLAGS) as gateway,
        aiohttp.ClientSession() as session,
    ):
        chat = {"model": "fault:burst-100000", "messages": [{"role": "user", "content": "Hi"}]}
        async with session.post(f"{gateway.url}/api/streams", json={"chat": chat}) as response:
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


def resident_bytes(process: Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match
    return int(match[1]) * 1024


async def until(
    session: aiohttp.ClientSession, gateway: Process, metric: str, condition: Callable[[float], bool]
) -> None:
    """Until this figure of the gateway's metrics is as wanted."""
    while True:
        async with session.get(gateway.url + "/metrics") as response:
            match = re.search(rf"^{metric} (\S+)$", await response.text(), re.MULTILINE)
        assert match
        if condition(float(match[1])):
            return
