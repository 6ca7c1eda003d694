"""The runners that hold the loaded models, and Ollama's rules of who is loaded, who waits and who has to go."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic, time_ns
from typing import Any

from gateway.demo.models import Model
from gateway.demo.wire import RefusedError, timestamp

REMEMBERED = 4096  # loads that are kept for a test to look at


class Runner:
    """A model in memory, or on its way there. Never more than `parallel` generations in it at once."""

    def __init__(self, model: Model, context_length: int, parallel: int) -> None:
        self.model = model
        self.context_length = context_length
        self.slots = asyncio.Semaphore(parallel)
        self.ready = False
        self.ready_at = 0.0
        self.users = 0
        self.expiring = False  # it goes with its last user, to make room or because that was asked for
        self.keep_alive_ns = 0
        self.idle_since_ns = 0
        self.gone = asyncio.Event()

    @property
    def expires_ns(self) -> int:
        return (time_ns() if self.users else self.idle_since_ns) + self.keep_alive_ns

    def ps(self) -> dict[str, Any]:
        """Its entry in `/api/ps`."""
        return {
            "name": self.model.name,
            "model": self.model.name,
            "size": self.model.size,
            "digest": self.model.digest,
            "details": self.model.details,
            "expires_at": timestamp(self.expires_ns),
            "size_vram": self.model.size,
            "context_length": self.context_length,
        }


class Scheduler:
    """Who is loaded. No timers: a load has a due time, and an expired runner is dropped when looked at.

    Models with the same weights share a runner, which goes by the name that loaded it. At most `max_loaded` runners
    are in memory, and no more than `vram` bytes of them beside the first; 0 is no limit.
    """

    def __init__(self, parallel: int, max_queue: int, max_loaded: int, vram: int) -> None:
        self._parallel, self._max_queue = parallel, max_queue
        self._max_loaded, self._vram = max_loaded, vram
        self._runners: dict[str, Runner] = {}
        self.loads: deque[str] = deque(maxlen=REMEMBERED)  # the models that were loaded
        self._line = asyncio.Lock()  # one load at a time is prepared, in the order in which they were asked for
        self._in_line = 0

    def loaded(self) -> list[Runner]:
        """The runners that `/api/ps` lists: a loading one is not among them, and one that has expired is dropped."""
        for runner in list(self._runners.values()):
            if runner.ready and not runner.users and runner.expires_ns <= time_ns():
                self._drop(runner)
        return [runner for runner in self._runners.values() if runner.ready]

    def drop(self, model: Model) -> None:
        """The runner of this model died."""
        if runner := self._runners.get(model.blob):
            self._drop(runner)

    def unload(self, model: Model) -> None:
        """The runner of this model goes as soon as nobody uses it."""
        if runner := self._runners.get(model.blob):
            self._expire(runner)

    @asynccontextmanager
    async def use(
        self,
        model: Model,
        keep_alive_ns: int,
        context_length: int,
        load_seconds: float,
        on_load: Callable[[], None],
    ) -> AsyncIterator[Runner]:
        """The loaded runner. A load whose last waiter leaves is aborted, another context length loads anew.
        A full queue is `RefusedError`.
        """
        self.loaded()  # drops what has expired
        waiting = self._in_line + sum(runner.users for runner in self._runners.values() if not runner.ready)
        if waiting > self._max_queue:  # one of them is being served, it does not count
            raise RefusedError(503, "server busy, please try again.  maximum pending requests exceeded")
        runner = await self._runner(model, context_length, load_seconds)
        runner.keep_alive_ns = keep_alive_ns
        try:
            if not runner.ready:
                on_load()
                await asyncio.sleep(runner.ready_at - monotonic())
                runner.ready = True
            yield runner
        finally:
            runner.users -= 1
            runner.idle_since_ns = time_ns()
            if not runner.users and (runner.expiring or not runner.ready):
                self._drop(runner)

    async def _runner(self, model: Model, context_length: int, load_seconds: float) -> Runner:
        """The runner, with one more user. A request for what is loaded goes past the line, however long that is."""
        runner = self._runners.get(model.blob)
        if runner is not None and runner.ready and runner.context_length == context_length:
            runner.users += 1
            return runner
        self._in_line += 1
        try:
            async with self._line:
                while victim := self._in_the_way(model, context_length):
                    self._expire(victim)
                    await victim.gone.wait()
                runner = self._runners.get(model.blob)
                if runner is None:
                    runner = self._runners[model.blob] = Runner(model, context_length, self._parallel)
                    runner.ready_at = monotonic() + load_seconds
                    self.loads.append(model.name)
                runner.users += 1
                return runner
        finally:
            self._in_line -= 1

    def _in_the_way(self, model: Model, context_length: int) -> Runner | None:
        """The runner that must go before this model can be used: an idle one, if there is one."""
        if runner := self._runners.get(model.blob):
            return None if runner.context_length == context_length else runner
        others = self._runners.values()
        fits = not self._vram or sum(each.model.size for each in others) + model.size <= self._vram
        if not others or (fits and not 0 < self._max_loaded <= len(others)):
            return None
        return min(others, key=lambda each: (each.users > 0, each.keep_alive_ns))

    def _expire(self, runner: Runner) -> None:
        runner.expiring = True
        if not runner.users:
            self._drop(runner)

    def _drop(self, runner: Runner) -> None:
        if self._runners.get(runner.model.blob) is runner:
            del self._runners[runner.model.blob]
        runner.gone.set()
