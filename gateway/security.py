"""Who may ask, and how much they may send: checks before any handler runs, as pure ASGI."""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ForbiddenOrigin, TooLarge
from gateway.responses import error_json

LOCALHOST_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"

RESPONSE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Refuses foreign origins on every route, bounds request bodies, and sets the headers that every answer has.

    CORS alone would not do: a cross-site GET reaches the server without a preflight, and here it costs GPU time.
    """

    def __init__(self, app: ASGIApp, *, cors_origins: Sequence[str], max_body_bytes: int) -> None:
        self._app = app
        self._any_origin = "*" in cors_origins
        self._cors_origins = frozenset(cors_origins)
        self._max_body_bytes = max_body_bytes
        self._localhost = re.compile(LOCALHOST_ORIGIN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in RESPONSE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and not self._allowed(origin, headers.get("host", "")):
            error = ForbiddenOrigin(
                "Pages of this origin may not use the gateway. Its operator can allow them in GATEWAY_CORS_ORIGINS."
            )
            await error_json(error)(scope, receive, send_with_headers)
            return
        if scope["method"] == "POST":
            receive = self._bounded(receive, headers.get("content-length", "0"))
        await self._app(scope, receive, send_with_headers)

    def _allowed(self, origin: str, host: str) -> bool:
        if self._any_origin or origin in self._cors_origins or self._localhost.fullmatch(origin):
            return True
        # the same origin, whatever scheme a proxy in front has spoken
        return origin.lower().partition("://")[2] == host.lower() != ""

    def _bounded(self, receive: Receive, announced: str) -> Receive:
        """`receive`, raising `TooLarge` in the handler that reads too much."""
        limit = self._max_body_bytes
        error = TooLarge(f"The request body is larger than {limit} bytes (GATEWAY_MAX_BODY_BYTES).")
        received = 0

        async def bounded() -> Message:
            nonlocal received
            if announced.isdecimal() and int(announced) > limit:
                raise error
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise error
            return message

        return bounded
