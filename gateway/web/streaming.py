"""A log cursor as an HTTP response, run by sse-starlette's `EventSourceResponse`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sse_starlette.sse import AppStatus, EventSourceResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.dialects import events, ollama
from gateway.jobs import stream_url
from gateway.streams.registry import Streams
from gateway.web.responses import EVENT_STREAM, UNBUFFERED

# At a signal sse-starlette would cut every stream at once. Here streams are drained and end by themselves.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


class EventResponse(EventSourceResponse):
    """Sends chunks of whole events, and a ping every `ping_seconds`.

    `send_body` is the server's own `send`. Middlewares only change how a response begins, and sending each token
    through all of them would be a good part of what a token costs.
    """

    def __init__(self, chunks: AsyncGenerator[bytes], *, ping_seconds: float, send_body: Send) -> None:
        super().__init__(chunks, headers=EVENT_STREAM, sep="\n", ping=ping_seconds, ping_message_factory=events.ping)
        del self.headers["Connection"]  # that is the server's to say
        self._chunks = chunks
        self._send_body = send_body

    async def _stream_response(self, send: Send) -> None:
        """The library's loop, without its per-event encoding, logging and time limit, which every token would pay."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                await self._send_body({"type": "http.response.body", "body": chunk, "more_body": True})
                # The client may have gone: anyio cancels a task only while it waits, and one that always finds more
                # to send never does.
                if not self.active:
                    return
        async with self._send_lock:  # no ping may follow the end
            self.active = False
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class OllamaResponse(EventResponse):
    """A log cursor in Ollama's protocol, whose clients read the status: it waits for what it is to tell of.

    But no longer than `ping_seconds`: then it is a 200, and white space keeps the connection open until there is more.
    """

    def __init__(
        self, sid: str, chunks: AsyncGenerator[bytes], answer: ollama.Answer, *, ping_seconds: float, send_body: Send
    ) -> None:
        super().__init__(chunks, ping_seconds=ping_seconds, send_body=send_body)
        self._sid = sid
        self._answer = answer
        self._begun = False
        self._time = asyncio.get_running_loop().time
        self._sent_at = self._time()

    async def _stream_response(self, send: Send) -> None:
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                if content := self._answer.feed(chunk):
                    if not self._begun:
                        async with self._send_lock:
                            await self._begin(send)
                    self._sent_at = self._time()
                    await self._send_body({"type": "http.response.body", "body": content, "more_body": True})
                    if not self.active:
                        return
        rest, failure = self._answer.finish(), self._answer.failure
        async with self._send_lock:
            self.active = False
            if not self._begun and (failure or rest):
                await self._begin(send, failure and failure["status"], len(rest))
            else:
                await self._begin(send)
                rest = rest and rest + self._answer.line_end
            await send({"type": "http.response.body", "body": rest, "more_body": False})

    async def _ping(self, send: Send) -> None:
        while self.active:
            await asyncio.sleep(self._sent_at + self.ping_interval - self._time())
            if self._time() - self._sent_at < self.ping_interval:
                continue
            async with self._send_lock:
                if self.active:
                    await self._begin(send)
                    self._sent_at = self._time()
                    await self._send_body({"type": "http.response.body", "body": ollama.KEEPALIVE, "more_body": True})

    async def _begin(self, send: Send, failed: int | None = None, length: int | None = None) -> None:
        """Send the head, unless it has been sent. `failed` is the status of an error, which is an object by itself."""
        if self._begun:
            return
        self._begun = True
        status, headers = 200, UNBUFFERED | {"Content-Type": self._answer.content_type}
        if failed is None:
            headers["Content-Location"] = stream_url(self._sid)
        else:
            status, headers["Content-Type"] = ollama.status_of(failed), ollama.JSON
        if length is not None:
            headers["Content-Length"] = str(length)
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})


class Watched:
    """A response whose client counts as a viewer of a stream for as long as the response runs.

    The count is kept around the response, not in one of its tasks: a task that is cancelled before its first step
    runs no `finally`, and would leave a viewer counted for ever.
    """

    def __init__(self, response: ASGIApp, streams: Streams, sid: str) -> None:
        self._response = response
        self._streams = streams
        self._sid = sid

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leave = self._streams.watch(self._sid)
        try:
            await self._response(scope, receive, send)
        finally:
            leave()
