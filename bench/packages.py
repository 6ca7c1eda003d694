"""What the packages alone cost: aiohttp's bytes as they come, through uvicorn to the client, with nothing in between.

It is no gateway: nothing is framed, checked, kept or counted. It tells how little a gateway on them can cost.
"""

import os
import sys
from typing import Any

import aiohttp
import uvicorn
from starlette.types import Receive, Scope, Send

state: dict[str, Any] = {}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        state["session"] = aiohttp.ClientSession(
            os.environ["OLLAMA_HOST"],
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=16 * 1024,  # as the gateway has it
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await state["session"].close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = (await receive())["body"]
    async with state["session"].post("/api/chat", data=body) as response:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while chunk := await response.content.readany():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning", backlog=4096)
