"""The simulated server: its routes, what it has seen, and how one request is served."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Literal
from zlib import crc32

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.demo import faults, wire
from gateway.demo.asks import Ask, Kind, duration_ns, parse
from gateway.demo.embedding import embedding
from gateway.demo.generation import Generation
from gateway.demo.models import INSTALLED, Model, full_name
from gateway.demo.pulls import Pulls
from gateway.demo.scheduler import Scheduler
from gateway.demo.script import Script
from gateway.demo.wire import BARE_JSON, Door, Endpoint, Exchange, RefusedError, dumps, forever

VERSION = "0.33.0-demo"
READ_TOKENS = 250
"""A prompt is read for `prompt_seconds`, and for as long again with each so many tokens."""

REMEMBERED = 4096
"""So many requests are kept for a test to look at, and so many conversations for another answer."""

State = Literal["waiting", "loading", "prompt", "generating", "done", "cancelled"]


@dataclass
class Request:
    """A chat, generate or pull request as it came in, and how far it has got.

    `waiting` is for a slot, or before anything else is known; `cancelled` means that the client left.
    """

    path: str
    headers: Headers
    body: bytes
    state: State = "waiting"


class Simulator:
    """A simulated Ollama. Serve `app` with uvicorn, as the outermost app.

    Times are seconds, `token_rate` is tokens a second, and 0 means no pause at all. `parallel` is
    OLLAMA_NUM_PARALLEL, `max_queue` is OLLAMA_MAX_QUEUE, `keep_alive_seconds` is OLLAMA_KEEP_ALIVE. `max_loaded` is
    OLLAMA_MAX_LOADED_MODELS, and `vram` the bytes that all loaded models may take; 0 is no limit.
    """

    def __init__(
        self,
        *,
        token_rate: float = 35.0,
        load_seconds: float = 1.5,
        prompt_seconds: float = 0.3,
        parallel: int = 4,
        max_queue: int = 512,
        max_loaded: int = 0,
        vram: int = 0,
        list_faults: bool = False,
        keep_alive_seconds: float = 300,
        pull_seconds: float = 6.0,
    ) -> None:
        self.token_rate, self.load_seconds, self.prompt_seconds = token_rate, load_seconds, prompt_seconds
        self.keep_alive_ns = int(keep_alive_seconds * 1e9)
        self.models = {model.name: model for model in INSTALLED}
        if list_faults:
            for fault in faults.FAULTS:
                name = faults.PREFIX + fault
                self.models[name] = faults.model(name)
        self.requests: deque[Request] = deque(maxlen=REMEMBERED)
        self.states: Counter[State] = Counter()
        """How many requests are in each state, all since the start included."""
        self._asked: Counter[int] = Counter()
        self._scheduler = Scheduler(parallel, max_queue, max_loaded, vram)
        self._pulls = Pulls(self.models, pull_seconds)
        self._changed = asyncio.Event()
        self.app: ASGIApp = Door(self._starlette())

    @property
    def loads(self) -> list[str]:
        """The models that were loaded, in order."""
        return [*self._scheduler.loads]

    @property
    def running(self) -> int:
        """Chat, generate and pull requests that are open now."""
        return sum(count for state, count in self.states.items() if state not in ("done", "cancelled"))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition()` holds. It is looked at after every change of a request's state."""
        while not condition():
            await self._changed.wait()

    def _starlette(self) -> Starlette:
        def route(path: str, handler: Callable[[Exchange], Awaitable[None]], *methods: str) -> Route:
            return Route(path, Endpoint(handler), methods=list(methods))

        return Starlette(
            routes=[
                route("/", self._root, "GET"),
                route("/api/version", self._version, "GET"),
                route("/api/tags", self._tags, "GET"),
                route("/api/ps", self._ps, "GET"),
                route("/api/show", self._show, "POST"),
                route("/api/delete", self._delete, "DELETE"),
                route("/api/chat", self._tracked(self._chat), "POST"),
                route("/api/generate", self._tracked(self._generate), "POST"),
                route("/api/pull", self._tracked(self._pull), "POST"),
                route("/api/embed", self._tracked(self._embed), "POST"),
                route("/api/embeddings", self._tracked(self._embeddings), "POST"),
                route("/simulator", self._counts, "GET"),
            ],
            exception_handlers={404: wire.not_found, 405: wire.method_not_allowed},
        )

    async def _root(self, exchange: Exchange) -> None:
        await exchange.reply(b"Ollama is running", "text/plain; charset=utf-8")

    async def _version(self, exchange: Exchange) -> None:
        await exchange.json({"version": VERSION})

    async def _tags(self, exchange: Exchange) -> None:
        newest_first = sorted(self.models.values(), key=lambda model: -(model.modified_ns // 10**9))
        await exchange.json({"models": [model.tag() for model in newest_first]})

    async def _ps(self, exchange: Exchange) -> None:
        await exchange.json({"models": [runner.ps() for runner in self._scheduler.loaded()]})

    async def _show(self, exchange: Exchange) -> None:
        wanted = self._wanted(exchange)
        model = self._find(full_name(wanted))
        if model is None:
            raise RefusedError(404, f"model '{full_name(wanted) or wanted}' not found")
        await exchange.json(model.show())

    async def _delete(self, exchange: Exchange) -> None:
        wanted = self._wanted(exchange)
        model = self._find(full_name(wanted))
        if model is None:
            raise RefusedError(404, f"model '{wanted}' not found")
        self.models.pop(model.name, None)
        self._scheduler.drop(model)
        await exchange.reply()

    async def _counts(self, exchange: Exchange) -> None:
        """Not Ollama's: what is going on, for a test in another process."""
        await exchange.json({"running": self.running, "states": dict(self.states)})

    def _wanted(self, exchange: Exchange) -> str:
        fields = {"model": (str, "string"), "name": (str, "string")}
        value = parse(exchange.body, "ShowRequest", fields)
        wanted: str = value.get("model") or value.get("name") or ""
        if not wanted:
            raise RefusedError(400, "model is required")
        return wanted

    def _find(self, name: str | None) -> Model | None:
        """By its full name, in upper or lower case; the faults are there without being installed."""
        if name is None:
            return None
        found = next((model for own, model in self.models.items() if own.lower() == name.lower()), None)
        return found or (faults.model(name) if faults.find(name) else None)

    def _tracked(
        self, handler: Callable[[Exchange, Request], Awaitable[None]]
    ) -> Callable[[Exchange], Awaitable[None]]:
        """Note the request, and its end whatever that is."""

        async def tracked(exchange: Exchange) -> None:
            request = Request(exchange.path, exchange.headers, exchange.body)
            self.requests.append(request)
            self.states["waiting"] += 1
            self._wake()
            end: State = "done"
            try:
                await handler(exchange, request)
            except asyncio.CancelledError:
                if not exchange.hung_up:
                    end = "cancelled"
                raise
            finally:
                self._enter(request, end)

        return tracked

    def _enter(self, request: Request, state: State) -> None:
        self.states[request.state] -= 1
        request.state = state
        self.states[state] += 1
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _chat(self, exchange: Exchange, request: Request) -> None:
        await self._serve("chat", exchange, request)

    async def _generate(self, exchange: Exchange, request: Request) -> None:
        await self._serve("generate", exchange, request)

    async def _serve(self, kind: Kind, exchange: Exchange, request: Request) -> None:
        ask = Ask.parse(kind, exchange.body)
        model = self._find(ask.full_name())
        if model is None:
            raise RefusedError(404, f"model '{ask.model}' not found")
        generation = Generation(ask, exchange, self.token_rate, lambda: self._enter(request, "generating"))
        if not ask.messages and ask.keep_alive_ns == 0:
            self._scheduler.unload(model)
            await generation.single("unload")
            return
        ask.check_against(model)
        fault = faults.find(model.name)
        await self._fail(model, "arrival", generation)
        async with self._scheduler.use(
            model,
            self.keep_alive_ns if ask.keep_alive_ns is None else ask.keep_alive_ns,
            min(int(ask.options.get("num_ctx") or 4096), model.context_length),
            self.load_seconds if fault is None or fault.load_seconds is None else fault.load_seconds,
            lambda: self._enter(request, "loading"),
        ) as runner:
            generation.load_ns = generation.age_ns
            await self._fail(model, "load", generation)
            if not ask.messages:
                await generation.single("load")
                return
            if ask.render_only:
                await generation.rendered()
                return
            ask.check_format()
            ask.check_length(runner.context_length)
            self._enter(request, "waiting")
            async with runner.slots:
                self._enter(request, "prompt")
                begin = generation.age_ns
                if self.prompt_seconds:
                    read = min(len(ask.prompt_tokens), runner.context_length)
                    await asyncio.sleep(self.prompt_seconds * (1 + read / READ_TOKENS))
                generation.prompt_ns = generation.age_ns - begin
                if fault:
                    await self._fail(model, "prompt", generation)
                else:
                    script = Script.write(ask, model, self._seed(ask))
                    await script.perform(generation, native=model.native)

    async def _embed(self, exchange: Exchange, request: Request) -> None:
        value = parse(exchange.body, "EmbedRequest", {"model": (str, "string")})
        given = value.get("input") or []
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            raise RefusedError(400, "invalid input type")
        began = perf_counter_ns()
        vectors = await self._vectors(request, value, texts)
        words = sum(len(text.split()) for text in texts)
        figures = {"total_duration": perf_counter_ns() - began} | ({"prompt_eval_count": words} if words else {})
        await exchange.json({"model": value["model"], "embeddings": vectors, **figures})

    async def _embeddings(self, exchange: Exchange, request: Request) -> None:
        value = parse(exchange.body, "EmbeddingRequest", {"model": (str, "string"), "prompt": (str, "string")})
        vectors = await self._vectors(request, value, [value["prompt"]] if value.get("prompt") else [])
        await exchange.json({"embedding": vectors[0] if vectors else []})

    async def _vectors(self, request: Request, value: dict[str, Any], texts: list[str]) -> list[list[float]]:
        """A vector for each text. Without any, the model is loaded."""
        model = self._find(full_name(value.get("model") or ""))
        if model is None:
            raise RefusedError(404, f"model '{value.get('model') or ''}' not found")
        fault = faults.find(model.name)
        load_seconds = self.load_seconds if fault is None or fault.load_seconds is None else fault.load_seconds
        keep_alive_ns = duration_ns(value.get("keep_alive"))
        async with self._scheduler.use(
            model,
            self.keep_alive_ns if keep_alive_ns is None else keep_alive_ns,
            model.context_length,
            load_seconds,
            lambda: self._enter(request, "loading"),
        ) as runner:
            self._enter(request, "waiting")
            async with runner.slots:
                self._enter(request, "prompt")
                await asyncio.sleep(self.prompt_seconds)
                dimensions = value.get("dimensions") or model.embedding_length
                return [embedding(text, min(dimensions, model.embedding_length)) for text in texts]

    def _seed(self, ask: Ask) -> int:
        """As asked for, and none at temperature 0; else how often this very conversation was asked before, so that
        the answers differ.
        """
        if ask.options.get("temperature") == 0:
            return 0
        if (seed := ask.options.get("seed")) is not None:
            return int(seed)
        if len(self._asked) > REMEMBERED:
            self._asked.clear()
        conversation = crc32(dumps(ask.messages))
        self._asked[conversation] += 1
        return self._asked[conversation] - 1

    async def _fail(self, model: Model, when: str, generation: Generation) -> None:
        fault = faults.find(model.name)
        if fault and fault.when == when:
            if fault.kills_runner:
                self._scheduler.drop(model)
            await fault.act(generation, fault.n)

    async def _pull(self, exchange: Exchange, request: Request) -> None:
        fields = {"model": (str, "string"), "name": (str, "string"), "stream": (bool, "bool")}
        value = parse(exchange.body, "PullRequest", fields)
        name = full_name(value.get("model") or value.get("name") or "")
        if name is None:
            raise RefusedError(400, "invalid model name")
        self._enter(request, "generating")
        streams = value.get("stream") is not False
        line: dict[str, Any] = {}
        async with aclosing(self._pulls.lines(name)) as lines:
            async for line in lines:
                if streams:
                    await exchange.write(dumps(line) + b"\n")
                if "completed" not in line:
                    continue
                match name:  # once bytes have arrived
                    case "fault:stall":
                        await forever()
                    case "fault:bare-eof":
                        await exchange.hang_up()
                    case "fault:truncate":
                        break
        if streams:
            await exchange.end()
        else:
            await exchange.json(line, 500 if "error" in line else 200, BARE_JSON)
