"""uvicorn, with the gateway's way of listening and of stopping."""

import asyncio
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from gateway.protocol import BoundedProtocol

SEND_BUFFER = 64 * 1024
"""Bytes the kernel may hold for a client: a dead one is found sooner, and a slow one costs less."""

FLUSH_SECONDS = 5
"""How long a client may take to read the end of its stream at shutdown."""

HURRIED_FLUSH_SECONDS = 0.5
"""The same after a second signal."""

ABANDON_SECONDS = 2
"""How long a handler may then take to notice that its client was cut off."""

KEEP_ALIVE_SECONDS = 75
"""Longer than nginx and load balancers keep an idle connection: else they may send a request into its end."""


class Server(uvicorn.Server):
    """Drains its streams before it stops listening: until then clients can still reconnect and read on."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._hurry = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends at once. Neither is raised again: a stop is a success."""
        if self.should_exit:
            asyncio.get_running_loop().call_soon_threadsafe(self._hurry.set)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.lifespan.state["shaper"].reload)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        streams = self.lifespan.state["streams"]
        if streams.shared:
            self._leave_to_others(sockets or [])
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

    def _leave_to_others(self, sockets: list[socket.socket]) -> None:
        """Take no more requests, neither on new connections nor on idle ones: a balancer then asks other replicas."""
        for server in self.servers:
            server.close()
        for sock in sockets:
            sock.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _cut_off(self) -> None:
        """Cut the clients that do not read their end in time: uvicorn would log a traceback for each."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._hurry.wait()
                await asyncio.sleep(HURRIED_FLUSH_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def config(
    app: Starlette,
    *,
    max_url_bytes: int,
    max_head_bytes: int,
    request_timeout: float,
    trusted_proxies: Sequence[str],
) -> uvicorn.Config:
    """uvicorn's configuration for a gateway. No access log of its own: it would hold query strings, so prompts."""
    protocol = partial(
        BoundedProtocol, max_url_bytes=max_url_bytes, max_head_bytes=max_head_bytes, request_timeout=request_timeout
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
    """A listening socket whose connections notice a dead client: a pulled cable says nothing. Raises `OSError`.

    A client counts as gone when what was sent to it stays unacknowledged for `client_timeout` seconds. One that is
    alive but has read nothing for as long, so that its buffers are full, counts as gone too: that is how Linux
    means TCP_USER_TIMEOUT (tcp(7)).
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
