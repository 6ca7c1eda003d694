"""A log cursor as an HTTP response, by sse-starlette's `EventSourceResponse`."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import orjson
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import AppStatus, EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway import events
from gateway.errors import GatewayError
from gateway.streams import Streams

HEADERS = {
    "Content-Type": events.CONTENT_TYPE,
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}

_PING = ServerSentEvent(comment="ping", sep="\n")

# At a shutdown streams end by their own terminal message when they are drained. Left on, this would cut them all
# at the signal.
AppStatus.enable_automatic_graceful_drain = False


class StreamResponse(EventSourceResponse):
    """Stream `sid` as its log reads, with a ping comment every `ping_interval` seconds.

    Its client counts as a viewer from the first to the last moment of the response.
    """

    def __init__(self, streams: Streams, sid: str, chunks: AsyncIterator[bytes], ping_interval: float) -> None:
        super().__init__(chunks, headers=HEADERS, ping=ping_interval, ping_message_factory=lambda: _PING, sep="\n")
        self._streams = streams
        self._sid = sid

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = False

        async def receive_and_note() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        async def send_unless_gone(message: Message) -> None:
            # anyio cancels a task only while it waits, and one that always has more to send never does
            if gone:
                raise ConnectionResetError
            await send(message)

        # around the call and not in the generator: one that is cancelled before its first step runs no `finally`
        with self._streams.watching(self._sid), suppress(ConnectionResetError):
            await super().__call__(scope, receive_and_note, send_unless_gone)


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
