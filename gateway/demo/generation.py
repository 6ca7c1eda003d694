"""One answer of chat or generate on its way out: lines, pace and counters, in Ollama's field order."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from time import monotonic, perf_counter_ns
from typing import Any

from gateway.demo.asks import Ask
from gateway.demo.prompt import token_ids
from gateway.demo.wire import JSON, Exchange, dumps, quote, timestamp


class Generation:
    """Says tokens to one client: `think`, `say` and `call`, then one of `done`, `end` or `fail`.

    With `stream:false` the same calls build the single answer.
    """

    def __init__(self, ask: Ask, exchange: Exchange, token_rate: float, on_first_token: Callable[[], None]) -> None:
        self.ask, self.exchange = ask, exchange
        self.rate = token_rate
        """Tokens a second; 0 is as fast as possible."""
        self._on_first_token = on_first_token
        self.load_ns = self.prompt_ns = 0
        self._born_ns = perf_counter_ns()
        self._first_token_at = 0.0
        self._tokens: list[str] = []
        self._shown: list[str] = []  # those of a single answer, which has a log probability for each
        self._text = self._thinking = ""
        chat = ask.kind == "chat"
        self._head = b'{"model":%b,"created_at":"' % quote(ask.model)
        self._open = b'","message":{"role":"assistant","content":' if chat else b'","response":'
        self._close = b"}," if chat else b","

    @property
    def age_ns(self) -> int:
        return perf_counter_ns() - self._born_ns

    async def think(self, pieces: Iterable[str]) -> None:
        for piece in pieces:
            await self._pace(piece)
            if self.ask.stream:
                await self.exchange.write(self.line(thinking=piece, tail=self._tail(piece)))
            else:
                self._thinking += piece
                self._shown.append(piece)

    async def say(self, pieces: Iterable[str]) -> None:
        for piece in pieces:
            await self._pace(piece)
            if self.ask.stream:
                await self.exchange.write(self.line(piece, tail=self._tail(piece)))
            else:
                self._text += piece
                self._shown.append(piece)

    async def ponder(self, pieces: Iterable[str]) -> None:
        """Tokens that the server keeps, because it has to parse them: nothing is sent."""
        for piece in pieces:
            await self._pace(piece)

    async def silent_token(self) -> None:
        """A token that the server swallows: a line without text."""
        await self._pace("")
        if self.ask.stream:
            await self.exchange.write(self.line())

    async def call(self, calls: list[dict[str, Any]]) -> None:
        """A line with tool calls that is not the last."""
        await self.exchange.write(self.line(calls=calls))

    async def done(self, reason: str = "stop", calls: list[dict[str, Any]] | None = None) -> None:
        """The last line, with the counters; the whole answer with `stream:false`."""
        await self._last({"done": True, "done_reason": reason, **self._counters()}, calls)

    async def single(self, reason: str) -> None:
        """The answer to a request to load or unload: one object without LF, though streaming is on."""
        await self.exchange.reply(self.line(tail=b'"done":true,"done_reason":%b' % quote(reason))[:-1], JSON)

    async def rendered(self) -> None:
        """The prompt instead of an answer: one object that is not `done`."""
        info: dict[str, Any] = {"rendered_template": self.ask.prompt}
        if images := sum(len(message.get("images") or []) for message in self.ask.messages):
            info["image_count"] = images
        nothing = {"message": {"role": "", "content": ""}} if self.ask.kind == "chat" else {"response": ""}
        head = {"model": self.ask.model, "created_at": timestamp()}
        await self.exchange.json({**head, **nothing, "done": False, "_debug_info": info})

    async def end(self) -> None:
        """A clean end without `done:true`."""
        if self.ask.stream:
            await self.exchange.end()
        else:
            await self._last({"done": False})

    async def fail(self, message: str) -> None:
        """An error after the first token: the last line of a stream, or a status 500 without one."""
        if self.ask.stream:
            await self.exchange.write(dumps({"error": message}) + b"\n")
            await self.exchange.end()
        else:
            await self.exchange.json({"error": message}, 500)

    def line(
        self,
        text: str = "",
        thinking: str = "",
        calls: list[dict[str, Any]] | None = None,
        tail: bytes = b'"done":false',
    ) -> bytes:
        """One line with its LF. `tail` is what follows the message, from `done` on."""
        parts = [self._head, timestamp().encode(), self._open, quote(text)]
        if thinking:
            parts += [b',"thinking":', quote(thinking)]
        if calls:
            parts += [b',"tool_calls":', dumps(calls)]
        return b"".join([*parts, self._close, tail, b"}\n"])

    async def _pace(self, token: str) -> None:
        """Until this token is due, counted from the first one so that the pace does not drift."""
        count = len(self._tokens)
        if not count:
            self._first_token_at = monotonic()
            self._on_first_token()
        if self.rate:
            due = self._first_token_at + count / self.rate
            await asyncio.sleep(max(0, due - monotonic()))
        self._tokens.append(token)

    def _tail(self, token: str) -> bytes:
        if self.ask.logprobs is None:
            return b'"done":false'
        return b'"done":false,"logprobs":' + dumps([_logprob(token, self.ask.logprobs)])

    async def _last(self, fields: dict[str, Any], calls: list[dict[str, Any]] | None = None) -> None:
        if self.ask.logprobs is not None and self._shown:
            fields["logprobs"] = [_logprob(piece, self.ask.logprobs) for piece in self._shown]
        line = self.line(self._text, self._thinking, calls, dumps(fields)[1:-1])
        if self.ask.stream:
            await self.exchange.write(line)
            await self.exchange.end()
        else:
            await self.exchange.reply(line[:-1], JSON)

    def _counters(self) -> dict[str, Any]:
        """Durations are nanoseconds; what is zero is absent."""
        prompt = self.ask.prompt_tokens
        counters = {
            "total_duration": self.age_ns,
            "load_duration": self.load_ns,
            "prompt_eval_count": len(prompt) + len(self.ask.context),
            "prompt_eval_duration": self.prompt_ns,
            "eval_count": len(self._tokens),
            "eval_duration": int((monotonic() - self._first_token_at) * 1e9) if self._tokens else 0,
        }
        counted = {name: count for name, count in counters.items() if count}
        if self.ask.kind == "generate" and not self.ask.raw:
            return {"context": [*self.ask.context, *token_ids(prompt), *token_ids(self._tokens)], **counted}
        return counted


def _logprob(token: str, alternatives: int) -> dict[str, Any]:
    """A made-up log probability with that many alternatives, the token itself first."""

    def entry(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": round(logprob, 2), "bytes": list(text.encode())}

    likely = -hashlib.sha256(token.encode()).digest()[0] / 100
    others = [token, " a", " the", " and", " of", " in", " is", " to", " it", " that"]
    top = [entry(text, likely - 1.25 * rank) for rank, text in enumerate(others[:alternatives])]
    return {**entry(token, likely), **({"top_logprobs": top} if top else {})}
