"""uvicorn's HTTP protocol with the bounds that it lacks: on heads and trailers, on time, and on requests at once."""

import asyncio
import socket
import sys
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.errors import GatewayError, InvalidRequest, TooLarge
from gateway.web.files import OpenFiles
from gateway.web.responses import SECURITY_HEADERS, error_json, head_too_large

MAX_HEADERS = 100
ESTABLISHED = 1  # of Linux's TCP states
LINGER_SECONDS = 0.5  # how long a client that was refused may go on sending without losing the answer


class UnframedCycle(RequestResponseCycle):
    """A request of HTTP/1.0, which knows no chunks: an answer without a length ends with the connection."""

    unframed = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.unframed = not any(name.lower() == b"content-length" for name, _ in message["headers"])
            self.chunked_encoding = False if self.unframed else None
        elif self.unframed:  # a ping may wait beside a chunk until the client reads, so that no exact count holds
            more, size = message.get("more_body", False), len(message.get("body", b""))
            self.expected_content_length = sys.maxsize if more else size
        await super().send(message)


class BoundedProtocol(HttpToolsProtocol):
    """A connection that holds little, and not for ever, whatever is sent on it.

    A whole request must arrive within `request_timeout` seconds of the connection's opening, or of its own first
    byte; between two requests uvicorn's keep-alive limit holds. At most `max_head_bytes` that are not body may arrive
    in a row: an unfinished head, but also the trailers and the chunk extensions with which a body could go on for
    ever. A request must wait for the answer to the one before it: with a pipelined request uvicorn stops reading, and
    would not notice when the client of a running stream leaves.

    An offer to change to another protocol is ignored. httptools takes a request with one for a request without a body,
    so that a second parser reads what follows its head.
    """

    # Without slots, uvicorn's own dictionary of attributes would be twice as large, on each connection.
    __slots__ = (
        *("_deadline", "_error", "_max_head_bytes", "_max_url_bytes", "_no_body", "_request_timeout"),
        *("_body_at", "_files", "_head_is_known", "_refused"),
    )

    def __init__(
        self,
        *args: Any,
        max_url_bytes: int,
        max_head_bytes: int,
        request_timeout: float,
        files: OpenFiles,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._max_url_bytes = max_url_bytes
        self._max_head_bytes = max_head_bytes
        self._request_timeout = request_timeout
        self._files = files
        self._no_body = 0
        self._body_at: int | None = None  # where in what was received the head of a request with an offer ended
        self._head_is_known = False
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._error: GatewayError = InvalidRequest("This is not valid HTTP.", status=400)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if not self._files.admit(sock.fileno()) or _has_left(sock):
            transport.abort()  # as the loop's library does: an `EventSource` reconnects, and would not after a 503
            return
        if self.client is not None:
            # An IPv6 socket puts this before the address of an IPv4 client; proxies and quotas know it without.
            self.client = (self.client[0].removeprefix("::ffff:"), self.client[1])
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_arrived()
        # uvicorn's own limit would hold the connection, and the last request on it, where the client has reset it.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._answered():
            self._expect_request()
        self._no_body += len(data)
        super().data_received(data)
        if self._body_at is not None:
            rest, self._body_at = data[self._body_at :], None
            super().data_received(self._ignore_offer() + rest)
        if self._no_body > self._max_head_bytes:
            self._refuse(head_too_large(self._max_head_bytes))

    def _unsupported_upgrade_warning(self) -> None:  # by uvicorn, while it handles the parser's exception
        error = sys.exception()
        assert isinstance(error, httptools.HttpParserUpgrade)
        self._body_at = error.args[0]

    def _ignore_offer(self) -> bytes:
        """Have a new parser read on. It is to be given this head first, which says where the body ends."""
        lengths = (b"content-length", b"transfer-encoding")
        lines = [b"%b: %b" % header for header in self.headers if header[0] in lengths]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.headers = []  # or they would be given twice
        self._head_is_known = True
        return b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""])

    def on_message_begin(self) -> None:
        if self._head_is_known:
            return
        if not self._answered():
            self._error = InvalidRequest("The next request must wait for the answer to this one.", status=400)
            raise self._error
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._head_is_known:
            return
        super().on_url(url)
        if len(self.url) > self._max_url_bytes:
            message = f"The URL is longer than {self._max_url_bytes} bytes (GATEWAY_MAX_URL_BYTES)."
            self._error = TooLarge(message, status=414)
            raise self._error

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:  # whatever looks for one of them goes through all
            self._error = TooLarge(f"The request has more than {MAX_HEADERS} headers.", status=431)
            raise self._error

    def on_headers_complete(self) -> None:
        self._no_body = 0
        if self._head_is_known:
            self._head_is_known = False
            return
        super().on_headers_complete()
        if self.scope["http_version"] != "1.1":
            self.cycle.__class__ = UnframedCycle  # uvicorn makes it, and nothing of it has run yet

    def on_body(self, body: bytes) -> None:
        self._no_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the message is not complete: `_ignore_offer` has its body read
        self._no_body = 0
        self._request_arrived()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # by uvicorn, when the parser or one of its callbacks has failed
        self._error.__traceback__ = None  # it holds this connection, and what was received
        self._refuse(self._error)

    def _answered(self) -> bool:
        """Whether no request is under way, so that the next bytes begin a new one."""
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
            self.transport.abort()  # a browser connects ahead of need: nothing was asked, so there is nothing to answer
        else:
            message = f"The request did not arrive within {self._request_timeout:g} s (GATEWAY_REQUEST_TIMEOUT)."
            self._refuse(InvalidRequest(message, status=408))

    def _refuse(self, error: GatewayError) -> None:
        """Answer the request under way with `error`, unless its answer has begun, and close."""
        if self.transport.is_closing() or self._refused:
            return
        if self.cycle is not None and self.cycle.scope is self.scope and self.cycle.response_started:
            self.transport.abort()
            return
        response = error_json(error, SECURITY_HEADERS | {"Connection": "close"})
        start = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()
        headers = [b"%b: %b" % (name.title(), value) for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([start, *headers, b"", bytes(response.body)]))
        self.transport.write_eof()  # whoever still sends sees that it is over
        # If it were closed now, data that still arrives would reset it, and the client would lose the answer.
        self._refused = True
        self.url, self.headers = b"", []  # what was read of it
        if self.cycle is not None:  # a request whose body was wrong is under way
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
        self._request_arrived()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.close)


def _has_left(sock: socket.socket) -> bool:
    """Whether the client has gone before it was accepted. Those who come and go in a flood should cost no more."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED
    except (AttributeError, OSError):  # only Linux tells it
        return False
