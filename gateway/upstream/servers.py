"""The Ollama servers, one or several: which of them a request goes to, and which is tried next when that one fails.

With one server, nothing is asked that a request does not need. With several, the gateway knows what each has
installed and loaded; that knowledge is at most `VIEW_SECONDS` old when it is used.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from typing import Self, TypedDict, TypeVar

from gateway.errors import BadUpstream, ConnectTimeout, GatewayError, ModelNotFound, OllamaUnreachable
from gateway.jobs import Json
from gateway.upstream.answers import Answers
from gateway.upstream.client import OllamaClient
from gateway.upstream.memory import ServerMemory
from gateway.upstream.wire import normal_name

logger = logging.getLogger(__name__)

VIEW_SECONDS = 5.0  # what is known of a server is refreshed when it is used and older than this
PROBE_SECONDS = 2.0  # how long a server may take to tell its version or its models; then it counts as down
LIST_SECONDS = PROBE_SECONDS + 1  # how long the list of models waits: until each server has answered or counts as down
ROUTING_SECONDS = 0.25  # how long a request waits: one server that hangs must not hold up requests to the others

_DOWN = (OllamaUnreachable, ConnectTimeout, BadUpstream)
"""Errors that make a server useless at present for every request, not only for the one that failed."""

T = TypeVar("T")


class Health(TypedDict):
    """How a server was when it was last asked: its `version`, or the `problem`. `url` is without credentials."""

    url: str
    version: str | None
    problem: str | None


class OllamaServer:
    """One Ollama server, and what is known of it.

    `running` counts this gateway's own requests there. `problem` says why the server is the last choice at present;
    it is None when there is no problem, and becomes None again when the server answers a question.
    """

    def __init__(self, client: OllamaClient) -> None:
        self.client = client
        self.memory = ServerMemory(client)
        self.running = 0
        self.problem: str | None = None
        self.tags: list[Json] = []
        self.ps: list[Json] = []
        self.loaded: set[str] = set()
        self._installed: set[str] | None = None
        self._refreshed_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    def rank(self, model: str) -> tuple[bool, bool, bool, int]:
        """The lowest rank is the best server for `model`: up, has it loaded, has it installed, is the least busy."""
        return self.problem is not None, model not in self.loaded, model not in (self._installed or ()), self.running

    def may_do_better(self, error: GatewayError, model: str) -> bool:
        """Whether a request that failed on another server with `error` is worth a try on this one."""
        missing = isinstance(error, ModelNotFound) and self.may_have(model)
        return error.status >= 500 or error.status == 429 or missing

    def may_have(self, model: str) -> bool:
        """Whether a model, by its normal name, is installed, as far as that is known."""
        return self._installed is None or model in self._installed

    async def serve(self, model: str, read: Callable[[OllamaClient], Awaitable[T]]) -> T:
        """Call `read`, and have the server's models refreshed if the request may have changed them."""
        self.running += 1
        try:
            answer = await read(self.client)
        except _DOWN as error:
            self._record_problem(error)
            self._refreshed_at = float("-inf")
            raise
        finally:
            self.running -= 1
        if model not in self.loaded:  # the request has loaded or pulled it
            self._refreshed_at = float("-inf")
        return answer

    async def check(self) -> Health:
        """Ask for its version, within `PROBE_SECONDS`."""
        version = await self._probe(self.client.version())
        return {"url": self.client.name, "version": version, "problem": self.problem if version is None else None}

    def refresh(self, patience: float) -> asyncio.Task[None] | None:
        """Start to refresh its models if they are out of date. The task is worth waiting for `patience` seconds."""
        now = asyncio.get_running_loop().time()
        if self._refreshing is None and now - self._refreshed_at > VIEW_SECONDS:
            self._refreshed_at = now
            self._refreshing = asyncio.create_task(self._refresh(), name="refresh")
        return self._refreshing if now - self._refreshed_at < patience else None

    async def close(self) -> None:
        """Stop a refresh that is running."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    async def _refresh(self) -> None:
        try:
            await asyncio.gather(self._refresh_installed(), self._refresh_loaded())
        finally:
            self._refreshing = None

    async def _refresh_installed(self) -> None:
        tags = await self._probe(self.client.tags())
        if tags is not None:
            self.tags = tags
            self._installed = _names(tags)

    async def _refresh_loaded(self) -> None:
        # `/api/ps` can block while a model loads, so a failure here says nothing of the server's health
        with suppress(TimeoutError, GatewayError):
            async with asyncio.timeout(PROBE_SECONDS):
                self.ps = await self.client.ps()
                self.loaded = _names(self.ps)

    async def _probe(self, question: Awaitable[T]) -> T | None:
        """The answer to a question; None without one, with the problem recorded."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                answer = await question
        except TimeoutError:
            self._record_problem(OllamaUnreachable(f"Ollama does not answer within {PROBE_SECONDS:g} s."))
        except GatewayError as error:
            self._record_problem(error)
        else:
            self._record_problem(None)
            return answer
        return None

    def _record_problem(self, error: GatewayError | None) -> None:
        if error and not self.problem:
            logger.warning("Ollama at %s failed: %s", self.client.name, error.code)
        elif self.problem and not error:
            logger.info("Ollama at %s answers again", self.client.name)
        self.problem = error.message if error else None


class Upstreams:
    """All servers as one. Use it as an async context manager.

    `answers` has what is asked about their models; forget it when some may have been loaded, unloaded or pulled.
    """

    def __init__(self, clients: Sequence[OllamaClient]) -> None:
        self.answers, self._checks = Answers(), Answers()
        self.servers = [OllamaServer(client) for client in clients]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for server in self.servers:
            await self._stack.enter_async_context(server.client)
            self._stack.push_async_callback(server.close)
        for answers in (self.answers, self._checks):
            self._stack.push_async_callback(answers.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def ask(self, model: str, read: Callable[[OllamaClient], Awaitable[T]], first: str = "") -> Awaitable[T]:
        """Call `read` with the server of the name `first`, or with the best one for `model`.

        If it raises, try the next best server that may do better. `read` must therefore raise a `GatewayError` only
        as long as nothing was relayed. Of several errors, the first one that a retry can help is raised, or else the
        first.
        """
        if len(self.servers) == 1:
            # Returned as it is: another coroutine around it would be resumed for every token.
            return read(self.servers[0].client)
        return self._ask_best(normal_name(model), read, first)

    async def tags(self) -> list[tuple[OllamaClient, Json]]:
        """The installed models of all servers that are up, newest first, one per name, each with a server that has it.

        Raises `UpstreamError` or `ConnectTimeout` when no server is up.
        """
        return await self.answers.get("tags", self._tags)

    async def ps(self) -> list[Json]:
        """The loaded models of all servers that are up."""
        if len(self.servers) == 1:
            return await self.servers[0].client.ps()
        await self._refresh(LIST_SECONDS)
        return [model for server in self.servers if server.problem is None for model in server.ps]

    async def check(self) -> list[Health]:
        """Each server, and whether it answers, in their order."""
        return await self._checks.get("check", self._check)

    async def _tags(self) -> list[tuple[OllamaClient, Json]]:
        if len(self.servers) == 1:
            client = self.servers[0].client
            return [(client, tag) for tag in sorted(await client.tags(), key=_newest_first)]
        await self._refresh(LIST_SECONDS)
        up = [server for server in self.servers if server.problem is None]
        if not up:
            raise OllamaUnreachable(str(self.servers[0].problem))
        found = [(server.client, tag) for server in up for tag in server.tags]
        newest: dict[str, tuple[OllamaClient, Json]] = {}
        for each in sorted(found, key=lambda each: _newest_first(each[1])):
            newest.setdefault(each[1]["name"], each)
        return list(newest.values())

    async def _check(self) -> list[Health]:
        return await asyncio.gather(*(server.check() for server in self.servers))

    async def _ask_best(self, model: str, read: Callable[[OllamaClient], Awaitable[T]], first: str) -> T:
        chosen = [each for each in self.servers if each.client.name == first]
        if not chosen:
            await self._refresh(ROUTING_SECONDS)
        candidates = self.servers
        failures: list[GatewayError] = []
        try:
            while candidates:
                server = chosen.pop() if chosen else min(candidates, key=lambda each: each.rank(model))
                try:
                    return await server.serve(model, read)
                except GatewayError as error:
                    failures.append(error)
                    others = [each for each in candidates if each is not server]
                    candidates = [each for each in others if each.may_do_better(error, model)]
            raise max(failures, key=lambda error: error.retryable)
        finally:
            # The errors' tracebacks hold this frame, which holds the errors and the request's body, until the next
            # garbage collection.
            failures.clear()

    async def _refresh(self, patience: float) -> None:
        """Bring what is known up to date within `patience` seconds; a server that is down is waited for if all are."""
        all_down = all(server.problem for server in self.servers)
        refreshes = [(server, server.refresh(patience)) for server in self.servers]
        if awaited := [task for server, task in refreshes if task and (all_down or not server.problem)]:
            await asyncio.wait(awaited, timeout=patience)


def _names(models: list[Json]) -> set[str]:
    return {normal_name(model["name"]) for model in models}


def _newest_first(tag: Json) -> tuple[int, str]:
    """Sort as Ollama does, newest first. Its order is random within a second, so there the names decide."""
    return -int(_modified(tag)), tag["name"]


def _modified(tag: Json) -> float:
    """When a model was changed, as a timestamp: the servers' clocks may be in different time zones."""
    try:
        return datetime.fromisoformat(str(tag.get("modified_at"))).timestamp()
    except ValueError:
        return 0
