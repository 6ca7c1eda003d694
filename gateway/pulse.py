"""The heartbeat of waiting streams: one timer for all, and one question to each Ollama server they wait for."""

import asyncio

from gateway.errors import GatewayError
from gateway.ollama import Ollama, normal_name
from gateway.relay import Generation

GRACE_SECONDS = 0.25
"""How long a wait must last before Ollama is asked about it: most answers begin sooner."""

FRESH_SECONDS = 10.0
"""How long a wait is shown at every beat. Who has waited longer can wait longer for news, too: with thousands of
them, status events are most of what the gateway does."""

SLOW_SECONDS = 6.0
"""About how often it is shown then: well within the 20 s after which the page takes a stream for dead."""

SLICE = 50
"""How many are shown before others have their turn."""


class Pulse:
    """Every `interval` seconds, while any generation waits for its first token: tell loading from reading the
    prompt by their server's list of loaded models, and announce where each stands; one that has waited for long only
    now and then.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._slow_beats = max(round(SLOW_SECONDS / interval), 1)
        self._waiting: dict[Generation, int] = {}  # in how many beats its status is due
        self._task: asyncio.Task[None] | None = None

    def follow(self, generation: Generation) -> None:
        """Call when a generation is new, or has changed."""
        if not generation.waiting:
            self._waiting.pop(generation, None)
            if self._task is not None and not self._waiting:
                self._task.cancel()
                self._task = None
        elif generation not in self._waiting:
            self._waiting[generation] = 1
            if self._task is None:
                self._task = asyncio.create_task(self._beat(), name="pulse")

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        grace = min(GRACE_SECONDS, self._interval / 2)
        while True:
            next_beat = loop.time() + self._interval
            await asyncio.sleep(grace)
            servers = {each.server for each in self._waiting if each.server is not None}
            await asyncio.gather(*(self._look(server, next_beat) for server in servers))
            await asyncio.sleep(next_beat - loop.time())
            for number, generation in enumerate(self._due(loop.time() - FRESH_SECONDS), 1):
                generation.announce()
                if number % SLICE == 0:
                    await asyncio.sleep(0)

    def _due(self, fresh: float) -> list[Generation]:
        """Whose status this beat shows: of all created after `fresh`, and of some of the others."""
        due = []
        for generation, beats in self._waiting.items():
            if beats > 1:
                self._waiting[generation] = beats - 1
            else:
                self._waiting[generation] = 1 if generation.created_at > fresh else self._slow_beats
                due.append(generation)
        return due

    async def _look(self, server: Ollama, until: float) -> None:
        try:
            # `ps` can block, and the heartbeat must not wait for it
            async with asyncio.timeout_at(until):
                loaded = {normal_name(str(model.get("name"))) for model in await server.ps()}
        except (TimeoutError, GatewayError):
            return
        for generation in [each for each in self._waiting if each.server is server]:
            generation.observe(normal_name(generation.job.model) in loaded)
