"""Whether the gateway can serve: an Ollama server answers, and no shutdown is under way."""

import asyncio

from gateway.streams import Streams
from gateway.upstreams import Health, Upstreams

CACHE_SECONDS = 1.0
"""However many probes come, each server is asked once in this time."""


class Readiness:
    """Asks the servers for their versions, one question at a time."""

    def __init__(self, upstreams: Upstreams, streams: Streams) -> None:
        self._upstreams = upstreams
        self._streams = streams
        self._lock = asyncio.Lock()
        self._checked_at = float("-inf")
        self._servers: list[Health] = []

    async def problem(self) -> str | None:
        """Why it is not ready, in a word for a person; None when it is."""
        if self._streams.draining:
            return "The gateway is shutting down."
        if self._streams.problem is not None:
            return self._streams.problem
        problems = [server["problem"] for server in await self.servers()]
        return None if None in problems else problems[0]

    async def servers(self) -> list[Health]:
        """Each server, as it was up to `CACHE_SECONDS` ago."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            if loop.time() - self._checked_at > CACHE_SECONDS:
                self._servers = await self._upstreams.check()
                self._checked_at = loop.time()  # after it: probes that have waited for it need no other
        return self._servers
