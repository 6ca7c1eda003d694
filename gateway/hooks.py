"""The hook: an operator's own Python function with the last word on every request.

    async def shape(request: HookRequest) -> dict[str, Any]:
        if "weather" in request.body["messages"][-1]["content"]:
            raise Rejected("I do not talk about the weather.", code="banned_topic")
        return request.body

It runs in a thread of its own with its own event loop, so that one that blocks stops no stream. (It can still
hold the interpreter itself, and all streams, in C code that does not let go of it, such as a bad regular
expression.)
"""

import asyncio
import importlib
import inspect
import logging
import re
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import RequestError, ShapeFailed

logger = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds that the hook's thread may take to notice that a call's time is over. If it does not, it is blocked."""

MAX_BLOCKED = 4

FAILED = "The gateway could not prepare the request. Its operator finds the reason in the log."


@dataclass(frozen=True, slots=True)
class HookRequest:
    """What a hook is given. `body` is its own copy of the Ollama body, preset applied: to change or to replace.

    `kind` is `chat` or `generate`; `client` the client's address; `headers`, with lower-case names, those that
    GATEWAY_HOOK_HEADERS lists.
    """

    kind: str
    body: dict[str, Any]
    preset: str | None
    variables: Mapping[str, str]
    client: str
    headers: Mapping[str, str]


class Rejected(RequestError):
    """Raised by a hook to refuse a request: `message` is shown to the person, `code` is for a program."""

    status = 422

    def __init__(self, message: str, code: str = "rejected") -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", code):
            raise ValueError(f"not a code: {code!r}")
        super().__init__(message)
        self.code = code


Hook = Callable[[HookRequest], Awaitable[dict[str, Any]]]


class HookError(Exception):
    """The hook that is configured cannot be used; the message says why."""


def find_hook(path: str) -> Hook:
    """The function at `package.module:function`, looked for in the working directory too. Raises `HookError`."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise HookError("must be package.module:function")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        hook = getattr(importlib.import_module(module_name), name, None)
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise HookError(f"{module_name} cannot be imported: {reason}") from error
    if not inspect.iscoroutinefunction(hook):
        raise HookError(f"{name} in {module_name} is not an async function")
    return hook


class HookRunner:
    """Calls one hook, each call for at most `timeout` seconds, in one thread with one lasting event loop.

    A call that blocks the thread cannot be ended. It is left behind and later ones get a new thread: of the
    threads that are blocked so, at most `MAX_BLOCKED`.
    """

    def __init__(self, hook: Hook, timeout: float) -> None:
        self._hook = hook
        self._timeout = timeout
        self._worker = _Worker()
        self._blocked: list[_Worker] = []

    async def __call__(self, request: HookRequest) -> object:
        """What the hook returns. Raises what it raised if that is `Rejected`, else `ShapeFailed`."""
        worker = self._worker
        future = asyncio.run_coroutine_threadsafe(self._call(request), worker.loop)
        try:
            async with asyncio.timeout(self._timeout + GRACE):
                return await asyncio.wrap_future(future)
        except TimeoutError:  # `_call` raises none: its thread does not even get to its own time limit
            logger.error("the hook does not end when its time is over; its thread is here:\n%s", worker.stack())
            self._leave_behind(worker)
            raise ShapeFailed(FAILED) from None

    def close(self) -> None:
        """Tell the thread to end. Nobody waits for it: what its hook does may never end."""
        self._worker.stop()

    async def _call(self, request: HookRequest) -> object:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await self._hook(request)
        except Rejected:
            raise
        except BaseException as error:  # SystemExit too, which would end the thread
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # nobody waits for it any more
            if limit.expired():
                logger.exception("the hook took longer than %g s (GATEWAY_HOOK_TIMEOUT)", self._timeout)
            else:
                logger.exception("the hook failed")
            raise ShapeFailed(FAILED) from None

    def _leave_behind(self, worker: "_Worker") -> None:
        if worker is not self._worker:
            return  # another call has met the same blocked thread before
        self._blocked = [each for each in self._blocked if each.is_alive()]
        if len(self._blocked) == MAX_BLOCKED:
            logger.error("%d threads are blocked by the hook; it gets no new one until one of them ends", MAX_BLOCKED)
            return
        worker.stop()  # should it ever come back
        self._blocked.append(worker)
        self._worker = _Worker()


class _Worker(threading.Thread):
    """A thread with an event loop. It lasts, so that a hook can keep what belongs to one, such as an HTTP client."""

    def __init__(self) -> None:
        # a daemon: a hook that never returns must not keep the process from ending
        super().__init__(name="hook", daemon=True)
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._stopping = asyncio.Event()
        self.loop = self._runner.get_loop()
        self.start()

    def run(self) -> None:
        with self._runner:
            self._runner.run(self._stopping.wait())

    def stop(self) -> None:
        """End what the loop runs, then the thread."""
        self.loop.call_soon_threadsafe(self._stopping.set)

    def stack(self) -> str:
        """Where the thread is now."""
        return "".join(traceback.format_stack(sys._current_frames().get(self.ident or 0)))
