"""The simulated server: its routes, what it has seen, and how one request is served."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Literal

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.demo import answers
from gateway.demo.asks import Ask, Kind, parse
from gateway.demo.generation import Generation
from gateway.demo.models import INSTALLED, Model, Scheduler, full_name
from gateway.demo.wire import Door, Endpoint, Exchange, RefusedError

VERSION = "0.33.0-demo"
REMEMBERED = 4096
"""So many requests are kept for a test to look at."""

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
    OLLAMA_NUM_PARALLEL, `max_queue` is OLLAMA_MAX_QUEUE, `keep_alive_seconds` is OLLAMA_KEEP_ALIVE.
    """

    def __init__(
        self,
        *,
        token_rate: float = 35.0,
        load_seconds: float = 1.5,
        prompt_seconds: float = 0.3,
        parallel: int = 4,
        max_queue: int = 512,
        list_faults: bool = False,
        keep_alive_seconds: float = 300,
        pull_seconds: float = 6.0,
    ) -> None:
        self.token_rate, self.load_seconds, self.prompt_seconds = token_rate, load_seconds, prompt_seconds
        self.pull_seconds, self.keep_alive_ns = pull_seconds, int(keep_alive_seconds * 1e9)
        self.list_faults = list_faults
        self.models = {model.name: model for model in INSTALLED}
        self.requests: deque[Request] = deque(maxlen=REMEMBERED)
        self.states: Counter[State] = Counter()
        """How many requests are in each state, all since the start included."""
        self._scheduler = Scheduler(parallel, max_queue)
        self._changed = asyncio.Event()
        self.app: ASGIApp = Door(self._starlette())

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
                route("/simulator", self._counts, "GET"),
            ],
            exception_handlers={404: _not_found, 405: _method_not_allowed},
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
        await exchange.json(self._named(exchange).show())

    async def _delete(self, exchange: Exchange) -> None:
        model = self._named(exchange)
        del self.models[model.name]
        self._scheduler.drop(model.name)
        await exchange.reply()

    async def _counts(self, exchange: Exchange) -> None:
        """Not Ollama's: what is going on, for a test in another process."""
        await exchange.json({"running": self.running, "states": dict(self.states)})

    def _named(self, exchange: Exchange) -> Model:
        wanted = parse(exchange.body, "ShowRequest", {"model": (str, "string")}).get("model") or ""
        if not wanted:
            raise RefusedError(400, "model is required")
        name = full_name(wanted)
        if name is None or name not in self.models:
            raise RefusedError(404, f"model '{name or wanted}' not found")
        return self.models[name]

    def _tracked(
        self, handler: Callable[[Exchange, Request], Awaitable[None]]
    ) -> Callable[[Exchange], Awaitable[None]]:
        """Note the request, and its end whatever that is."""

        async def tracked(exchange: Exchange) -> None:
            request = Request(exchange.path, exchange.headers, exchange.body)
            self.requests.append(request)
            self.states["waiting"] += 1
            self._wake()
            try:
                await handler(exchange, request)
            except asyncio.CancelledError:
                self._enter(request, "cancelled")
                raise
            finally:
                if request.state != "cancelled":
                    self._enter(request, "done")

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
        model = self.models.get(ask.full_name())
        if model is None:
            raise RefusedError(404, f"model '{ask.model}' not found")
        generation = Generation(ask, exchange, self.token_rate)
        if not ask.messages and ask.keep_alive_ns == 0:
            self._scheduler.unload(model.name)
            await generation.single("unload")
            return
        ask.check_against(model)
        keep_alive_ns = self.keep_alive_ns if ask.keep_alive_ns is None else ask.keep_alive_ns
        context_length = min(int(ask.options.get("num_ctx") or 4096), model.context_length)
        begin = perf_counter_ns()
        async with self._scheduler.use(
            model, keep_alive_ns, context_length, self.load_seconds, lambda: self._enter(request, "loading")
        ) as runner:
            generation.load_ns = perf_counter_ns() - begin
            if not ask.messages:
                await generation.single("load")
                return
            ask.check_format()
            self._enter(request, "waiting")
            async with runner.slots:
                self._enter(request, "prompt")
                begin = perf_counter_ns()
                await asyncio.sleep(self.prompt_seconds)
                generation.prompt_ns = perf_counter_ns() - begin
                self._enter(request, "generating")
                await self._answer(model, generation)

    async def _answer(self, model: Model, generation: Generation) -> None:
        ask = generation.ask
        prompt = ask.texts()[-1]
        await generation.say(answers.tokens(answers.answer(prompt, len(self.requests))))
        await generation.done()


async def _not_found(_: HTTPRequest, __: Exception) -> Response:
    return Response("404 page not found", 404, {"content-type": "text/plain"})


async def _method_not_allowed(_: HTTPRequest, error: Exception) -> Response:
    allow = error.headers["Allow"]  # type: ignore[attr-defined]  # Starlette's HTTPException has them
    return Response("405 method not allowed", 405, {"allow": allow, "content-type": "text/plain"})
