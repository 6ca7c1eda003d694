"""uvicorn with the gateway's way of listening and of stopping."""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from gateway.web.files import OpenFiles
from gateway.web.protocol import BoundedProtocol

SEND_BUFFER = 64 * 1024
"""The bytes that the kernel may hold for a client: if few, a dead client is found sooner and a slow one costs less."""

ACCEPTED_AT_ONCE = 8

FLUSH_SECONDS = 5  # how long a client may take to read the end of its stream at shutdown
HURRIED_FLUSH_SECONDS = 0.5  # the same limit after a second signal
ABANDON_SECONDS = 2  # how long a handler may take after that to notice that its client was cut off
KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep an idle connection, which might otherwise use one that is being closed."""


class GatewayServer(uvicorn.Server):
    """Drains its streams before it stops listening, so that until then clients can reconnect and read on.

    `started` is called in a thread, as soon as requests are served.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: float, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._tell_started = started
        self._hurry = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends at once. Neither is raised again, because a stop is a success."""
        if self.should_exit:
            asyncio.get_running_loop().call_soon_threadsafe(self._hurry.set)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.lifespan.state["shaper"].reload)
        await asyncio.to_thread(self._tell_started)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        streams = self.lifespan.state["streams"]
        if streams.peers:
            self._stop_listening(sockets or [])
            streams.hand_over()
        drain = asyncio.create_task(streams.drain(self._drain_seconds))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([drain, hurry], return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            drain.cancel()
            await streams.drain(0)
        cut = asyncio.create_task(self._cut_off())
        await super().shutdown(sockets)
        cut.cancel()
        hurry.cancel()

    def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Take no more requests, on new connections or idle ones, so that a load balancer asks other replicas."""
        for server in self.servers:
            server.close()
        for sock in sockets:
            sock.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _cut_off(self) -> None:
        """Cut off clients that do not read their stream's end in time: uvicorn would log a traceback for each."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._hurry.wait()
                await asyncio.sleep(HURRIED_FLUSH_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def several(sock: socket.socket) -> list[socket.socket]:
    """The same listening socket several times, for `serve`: the loop accepts one connection of each in a turn.

    When each turn has much to relay, a new client would otherwise wait one turn for each that came before it.
    """
    return [sock, *(sock.dup() for _ in range(ACCEPTED_AT_ONCE - 1))]


def server_config(
    app: Starlette,
    *,
    max_url_bytes: int,
    max_head_bytes: int,
    request_timeout: float,
    trusted_proxies: Sequence[str],
    files: OpenFiles,
) -> uvicorn.Config:
    """uvicorn's configuration for a gateway, without uvicorn's access log, which would hold query strings: prompts."""
    protocol = partial(
        BoundedProtocol,
        max_url_bytes=max_url_bytes,
        max_head_bytes=max_head_bytes,
        request_timeout=request_timeout,
        files=files,
    )
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # uvicorn only ever calls it
        ws="none",
        lifespan="on",
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FLUSH_SECONDS + ABANDON_SECONDS,
    )


def listen(host: str, port: int, client_timeout: float) -> socket.socket:
    """A listening socket whose connections notice a dead client: a pulled cable sends no packet. Raises `OSError`.

    A client counts as gone when what was sent to it stays unacknowledged for `client_timeout` seconds, or when it is
    alive but has read nothing for as long, with its buffers full: see TCP_USER_TIMEOUT in tcp(7).
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(client_timeout * 1000))
        sock.bind(address)
        sock.listen(2048)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
