"""What Ollama has loaded, while that matters for the queue: asked again and again, and learned from."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from gateway.errors import GatewayError
from gateway.streams.fits import Memory
from gateway.streams.line import Line
from gateway.streams.places import Server
from gateway.upstream.servers import ROUTING_SECONDS, OllamaServer
from gateway.upstream.wire import OPTIONS

LOOK_SECONDS = 0.25  # how often Ollama is asked what it has loaded while a request waits
SLOW_SECONDS = 1.0  # and how often while none waits
ANSWER_SECONDS = 0.6  # how long it may take to answer; one of several that hangs must not hold up the others so long
STALE_SECONDS = 5.0  # after which an answer counts no more, if none came since
SETTLE_SECONDS = 0.02  # after the end of a request, Ollama needs this to throw out a model for the next one


class Loads:
    """Watches the servers while it matters what they have loaded, and until the last request has its model.

    It matters while a line is mixed, and with several servers while there are any requests. `moved` is called whenever
    the line may advance.
    """

    def __init__(
        self,
        servers: Sequence[OllamaServer],
        line: Callable[[], Line],
        now: Callable[[], float],
        moved: Callable[[], None],
    ) -> None:
        alone = len(servers) == 1
        self._alone, self._line = alone, line
        self._watches = [_Watch(each, line, now, moved, alone=alone) for each in servers]

    @property
    def servers(self) -> list[Server]:
        """What is known, of servers that are up. None are known while it does not matter, or if they do not answer."""
        return [each.server for each in self._watches if each.server is not None and each.counts]

    def ready(self) -> bool:
        """Whether the line may advance; if not, `moved` is called soon. Starts to watch if that is needed."""
        line = self._line()
        if line.mixed or (line.models and not self._alone):
            awaited = [each for each in self._watches if not each.ready()]  # each of them is to be watched
            return not any(each.up for each in awaited)
        for each in self._watches:
            if not (line.running and each.awaits()):  # the swap that the last request makes is to be seen
                each.close()
        return True

    def note_loaded(self, model: str, server: str) -> None:
        """A request for this model has had its first token from this server."""
        for each in self._watches:
            if each.name == server:
                each.note_loaded(model)

    def note_end(self) -> None:
        """A request has ended: Ollama may now throw out its model, if it was asked for another one."""
        for each in self._watches:
            each.note_end()

    def close(self) -> None:
        """Stop watching."""
        for each in self._watches:
            each.close()


class _Watch:
    """One server. `server` is what is known of it; one that is `alone` has no name, because nobody has to choose it."""

    def __init__(
        self,
        source: OllamaServer,
        line: Callable[[], Line],
        now: Callable[[], float],
        moved: Callable[[], None],
        *,
        alone: bool,
    ) -> None:
        self.server: Server | None = None
        self.name = "" if alone else source.client.name
        self._source, self._alone = source, alone
        self._line, self._now, self._moved = line, now, moved
        self._seen = Memory()
        self._began: set[str] = set()
        self._options: dict[str, str] = {}
        self._looked_at = float("-inf")
        self._current = False
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether requests may go there."""
        return self._alone or self._source.problem is None

    @property
    def counts(self) -> bool:
        """Whether what is known is up to date, and requests may go there."""
        return self._task is not None and self.up

    def ready(self) -> bool:
        """Whether enough is known of it for the line as it is."""
        if self._task is None:
            self._current = False
            self._task = asyncio.create_task(self._watch(), name="loads")
        if self.server is not None and not self._line().models.keys() <= self.server.names.keys():
            self._look_again()
        return self._current

    def note_loaded(self, model: str) -> None:
        if self.awaits():
            self._began.add(model)
            self._look_again()

    def note_end(self) -> None:
        if self.awaits():
            self._look_again()

    def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def awaits(self) -> bool:
        """Whether it was asked for a model that is not loaded, and may not fit beside what is."""
        if self._task is None or self.server is None:
            return self._task is not None
        asked = {self.server.model(each) for each in self._line().running.values() if each.server == self.name}
        return not asked <= self.server.loaded and not self.server.fits(asked | self.server.loaded)

    def _look_again(self) -> None:
        self._current = False
        self._woken.set()

    async def _watch(self) -> None:
        while True:
            line = self._line()
            self._woken.clear()
            await self._look(line)
            self._current = True
            self._moved()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if line.waiting else SLOW_SECONDS):
                    await self._woken.wait()
                    await asyncio.sleep(SETTLE_SECONDS)

    async def _look(self, line: Line) -> None:
        """Ask Ollama, and learn from what has changed since it was asked last."""
        models = {model: (model.partition(OPTIONS)[0], model.partition(OPTIONS)[2]) for model in line.models}
        began, self._began = self._began, set()
        try:
            async with asyncio.timeout(ANSWER_SECONDS if self._alone else ROUTING_SECONDS):
                if not self._alone and (refresh := self._source.refresh(ROUTING_SECONDS)):
                    await asyncio.wait([refresh])
                weights, listed = await self._source.memory.look({name for name, _ in models.values()})
        except (TimeoutError, GatewayError):  # it may be busy with a load
            if self._now() - self._looked_at > STALE_SECONDS:
                self.server = None if self._alone else Server(self.name, frozenset(), lacks=self._lacks(models))
            if self.server is not None:
                names = {**dict(zip(models, models, strict=True)), **self.server.names}
                self.server = replace(self.server, names=names)
            return
        if self._now() - self._looked_at > STALE_SECONDS:
            self._seen.loaded = frozenset()  # what has gone since then may simply have expired
        self._looked_at = self._now()
        names = {model: weights[name] + OPTIONS + options for model, (name, options) in models.items()}
        here = [each for each in line.running.values() if each.server == self.name]
        asked = [names[each.model] for each in here if each.model in names]
        options = {each.partition(OPTIONS)[0]: each for each in reversed(asked)}
        self._options = {each: options.get(each) or self._options.get(each, each + OPTIONS) for each in listed}
        self._seen.loaded |= {names[model] for model in began if model in names}
        meanwhile = {names[model] for model in self._began if model in names}  # the answer may be older than that
        self._seen.see(meanwhile.union(self._options.values()), asked, self._looked_at)
        seen = self._seen
        self.server = Server(self.name, seen.loaded, names, seen.fits, seen.since, self._lacks(models))

    def _lacks(self, models: dict[str, tuple[str, str]]) -> frozenset[str]:
        return frozenset(model for model, (name, _) in models.items() if not self._source.may_have(name))
