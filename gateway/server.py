"""uvicorn, with the gateway's way of listening and of stopping."""

import asyncio
import signal
import socket
from types import FrameType

import uvicorn

SEND_BUFFER = 64 * 1024
"""Bytes the kernel may hold for a client: a dead one is found sooner, and a slow one costs less."""

FLUSH_SECONDS = 5
"""How long a client may take to read the end of its stream at shutdown."""


class Server(uvicorn.Server):
    """Drains its streams before it stops listening: until then clients can still reconnect and read on."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._at_once = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends at once. Neither is raised again: a stop is a success."""
        self._at_once = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.lifespan.state["shaper"].reload)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        streams = self.lifespan.state["streams"]
        drain = asyncio.ensure_future(streams.drain(self._drain_seconds))
        while not drain.done() and not self._at_once:
            await asyncio.wait([drain], timeout=0.1)
        if self._at_once:
            drain.cancel()
            await streams.drain(0)
            self.config.timeout_graceful_shutdown = 1
        await super().shutdown(sockets)


def config(app: object, log_level: str = "info") -> uvicorn.Config:
    """uvicorn's configuration for a gateway. No access log of its own: it would hold query strings, so prompts."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=FLUSH_SECONDS,
    )


def listen(host: str, port: int, client_timeout: float) -> socket.socket:
    """A listening socket whose connections notice a dead client: a pulled cable says nothing. Raises `OSError`.

    A client counts as gone when what was sent to it stays unacknowledged for `client_timeout` seconds.
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
