"""A gateway in front of a simulated Ollama, both real servers, in the loop of the test.

The gateway's is the one that the command line starts, with its bounds, on a socket like its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import aiohttp

from gateway.app import create_app
from gateway.demo import Simulator
from gateway.settings import Settings
from gateway.web.files import OpenFiles, raise_limit
from gateway.web.server import listen, server_config
from gateway.web.state import GatewayState
from tests.servers import running, serve
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


stopped: set[str] = set()
"""Where gateways of this process were, from the moment they began to stop."""


@asynccontextmanager
async def gateway(ollama: Simulator | str, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway with `settings` in front of a simulator, or of whatever is at a URL."""
    if isinstance(ollama, Simulator):
        async with serve(ollama.app) as url, gateway(url, **settings) as front:
            yield front
        return
    # in a thread, because it reads files: the command line does it before there is a loop
    settings = {"reconnect_seconds": 0} | settings  # what fails is to be seen at once
    given = await asyncio.to_thread(lambda: Settings(ollama_url=ollama, **settings))
    config = server_config(
        create_app(given),
        max_url_bytes=given.max_url_bytes,
        max_head_bytes=given.max_head_bytes,
        request_timeout=given.request_timeout,
        trusted_proxies=given.trusted_proxies,
        files=OpenFiles(raise_limit(), reserved=given.max_active),
    )
    sock = listen("127.0.0.1", 0, given.client_timeout)
    connector = aiohttp.TCPConnector(limit=0)
    async with running(config, sock) as server, aiohttp.ClientSession(connector=connector) as session:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        try:
            yield Gateway(url, session, cast(GatewayState, server.lifespan.state))
        finally:
            stopped.add(url)
