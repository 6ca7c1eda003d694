"""uvicorn's HTTP protocol, with the bounds that it lacks: on what is not body, on time, and on requests at once."""

import asyncio
from http import HTTPStatus
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import GatewayError, InvalidRequest, TooLarge
from gateway.responses import SECURITY_HEADERS


class BoundedProtocol(HttpToolsProtocol):
    """A connection that holds little and not for ever, whatever is sent on it.

    A whole request must arrive within `request_timeout` seconds of the connection's opening, or of its own first
    byte. Between two requests uvicorn's keep-alive limit holds.

    At most `max_head_bytes` may arrive in a row that are no body: an unfinished head, but also the trailers and
    chunk extensions with which a body can go on for ever.

    The next request must wait for the answer to the one before: uvicorn would stop reading, so that it would not
    notice when the client of a running stream leaves. Nobody pipelines requests behind an event stream.
    """

    # with these in it, uvicorn's own dictionary of attributes would be twice as large, for each connection
    __slots__ = ("_deadline", "_error", "_max_head_bytes", "_max_url_bytes", "_no_body", "_request_timeout")

    def __init__(
        self, *args: Any, max_url_bytes: int, max_head_bytes: int, request_timeout: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._max_url_bytes = max_url_bytes
        self._max_head_bytes = max_head_bytes
        self._request_timeout = request_timeout
        self._no_body = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._error: GatewayError = InvalidRequest("This is not valid HTTP.", status=400)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            # how an IPv6 socket names a client of IPv4, whom proxies and quotas know by its own address
            self.client = (self.client[0].removeprefix("::ffff:"), self.client[1])
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._answered():
            self._expect_request()
        self._no_body += len(data)
        super().data_received(data)
        if self._no_body > self._max_head_bytes:
            self._refuse(
                TooLarge(
                    f"The request line and headers are larger than {self._max_head_bytes} bytes "
                    "(GATEWAY_MAX_HEAD_BYTES).",
                    status=431,
                )
            )

    def on_message_begin(self) -> None:
        if not self._answered():
            self._error = InvalidRequest("The next request must wait for the answer to this one.", status=400)
            raise self._error
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._max_url_bytes:
            self._error = TooLarge(
                f"The URL is longer than {self._max_url_bytes} bytes (GATEWAY_MAX_URL_BYTES).", status=414
            )
            raise self._error

    def on_headers_complete(self) -> None:
        self._no_body = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._no_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._no_body = 0
        self._request_arrived()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser, or a callback of it, has failed."""
        self._refuse(self._error)

    def _answered(self) -> bool:
        """Whether no request is under way, so that what comes next is a new one."""
        return self.cycle is None or self.cycle.response_complete

    def _expect_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._request_timeout, self._late)

    def _request_arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        if self._answered() and not self._no_body:
            self.transport.abort()  # a browser connects ahead of need: nothing was asked, so nothing is answered
        else:
            seconds = self._request_timeout
            error = f"The request did not arrive within {seconds:g} s (GATEWAY_REQUEST_TIMEOUT)."
            self._refuse(InvalidRequest(error, status=408))

    def _refuse(self, error: GatewayError) -> None:
        """Answer the request under way with `error`, unless its answer has begun, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and self.cycle.scope is self.scope and self.cycle.response_started:
            self.transport.abort()
            return
        body = orjson.dumps(error.payload())
        headers = SECURITY_HEADERS | {
            "Connection": "close",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        lines = [
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
