"""The heartbeat of waiting streams: one timer and one question to Ollama for all of them."""

import asyncio

from gateway.errors import GatewayError
from gateway.ollama import Ollama, normal_name
from gateway.relay import Generation, Phase

GRACE_SECONDS = 0.25
"""How long a wait must last before Ollama is asked about it: most answers begin sooner."""


class Pulse:
    """Every `interval` seconds, while any generation waits for its first token: tell loading from reading the
    prompt by Ollama's list of loaded models, and announce where each stands.
    """

    def __init__(self, ollama: Ollama, interval: float) -> None:
        self._ollama = ollama
        self._interval = interval
        self._waiting: set[Generation] = set()
        self._task: asyncio.Task[None] | None = None

    def follow(self, generation: Generation) -> None:
        """Call when a generation is new, or has changed."""
        if not generation.waiting:
            self._waiting.discard(generation)
            if self._task is not None and not self._waiting:
                self._task.cancel()
                self._task = None
        elif generation not in self._waiting:
            self._waiting.add(generation)
            if self._task is None:
                self._task = asyncio.create_task(self._beat(), name="pulse")

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        grace = min(GRACE_SECONDS, self._interval / 2)
        while True:
            next_beat = loop.time() + self._interval
            await asyncio.sleep(grace)
            await self._look(next_beat)
            await asyncio.sleep(next_beat - loop.time())
            for generation in self._waiting:
                generation.announce()

    async def _look(self, until: float) -> None:
        asked = [each for each in self._waiting if each.phase is not Phase.QUEUED]
        if not asked:
            return
        try:
            # `ps` can block, and the heartbeat must not wait for it
            async with asyncio.timeout_at(until):
                loaded = {normal_name(str(model.get("name"))) for model in await self._ollama.ps()}
        except (TimeoutError, GatewayError):
            return
        for generation in asked:
            generation.observe(normal_name(generation.job.model) in loaded)
