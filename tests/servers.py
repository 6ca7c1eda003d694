"""Real servers on real ports, in the loop of the test."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

ACCEPT_TURNS = 2
"""The loop's turns until uvicorn knows of a connection that asyncio has accepted: it could not cut it before that, and
a client would be answered by a server that is gone."""


@asynccontextmanager
async def serve(app: ASGIApp, sock: socket.socket | None = None, **uvicorn_config: Any) -> AsyncIterator[str]:
    """Serve `app` on a free port of 127.0.0.1, or on `sock`, and yield the base URL, without a slash at its end."""
    # Like Ollama it closes no idle connection: on a busy machine it would do so in the moment of its next use.
    defaults = {"log_config": None, "access_log": False, "timeout_keep_alive": 3600}
    config = uvicorn.Config(app, port=0, **(defaults | uvicorn_config))
    async with running(config, sock) as server:
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"http://{host}:{port}"


@asynccontextmanager
async def running(config: uvicorn.Config, sock: socket.socket | None) -> AsyncIterator[uvicorn.Server]:
    """A server of this configuration.

    Uvicorn's main loop is not run: it takes the process's signal handlers, so that Ctrl+C would stop a server
    instead of the tests. Nor is its shutdown, which sleeps. On leaving, connections that are still open are cut,
    as when the network fails, and all requests are waited for.
    """
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([sock] if sock else None)
    await server.on_tick(0)  # sets the Date header
    try:
        yield server
    finally:
        for listening in [each for listener in server.servers for each in listener.sockets]:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        while server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks)
        await server.lifespan.shutdown()
