"""The hook: an operator's own Python function with the last word on every request.

    async def shape(request: HookRequest) -> dict[str, Any]:
        if "weather" in request.body["messages"][-1]["content"]:
            raise Rejected("I do not talk about the weather.", code="banned_topic")
        return request.body

It runs in a thread of its own with its own event loop, so that one that blocks stops no stream.
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
    except Exception as error:
        raise HookError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    if not inspect.iscoroutinefunction(hook):
        raise HookError(f"{name} in {module_name} is not an async function")
    return hook


class HookRunner:
    """Calls one hook, each call for at most `timeout` seconds, in one thread with one lasting event loop."""

    def __init__(self, hook: Hook, timeout: float) -> None:
        self._hook = hook
        self._timeout = timeout
        self._loop = asyncio.new_event_loop()
        # a daemon: a hook that never returns must not keep the process from ending
        self._thread = threading.Thread(target=self._loop.run_forever, name="hook", daemon=True)
        self._thread.start()

    async def __call__(self, request: HookRequest) -> dict[str, Any]:
        """The hook's body. Raises what it raised if that is `Rejected`, else `ShapeFailed`."""
        future = asyncio.run_coroutine_threadsafe(self._call(request), self._loop)
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await asyncio.wrap_future(future)
        except Rejected:
            raise
        except Exception:
            if limit.expired():
                logger.error("the hook took longer than %g s; its thread is here:\n%s", self._timeout, self._stack())
            else:
                logger.exception("the hook failed")
            raise ShapeFailed(FAILED) from None

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=1)
        if not self._thread.is_alive():
            self._loop.close()

    async def _call(self, request: HookRequest) -> dict[str, Any]:
        return await self._hook(request)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame))
