"""What many ask about Ollama, asked once for all of them."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

KEPT_SECONDS = 1.0  # how long an answer is given to others who ask
FAILED_SECONDS = 0.25  # and how long a failure is: what was down may be up again

T = TypeVar("T")


class Answers:
    """Each question is put once for all who ask it at the same time, and its answer is kept for a moment.

    So however many ask, Ollama is asked a few times a second, and one answer to each question is held.
    """

    def __init__(self) -> None:
        self._known: dict[str, asyncio.Task[Any]] = {}
        self._running: set[asyncio.Task[Any]] = set()

    async def get(self, question: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer to `question`, which `ask` asks for if it is not known. Raises what `ask` raises."""
        task = self._known.get(question)
        if task is None:
            task = self._known[question] = asyncio.create_task(ask(), name=question)
            self._running.add(task)
            task.add_done_callback(partial(self._keep, question))
        return await asyncio.shield(task)  # others may wait for it

    def forget(self) -> None:
        """Ask again from now on: what is known, and what is being asked, may be out of date."""
        self._known.clear()

    async def close(self) -> None:
        """End what is being asked."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _keep(self, question: str, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        failed = task.cancelled() or task.exception() is not None
        seconds = FAILED_SECONDS if failed else KEPT_SECONDS
        task.get_loop().call_later(seconds, self._expire, question, task)

    def _expire(self, question: str, task: asyncio.Task[Any]) -> None:
        if self._known.get(question) is task:
            del self._known[question]
