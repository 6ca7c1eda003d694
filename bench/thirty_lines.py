"""The app most people write in front of Ollama, and a fair one: one session, uvloop, no limits."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(os.environ["OLLAMA_HOST"], connector=connector, timeout=timeout) as session:
        yield {"session": session}


async def chat(request: Request) -> EventSourceResponse:
    body = await request.json()

    async def events() -> AsyncIterator[dict[str, str]]:
        async with request.state.session.post("/api/chat", json=body) as response:
            async for line in response.content:
                yield {"data": json.dumps(json.loads(line))}

    return EventSourceResponse(events())


app = Starlette(routes=[Route("/api/chat", chat, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning", backlog=4096)
