"""What Ollama has loaded, while that matters for the queue: asked again and again, and learned from."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from gateway.errors import GatewayError
from gateway.streams.fits import Memory
from gateway.streams.line import Line
from gateway.streams.policy import Server
from gateway.upstream.memory import ServerMemory
from gateway.upstream.wire import OPTIONS

LOOK_SECONDS = 0.25  # how often Ollama is asked what it has loaded while a request waits
SLOW_SECONDS = 1.0  # and how often while none waits
ANSWER_SECONDS = 0.6  # how long it may take to answer
STALE_SECONDS = 5.0  # after which an answer counts no more, if none came since
SETTLE_SECONDS = 0.02  # after the end of a request, Ollama needs this to throw out a model for the next one


class Loads:
    """Watches the server as long as a line is mixed, and until the last request of it has its model.

    `moved` is called whenever the line may advance. `server` is what is known, or None: then there is one model, or
    Ollama does not answer.
    """

    def __init__(
        self,
        memory: ServerMemory | None,
        line: Callable[[], Line],
        now: Callable[[], float],
        moved: Callable[[], None],
    ) -> None:
        self.server: Server | None = None
        self._memory = memory
        self._line, self._now, self._moved = line, now, moved
        self._seen = Memory()
        self._began: set[str] = set()
        self._options: dict[str, str] = {}
        self._looked_at = float("-inf")
        self._current = False
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def ready(self) -> bool:
        """Whether the line may advance; if not, `moved` is called soon. Starts to watch if that is needed."""
        line = self._line()
        if self._memory is None or not line.mixed:
            if not (line.running and self._awaits()):  # the swap that the last request makes is to be seen
                self.close()
            return True
        if self._task is None:
            self._current = False
            self._task = asyncio.create_task(self._watch(self._memory), name="loads")
        elif self.server is not None and not line.models.keys() <= self.server.names.keys():
            self._look_again()
        return self._current

    def note_loaded(self, model: str) -> None:
        """A request for this model has had its first token."""
        if self._awaits():
            self._began.add(model)
            self._look_again()

    def note_end(self) -> None:
        """A request has ended: Ollama may now throw out its model, if it was asked for another one."""
        if self._awaits():
            self._look_again()

    def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            self.server = self._task = None

    def _awaits(self) -> bool:
        """Whether Ollama was asked for a model that is not loaded, and may not fit beside what is."""
        if self._task is None or self.server is None:
            return self._task is not None
        asked = {self.server.model(each) for each in self._line().running.values()}
        return not asked <= self.server.loaded and not self.server.fits(asked | self.server.loaded)

    def _look_again(self) -> None:
        self._current = False
        self._woken.set()

    async def _watch(self, memory: ServerMemory) -> None:
        while True:
            line = self._line()
            self._woken.clear()
            await self._look(memory, line)
            self._current = True
            self._moved()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if line.waiting else SLOW_SECONDS):
                    await self._woken.wait()
                    await asyncio.sleep(SETTLE_SECONDS)

    async def _look(self, memory: ServerMemory, line: Line) -> None:
        """Ask Ollama, and learn from what has changed since it was asked last."""
        models = {model: model.partition(OPTIONS)[::2] for model in line.models}
        began, self._began = self._began, set()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                weights, listed = await memory.look({name for name, _ in models.values()})
        except (TimeoutError, GatewayError):  # it may be busy with a load
            if self.server is not None:
                names = {**dict(zip(models, models, strict=True)), **self.server.names}
                self.server = replace(self.server, names=names)
            if self._now() - self._looked_at > STALE_SECONDS:
                self.server = None
            return
        if self._now() - self._looked_at > STALE_SECONDS:
            self._seen.loaded = frozenset()  # what has gone since then may simply have expired
        self._looked_at = self._now()
        names = {model: weights[name] + OPTIONS + options for model, (name, options) in models.items()}
        asked = [names[each.model] for each in line.running.values() if each.model in names]
        options = {each.partition(OPTIONS)[0]: each for each in reversed(asked)}
        self._options = {each: options.get(each) or self._options.get(each, each + OPTIONS) for each in listed}
        self._seen.loaded |= {names[model] for model in began if model in names}
        meanwhile = {names[model] for model in self._began if model in names}  # the answer may be older than that
        self._seen.see(meanwhile.union(self._options.values()), asked, self._looked_at)
        self.server = Server(self._seen.loaded, names, self._seen.fits, self._seen.since)
