"""Finds the operator's hook and calls it.

The hook runs in a thread of its own with its own event loop, so that a hook that blocks stops no stream. It can still
hold the interpreter, and with it all streams, in C code that does not release it, such as a bad regular expression.
"""

import asyncio
import importlib
import inspect
import logging
import sys
import threading
import traceback

from gateway.errors import ShapeFailed
from gateway.hooks import Hook, HookRequest, Rejected

logger = logging.getLogger(__name__)

GRACE_SECONDS = 1.0  # how long the hook's thread may take to notice that a call's time is over; then it is blocked
MAX_BLOCKED = 4  # threads that are left behind at most
FAILED = "The gateway could not prepare the request. The reason is in the gateway's log."


class HookError(Exception):
    """The configured hook cannot be used; the message says why."""


def find_hook(path: str) -> Hook:
    """The function at `package.module:function`. The working directory is searched too. Raises `HookError`."""
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

    A call that blocks its thread cannot be ended. The thread is left behind, and later calls get a new one, as long as
    fewer than `MAX_BLOCKED` threads are blocked.
    """

    def __init__(self, hook: Hook, timeout: float) -> None:
        self._hook = hook
        self._timeout = timeout
        self._worker = _Worker()
        self._blocked: list[_Worker] = []

    async def __call__(self, request: HookRequest) -> object:
        """What the hook returns. Raises `Rejected` if the hook did, and `ShapeFailed` for any other failure."""
        worker = self._worker
        future = asyncio.run_coroutine_threadsafe(self._call(request), worker.loop)
        try:
            async with asyncio.timeout(self._timeout + GRACE_SECONDS):
                return await asyncio.wrap_future(future)
        except TimeoutError:  # `_call` raises none: the thread is blocked and does not get to the call's own limit
            logger.error("the hook does not end when its time is over; its thread is here:\n%s", worker.stack())
            self._leave_behind(worker)
            raise ShapeFailed(FAILED) from None
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            # the call was cancelled, not this task: its thread was told to stop, and has ended
            raise ShapeFailed(FAILED) from None

    def close(self) -> None:
        """Tell the thread to end, without waiting for it: its hook may never return."""
        self._worker.stop()

    async def _call(self, request: HookRequest) -> object:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await self._hook(request)
        except Rejected:
            raise
        except BaseException as error:  # SystemExit too, which would end the thread
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise  # nobody waits for it any more
            if limit.expired():
                logger.exception("the hook took longer than %g s (GATEWAY_HOOK_TIMEOUT)", self._timeout)
            else:
                logger.exception("the hook failed")
            raise ShapeFailed(FAILED) from None

    def _leave_behind(self, worker: "_Worker") -> None:
        if worker is not self._worker:
            return  # another call has left the same blocked thread behind already
        self._blocked = [each for each in self._blocked if each.is_alive()]
        if len(self._blocked) == MAX_BLOCKED:
            logger.error("%d threads are blocked by the hook; it gets no new one until one of them ends", MAX_BLOCKED)
            return
        worker.stop()  # in case it is ever unblocked
        self._blocked.append(worker)
        self._worker = _Worker()


def _is_cancelled() -> bool:
    """Whether the running task itself is being cancelled, rather than something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Worker(threading.Thread):
    """A thread with a lasting event loop: a hook can keep objects that belong to one, such as an HTTP client."""

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
        """Cancel what the loop runs, then end the thread."""
        self.loop.call_soon_threadsafe(self._stopping.set)

    def stack(self) -> str:
        """The thread's stack at this moment, as text."""
        return "".join(traceback.format_stack(sys._current_frames().get(self.ident or 0)))
