"""The heartbeat of waiting streams: one timer for all of them, and one question to each Ollama they wait for."""

import asyncio
from collections import Counter

from gateway.errors import GatewayError
from gateway.jobs import Phase
from gateway.streams.generation import Generation, Observer
from gateway.upstream.client import OllamaClient
from gateway.upstream.memory import ServerMemory
from gateway.upstream.wire import normal_name

GRACE_SECONDS = 0.25  # how long a wait must last before Ollama is asked about it: most answers begin sooner
FRESH_SECONDS = 10.0
"""How long a wait is shown at every beat, and then less often: thousands of waits would take most of the CPU."""

SLOW_SECONDS = 6.0  # how often it is shown then: well within the 20 s after which the page takes a stream for dead
SLICE = 50  # streams that are shown before other tasks have their turn


class Pulse(Observer):
    """Shows, every `interval` seconds (GATEWAY_STATUS_INTERVAL), how far each generation is that waits for a token.

    Each server's list of loaded models tells whether it loads a model or reads the prompt, as far as earlier requests
    leave no doubt: Ollama has a line of its own, and says nothing of it.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._slow_beats = max(round(SLOW_SECONDS / interval), 1)
        self._waiting: dict[Generation, int] = {}  # the number of beats until its status is due
        self._running: dict[Generation, None] = {}
        self._servers: dict[OllamaClient, ServerMemory] = {}
        self._task: asyncio.Task[None] | None = None

    def started(self, generation: Generation) -> None:
        if generation.job.kind.traits.generates:
            self._running[generation] = None
        self.changed(generation)

    def ended(self, generation: Generation) -> None:
        self._running.pop(generation, None)
        self.changed(generation)

    def changed(self, generation: Generation) -> None:
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
            await asyncio.gather(*(self._update_phases(server, next_beat) for server in servers))
            await asyncio.sleep(next_beat - loop.time())
            for number, generation in enumerate(self._due(loop.time() - FRESH_SECONDS), 1):
                generation.announce()
                if number % SLICE == 0:
                    await asyncio.sleep(0)

    def _due(self, fresh: float) -> list[Generation]:
        """The generations that this beat shows: all those created after `fresh`, and some of the others."""
        due = []
        for generation, beats in self._waiting.items():
            if beats > 1:
                self._waiting[generation] = beats - 1
            else:
                self._waiting[generation] = 1 if generation.moments.created > fresh else self._slow_beats
                due.append(generation)
        return due

    async def _update_phases(self, server: OllamaClient, until: float) -> None:
        asked = [each for each in self._running if each.server is server]
        asked.sort(key=lambda each: each.moments.asked or 0)
        models = {each: normal_name(each.job.model) for each in asked}
        memory = self._servers.setdefault(server, ServerMemory(server))
        try:
            # `/api/ps` can block, and the heartbeat must not wait for it
            async with asyncio.timeout_at(until):
                runners = await memory.runners(set(models.values()))
        except (TimeoutError, GatewayError):
            return
        models = {each: model for each, model in models.items() if each in self._running}  # others have ended meanwhile
        generating = [model for each, model in models.items() if each.phase is Phase.GENERATING]
        memory.note_parallel(runners[model] for model in generating if model in runners)
        earlier: set[str] = set()
        loading: set[str] = set()
        busy: Counter[str] = Counter()  # requests that a runner serves
        for generation, model in models.items():
            runner = runners.get(model)
            # A request for a loaded model may wait behind those that use it, and behind those that must load another.
            # One whose model is to be loaded may wait until any other model is free.
            others = (earlier if runner is None else loading) - {model}
            in_line = bool(others) or (runner is not None and busy[runner] >= memory.parallel(runner))
            generation.observe(loaded=runner is not None, in_line=in_line)
            earlier.add(model)
            if runner is None:
                loading.add(model)
            elif generation.phase in (Phase.PROMPT, Phase.GENERATING):
                busy[runner] += 1
