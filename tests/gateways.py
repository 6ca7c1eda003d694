"""A gateway in front of a simulated Ollama, both real servers, in the loop of the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
from starlette.types import Receive, Scope, Send

from gateway.app import create_app
from gateway.demo import Simulator
from gateway.settings import Settings
from gateway.state import GatewayState
from tests.servers import serve
from tests.sse import Event, Events


@dataclass
class Gateway:
    """`url` and `session` are how a test asks; `state` is what a test may look into afterwards."""

    url: str
    session: aiohttp.ClientSession
    state: GatewayState

    @asynccontextmanager
    async def open(
        self, path: str, *, json: object = None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[Events]:
        """A stream, by GET or, with `json`, by POST. Leaving closes the connection."""
        method = "GET" if json is None else "POST"
        async with self.session.request(method, self.url + path, json=json, headers=headers) as response:
            yield Events(response)
            response.close()

    async def read(self, path: str, *, json: object = None, headers: dict[str, str] | None = None) -> list[Event]:
        """All events of a stream, to its end."""
        async with self.open(path, json=json, headers=headers) as events:
            return [event async for event in events]

    async def start(self, **body: object) -> str:
        """The id of a new stream."""
        async with self.session.post(self.url + "/api/streams", json=body) as response:
            answer = await response.json()
            assert response.status == 201, answer
            return cast(str, answer["id"])


@asynccontextmanager
async def gateway(ollama: Simulator | str, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway with `settings` in front of a simulator, or of whatever is at a URL."""
    if isinstance(ollama, Simulator):
        async with serve(ollama.app) as url, gateway(url, **settings) as running:
            yield running
        return
    # in a thread, because it reads files: the command line does it before there is a loop
    app = create_app(await asyncio.to_thread(lambda: Settings(ollama_url=ollama, **settings)))
    state: dict[str, Any] = {}

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            nonlocal state
            state = scope["state"]
        await app(scope, receive, send)

    connector = aiohttp.TCPConnector(limit=0)
    async with serve(with_state, lifespan="on") as url, aiohttp.ClientSession(connector=connector) as session:
        yield Gateway(url, session, cast(GatewayState, state))
