"""The Ollama servers, one or several: which one a request goes to, and which one next when that fails.

Of a single server nothing is asked that a request does not need. Of several it is known, up to `VIEW_SECONDS` late,
what they have installed and loaded.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from typing import Self, TypedDict, TypeVar

from gateway.errors import BadUpstream, ConnectTimeout, GatewayError, ModelNotFound, OllamaUnreachable
from gateway.ollama import Json, Ollama, normal_name

logger = logging.getLogger(__name__)

VIEW_SECONDS = 5.0
"""What is known of several servers is looked up again when it is used and older than this."""

PROBE_SECONDS = 2.0
"""How long a server may take to tell its version or its models; then it counts as down."""

LOOK_SECONDS = PROBE_SECONDS + 1
"""How long the list of models waits: until each server has answered or counts as down."""

PATIENCE_SECONDS = 0.25
"""How long a request waits for what is being looked up: one server that hangs must not hold up the others' work."""

_DOWN = (OllamaUnreachable, ConnectTimeout, BadUpstream)
"""What tells that a server is of no use at present, and not for one request only."""

T = TypeVar("T")


class Health(TypedDict):
    """How a server was when it was asked: its `version`, or the `problem`. `url` is without credentials."""

    url: str
    version: str | None
    problem: str | None


class Server:
    """What is known of one Ollama server. `running` counts this gateway's own requests there; `problem` is why it
    is the last choice at present, or None, and ends when it answers a question again.
    """

    def __init__(self, ollama: Ollama) -> None:
        self.ollama = ollama
        self.running = 0
        self.problem: str | None = None
        self.tags: list[Json] = []
        self.ps: list[Json] = []
        self.loaded: set[str] = set()
        self._installed: set[str] | None = None
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    def rank(self, model: str) -> tuple[bool, bool, bool, int]:
        """The least is the best for `model`: up, has it loaded, has it installed, is the least busy."""
        return self.problem is not None, model not in self.loaded, model not in (self._installed or ()), self.running

    def may_do_better(self, error: GatewayError, model: str) -> bool:
        """Whether a request that failed elsewhere with `error` is worth a try here."""
        missing = isinstance(error, ModelNotFound) and (self._installed is None or model in self._installed)
        return error.status >= 500 or missing

    async def serve(self, model: str, read: Callable[[Ollama], Awaitable[T]]) -> T:
        """Call `read`, and look again soon if its end may have changed what is known."""
        self.running += 1
        try:
            answer = await read(self.ollama)
        except _DOWN as error:
            self._note(error)
            self._looked_at = float("-inf")
            raise
        finally:
            self.running -= 1
        if model not in self.loaded:  # what was loaded, or pulled
            self._looked_at = float("-inf")
        return answer

    async def check(self) -> Health:
        """Ask for its version, within `PROBE_SECONDS`."""
        version = await self._probe(self.ollama.version())
        return {"url": self.ollama.name, "version": version, "problem": self.problem if version is None else None}

    def look(self, patience: float) -> asyncio.Task[None] | None:
        """See what it has, if that was long ago. The task of it, while it takes no longer than `patience` seconds."""
        now = asyncio.get_running_loop().time()
        if self._looking is None and now - self._looked_at > VIEW_SECONDS:
            self._looked_at = now
            self._looking = asyncio.create_task(self._look(), name="look")
        return self._looking if now - self._looked_at < patience else None

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look(self) -> None:
        try:
            await asyncio.gather(self._look_installed(), self._look_loaded())
        finally:
            self._looking = None

    async def _look_installed(self) -> None:
        tags = await self._probe(self.ollama.tags())
        if tags is not None:
            self.tags = tags
            self._installed = _names(tags)

    async def _look_loaded(self) -> None:
        with suppress(TimeoutError, GatewayError):  # it can block while a model loads, and then says nothing of health
            async with asyncio.timeout(PROBE_SECONDS):
                self.ps = await self.ollama.ps()
                self.loaded = _names(self.ps)

    async def _probe(self, question: Awaitable[T]) -> T | None:
        """The answer; without one, None, and the problem is noted."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                answer = await question
        except TimeoutError:
            self._note(OllamaUnreachable(f"Ollama does not answer within {PROBE_SECONDS:g} s."))
        except GatewayError as error:
            self._note(error)
        else:
            self._note(None)
            return answer
        return None

    def _note(self, error: GatewayError | None) -> None:
        if error and not self.problem:
            logger.warning("Ollama at %s failed: %s", self.ollama.name, error.code)
        elif self.problem and not error:
            logger.info("Ollama at %s answers again", self.ollama.name)
        self.problem = error.message if error else None


class Upstreams:
    """All servers as one, to be used as an async context manager."""

    def __init__(self, servers: Sequence[Ollama]) -> None:
        self._servers = [Server(ollama) for ollama in servers]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for server in self._servers:
            await self._stack.enter_async_context(server.ollama)
            self._stack.push_async_callback(server.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def ask(self, model: str, read: Callable[[Ollama], Awaitable[T]]) -> Awaitable[T]:
        """Call `read` with the best server for `model`; when it raises, with the next best, if that may do better.

        So `read` must raise a `GatewayError` only as long as nothing was relayed. Of several errors the first that
        a retry can help is raised, else the first.
        """
        if len(self._servers) == 1:
            return read(self._servers[0].ollama)  # itself: each token wakes all that is in between
        return self._ask_best(normal_name(model), read)

    async def tags(self) -> list[tuple[Ollama, Json]]:
        """The installed models of all servers that are up, newest first, one a name, each with a server that has it.

        Raises `UpstreamError` or `ConnectTimeout` when no server is up.
        """
        if len(self._servers) == 1:
            ollama = self._servers[0].ollama
            return [(ollama, tag) for tag in await ollama.tags()]
        await self._look(LOOK_SECONDS)
        up = [server for server in self._servers if server.problem is None]
        if not up:
            raise OllamaUnreachable(str(self._servers[0].problem))
        found = [(server.ollama, tag) for server in up for tag in server.tags]
        newest: dict[str, tuple[Ollama, Json]] = {}
        for each in sorted(found, key=lambda each: _modified(each[1]), reverse=True):
            newest.setdefault(each[1]["name"], each)
        return list(newest.values())

    async def ps(self) -> list[Json]:
        """The loaded models of all servers that are up."""
        if len(self._servers) == 1:
            return await self._servers[0].ollama.ps()
        await self._look(LOOK_SECONDS)
        return [model for server in self._servers if server.problem is None for model in server.ps]

    async def check(self) -> list[Health]:
        """Ask every server whether it answers, in their order."""
        return await asyncio.gather(*(server.check() for server in self._servers))

    async def _ask_best(self, model: str, read: Callable[[Ollama], Awaitable[T]]) -> T:
        await self._look(PATIENCE_SECONDS)
        left = self._servers
        failures: list[GatewayError] = []
        try:
            while left:
                server = min(left, key=lambda each: each.rank(model))
                try:
                    return await server.serve(model, read)
                except GatewayError as error:
                    failures.append(error)
                    left = [each for each in left if each is not server and each.may_do_better(error, model)]
            raise max(failures, key=lambda error: error.retryable)
        finally:
            failures.clear()  # their tracebacks hold this frame, and that the request's body, until a collection

    async def _look(self, patience: float) -> None:
        """Bring what is known up to date, as far as that is done in `patience` seconds.

        Servers that are down are waited for only when there is no other.
        """
        down = all(server.problem for server in self._servers)
        looks = [look for server in self._servers if (look := server.look(patience)) and (down or not server.problem)]
        if looks:
            await asyncio.wait(looks, timeout=patience)


def _names(models: list[Json]) -> set[str]:
    return {normal_name(model["name"]) for model in models}


def _modified(tag: Json) -> float:
    """When a model was changed: the servers' clocks may be in different zones."""
    try:
        return datetime.fromisoformat(str(tag.get("modified_at"))).timestamp()
    except ValueError:
        return 0
