"""Whether the gateway can serve: Ollama answers, and no shutdown is under way."""

import asyncio

from gateway.errors import GatewayError
from gateway.ollama import Ollama
from gateway.streams import Streams

CACHE_SECONDS = 1.0
"""However many probes come, Ollama is asked once in this time."""

TIMEOUT_SECONDS = 2.0
"""How long Ollama may take: a probe that outlasts the prober's own limit could not say why."""


class Readiness:
    """Asks Ollama for its version, one question at a time."""

    def __init__(self, ollama: Ollama, streams: Streams) -> None:
        self._ollama = ollama
        self._streams = streams
        self._lock = asyncio.Lock()
        self._checked_at = float("-inf")
        self._problem: str | None = None

    async def problem(self) -> str | None:
        """Why it is not ready, in a word for a person; None when it is."""
        if self._streams.draining:
            return "The gateway is shutting down."
        async with self._lock:
            loop = asyncio.get_running_loop()
            if loop.time() - self._checked_at > CACHE_SECONDS:
                self._problem = await self._check()
                self._checked_at = loop.time()  # after it: probes that have waited for it need no other
        return self._problem

    async def _check(self) -> str | None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self._ollama.version()
        except TimeoutError:
            return f"Ollama does not answer within {TIMEOUT_SECONDS:g} s."
        except GatewayError as error:
            return error.message
        return None
