"""A log cursor as an HTTP response, by sse-starlette's `EventSourceResponse`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import events
from gateway.errors import GatewayError
from gateway.streams import Streams

HEADERS = {
    "Content-Type": events.CONTENT_TYPE,
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}

_PING = ServerSentEvent(comment="ping", sep="\n").encode()


class StreamResponse(EventSourceResponse):
    """Stream `sid` as its log reads, with a ping comment where that tells of silence.

    Its client counts as a viewer from the first to the last moment of the response.
    """

    def __init__(self, streams: Streams, sid: str, chunks: AsyncIterator[bytes]) -> None:
        super().__init__(chunks, headers=HEADERS)
        self._streams = streams
        self._sid = sid

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Without the tasks and the timer that sse-starlette has for each stream: pings come from the log's readers."""
        # around all and not in the task: one that is cancelled before its first step runs no `finally`
        with self._streams.watching(self._sid):
            async with asyncio.TaskGroup() as tasks:
                # in a task of its own, since each wake-up of this one goes through all that called it
                streaming = tasks.create_task(self._stream(send, scope["send"]))
                while (await receive())["type"] != "http.disconnect":  # which also follows the end of the response
                    pass
                streaming.cancel()

    async def _stream(self, begin: Send, send: Send) -> None:
        """`begin` goes through the middlewares, `send` past them."""
        await begin({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self.body_iterator) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk or _PING, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def is_event_source(request: Request[Any]) -> bool:
    """Whether the client behaves like `EventSource`: it reads no body but that of a 200, and returns when cut off."""
    return request.method == "GET" and events.CONTENT_TYPE in request.headers.get("accept", "")


def error_response(error: GatewayError) -> Response:
    """An error before there is a stream, for `EventSource`, which can read no body but that of a 200.

    Its events carry the id of a stream that is never held, so that a reconnect gets 204 and stops.
    """
    sid = events.new_sid()
    summary = {"outcome": "error", "events": 1, "first_token_ms": None, "elapsed_ms": 0}
    message = events.messages(sid, 1, [orjson.dumps(error.payload())])
    return Response(b"".join([*message, events.end(sid, 2, summary)]), headers=HEADERS)
