"""The two sides of each check: Ollama asked directly, and through the gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any, Protocol

import aiohttp
import orjson

from tests.sse import Event, Events

Json = dict[str, Any]

POLL_SECONDS = 0.02
"""Seconds between two requests to `/api/ps`."""

AGENT = {"User-Agent": "test-live"}
"""The User-Agent that tells direct requests from the gateway's."""


@dataclass
class Answer:
    """Ollama's lines, and the error text of a refusal or failure. `code` and `phases` come from the gateway."""

    status: int
    lines: list[Json] = field(default_factory=list)
    error: str = ""
    code: str = ""
    phases: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[Json]:
        """What each line adds to the answer: in a chat that is its message."""
        return [line.get("message", line) for line in self.lines]

    @property
    def text(self) -> str:
        return "".join(part.get("content") or part.get("response") or "" for part in self.parts)

    @property
    def thinking(self) -> str:
        return "".join(part.get("thinking") or "" for part in self.parts)

    @property
    def calls(self) -> list[str]:
        """The tool calls without their ids, which are random."""
        functions = [call["function"] for part in self.parts for call in part.get("tool_calls") or []]
        return [f"{function['name']}({function['arguments']})" for function in functions]

    @property
    def content(self) -> tuple[Any, ...]:
        """The parts that repeat when a request does: everything but times, counts and ids."""
        prompts = [line.get("context") or line.get("_debug_info") for line in self.lines]
        return self.text, self.thinking, self.calls, prompts[-1:]

    @property
    def fields(self) -> set[str]:
        """The names of all fields that are not empty, without durations: Ollama leaves out those that are zero."""
        named = [item for each in (*self.lines, *self.parts) for item in each.items()]
        return {name for name, value in named if value not in ("", None) and not name.endswith("_duration")}

    @property
    def done(self) -> bool:
        return bool(self.lines) and self.lines[-1].get("done") is True and not self.error

    @property
    def short(self) -> str:
        """A short form for a cell of the table."""
        if self.error:
            return f"{self.code or self.status}: {self.error}"
        return ", ".join(self.calls) or repr(self.text or self.thinking)


class Side(Protocol):
    async def ask(self, kind: str, body: Json | bytes) -> Answer:
        """The whole answer to a POST of `body` to chat or generate."""

    async def leave_while(self, phase: str, body: Json) -> bool:
        """Ask a chat and go away in this phase. False if that was over before it could be seen."""


class Ollama:
    """The direct side. `model` is its name in Ollama's lists."""

    def __init__(self, url: str, session: aiohttp.ClientSession, model: str = "") -> None:
        self._url, self._session, self.model = url, session, model

    async def ask(self, kind: str, body: Json | bytes) -> Answer:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        async with self._session.post(f"{self._url}/api/{kind}", data=data, headers=AGENT) as response:
            text = await response.read()
        try:
            lines = [orjson.loads(line) for line in text.split(b"\n") if line]
        except orjson.JSONDecodeError:
            return Answer(response.status, error=text.decode(errors="replace"))
        error = str(lines.pop()["error"]) if lines and "error" in lines[-1] else ""
        return Answer(response.status, lines, error)

    async def leave_while(self, phase: str, body: Json) -> bool:
        # Ollama's status line comes with the first token
        asked = asyncio.ensure_future(self._session.post(f"{self._url}/api/chat", json=body, headers=AGENT))
        seen = await self.sees(phase, asked)
        if asked.done():
            asked.result().close()
        else:
            asked.cancel()
        return seen

    async def sees(self, phase: str, first_token: asyncio.Future[Any]) -> bool:
        """Wait until a request is in this phase, told by its first token and `/api/ps`. False if it was over before."""
        if phase == "generating":
            await first_token
            return True
        while not first_token.done():
            await asyncio.sleep(POLL_SECONDS)
            if await self.loaded() == (phase == "prompt"):
                return not first_token.done()
        return False

    async def loaded(self) -> bool:
        return any(model["name"] == self.model for model in (await self.get("/api/ps"))["models"])

    async def comes_to(self, loaded: bool, within: float) -> float | None:
        """After how many seconds `/api/ps` lists the model, or no longer lists it; None if that took too long."""
        begin = monotonic()
        while await self.loaded() != loaded:
            if monotonic() - begin > within:
                return None
            await asyncio.sleep(POLL_SECONDS)
        return monotonic() - begin

    async def unload(self, within: float = inf) -> float | None:
        """Wait until the model is unloaded, which Ollama does not do while anybody uses it."""
        await self.ask("generate", {"model": self.model, "keep_alive": 0})
        return await self.comes_to(False, within)

    async def get(self, path: str) -> Json:
        async with self._session.get(self._url + path, headers=AGENT) as response:
            answer: Json = await response.json(content_type=None)
        return answer

    async def show(self) -> Json:
        async with self._session.post(self._url + "/api/show", json={"model": self.model}, headers=AGENT) as response:
            answer: Json = await response.json()
        return answer


class Gateway:
    """The other side, with its three ways to ask: by POST, by GET and as a stream resource."""

    def __init__(self, url: str, session: aiohttp.ClientSession, ollama: Ollama) -> None:
        self._url, self._session, self._ollama = url, session, ollama

    async def ask(self, kind: str, body: Json | bytes) -> Answer:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        async with self._session.post(f"{self._url}/api/{kind}", data=data) as response:
            return await _answer(response)

    async def ask_by_query(self, kind: str, query: dict[str, str]) -> Answer:
        async with self._session.get(f"{self._url}/api/{kind}", params=query) as response:
            return await _answer(response)

    async def ask_by_stream(self, kind: str, body: Json) -> Answer:
        async with self._stream(kind, body) as (_, response):
            return await _answer(response)

    async def ask_with_a_cut(self, body: Json) -> tuple[Answer, list[str]]:
        """A chat whose connection is closed after its third event and opened again, and the ids of all its events."""
        seen: list[Event] = []
        async with self._stream("chat", body, resume_window=30) as (url, response):
            async for event in Events(response):
                seen.append(event)
                if sum(each.name == "message" for each in seen) == 3:
                    break
            response.close()
        last = next(event.id for event in reversed(seen) if event.id)
        async with self._session.get(url, headers={"Last-Event-ID": last}) as response:
            seen += [event async for event in Events(response)]
        answer = Answer(200)
        for event in seen:
            _take(answer, event)
        return answer, [event.id for event in seen if event.id and event.name == "message"]

    async def leave_while(self, phase: str, body: Json, *, stop: bool = False) -> bool:
        """With `stop` the stream is deleted, otherwise its only viewer leaves."""
        async with self._stream("chat", body) as (url, response):
            events = Events(response)
            async for event in events:  # with the first status Ollama has been asked
                if event.name in ("status", "message"):
                    break
            if event.name == "message":
                seen = phase == "generating"
            else:
                first_token = asyncio.ensure_future(events.next())
                seen = await self._ollama.sees(phase, first_token)
                first_token.cancel()
            if stop:
                await self._session.delete(url)
            response.close()
        return seen

    async def get(self, path: str) -> Json:
        async with self._session.get(self._url + path) as response:
            answer: Json = await response.json()
        return answer

    @asynccontextmanager
    async def _stream(self, kind: str, body: Json, **options: Any) -> AsyncIterator[tuple[str, aiohttp.ClientResponse]]:
        async with self._session.post(self._url + "/api/streams", json={kind: body, **options}) as created:
            url = self._url + (await created.json())["url"]
        async with self._session.get(url) as response:
            yield url, response


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    if response.status != 200:
        refusal = await response.json()
        return Answer(response.status, error=refusal["error"], code=refusal["code"])
    answer = Answer(200)
    async for event in Events(response):
        _take(answer, event)
    return answer


def _take(answer: Answer, event: Event) -> None:
    if event.name == "status":
        answer.phases.append(event.json["phase"])
    elif event.name == "message" and "error" in event.json:
        answer.error, answer.code = event.json["error"], event.json["code"]
    elif event.name == "message":
        answer.lines.append(event.json)
