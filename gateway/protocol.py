"""uvicorn's HTTP protocol, with bounds that it lacks: on a request's head, and on the time it takes to arrive."""

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import TooLarge


class BoundedProtocol(HttpToolsProtocol):
    """A connection that must send a whole request within `request_timeout` seconds, or is closed.

    That is from its opening, and for each further request from its first byte; between two of them uvicorn's own
    keep-alive limit holds. A head (request line and headers) that is unfinished after `max_head_bytes` is answered
    with 431, before more of it is held.
    """

    def __init__(self, *args: Any, max_head_bytes: int, request_timeout: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_head_bytes = max_head_bytes
        self._request_timeout = request_timeout
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
        super().data_received(data)
        # counted afterwards: what has come with the end of the head is body
        if self._head_bytes > self._max_head_bytes:
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_request()

    def on_headers_complete(self) -> None:
        self._head_bytes = -1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._request_arrived()
        self._head_bytes = 0
        super().on_message_complete()

    def _expect_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._request_timeout, self.transport.abort)

    def _request_arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self) -> None:
        error = TooLarge(
            f"The request line and headers are larger than {self._max_head_bytes} bytes (GATEWAY_MAX_HEAD_BYTES)."
        )
        body = orjson.dumps(error.payload())
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()
