"""The cost of the packages alone: aiohttp's bytes go through uvicorn to the client, with nothing in between.

It is no gateway: nothing is framed, checked, kept or counted. It tells how little a gateway on them can cost.
"""

import os
import socket
import sys
from collections.abc import Awaitable, Callable

import aiohttp
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

Serve = Callable[[aiohttp.ClientSession, bytes, Send], Awaitable[None]]


def app(serve: Serve) -> ASGIApp:
    """An application that answers each request by `serve`, which gets one session, the request's body and `send`."""
    session: aiohttp.ClientSession

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal session
        if scope["type"] == "http":
            await serve(session, (await receive())["body"], send)
            return
        await receive()
        session = aiohttp.ClientSession(
            os.environ["OLLAMA_HOST"],
            connector=aiohttp.TCPConnector(limit=0, socket_factory=_socket),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=16 * 1024,  # the gateway's own value
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await session.close()
        await send({"type": "lifespan.shutdown.complete"})

    return application


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    sock = socket.socket(*address[:3])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)  # the gateway's own value
    return sock


def run(serve: Serve) -> None:
    """Serve on the port that the command line names."""
    uvicorn.run(app(serve), port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning", backlog=4096)


async def passed_on(session: aiohttp.ClientSession, body: bytes, send: Send) -> None:
    async with session.post("/api/chat", data=body) as response:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while chunk := await response.content.readany():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


if __name__ == "__main__":
    run(passed_on)
