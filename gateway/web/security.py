"""Access control and size limits, applied before any handler runs. Pure ASGI middlewares."""

import asyncio
import ipaddress
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import Busy, ForbiddenHost, ForbiddenOrigin, GatewayError, TooLarge, Unauthorized
from gateway.jobs import STREAM_PATH, Kind
from gateway.web.dialect import OLLAMA
from gateway.web.keys import Keys, WrongKeys, bearer
from gateway.web.responses import SECURITY_HEADERS, error_json, head_too_large

LOCALHOST_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"

STARTING_PATHS = frozenset(kind.traits.route for kind in Kind)  # where a GET starts a generation
SESSION_PATH = "/api/session"

_LOCALHOST = re.compile(LOCALHOST_ORIGIN)
_LOCAL_NAME = re.compile(r"localhost|[a-z0-9_-]+|[a-z0-9_.-]+\.(local|internal|localhost)", re.IGNORECASE)

_ADDRESS_CHARS = 64  # no address is longer

_FOREIGN_HOST = "The gateway does not answer to this host name. Its operator can list it in GATEWAY_ALLOWED_HOSTS."
_FOREIGN_ORIGIN = (
    "Pages of this origin may not use the gateway. Its operator can allow them in GATEWAY_CORS_ORIGINS. A browser that "
    "does not send the origin, as on plain HTTP, can use POST or HTTPS."
)


@dataclass
class Guard:
    """Refuses foreign hosts and origins on every route, bounds request bodies, and sets the security headers.

    The Host check stops DNS rebinding, where the name of a foreign page is made to point here. CORS alone would not
    stop a foreign page's GET, which has no preflight and here costs GPU time.
    """

    app: ASGIApp
    allowed_hosts: Collection[str]
    cors_origins: Collection[str]
    max_head_bytes: int
    max_body_bytes: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":  # on plain HTTP a browser ignores it and complains on its console
                    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
            await send(message)

        headers = Headers(scope=scope)
        if error := self._refusal(scope, headers):
            await error_json(error, scope=scope)(scope, receive, send_with_headers)
            return
        if scope["method"] == "POST":
            receive = self._bounded(receive, headers.get("content-length", "0"))
        await self.app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> GatewayError | None:
        head = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in headers.raw)
        if head > self.max_head_bytes:
            return head_too_large(self.max_head_bytes)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not all(map(self._known_host, headers.getlist("host"))):
            return ForbiddenHost(_FOREIGN_HOST)
        known = self._known_site(scope, headers, host) if origin is None else self._known_origin(origin, host)
        return None if known else ForbiddenOrigin(_FOREIGN_ORIGIN)

    def _known_host(self, host: str) -> bool:
        """Whether the name is an address, one that no public DNS entry can have, or one that the operator lists."""
        name = re.sub(r":\d*$", "", host.lower()).rstrip(".")
        if "*" in self.allowed_hosts or name in self.allowed_hosts or _LOCAL_NAME.fullmatch(name):
            return True
        return len(name) < _ADDRESS_CHARS and _is_address(name.removeprefix("[").removesuffix("]"))

    def _known_site(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Whether a request without an Origin comes from a known site: an <img>, a link or a form's GET has no Origin.

        On plain HTTP beyond localhost browsers send no Sec-Fetch-Site either. There only the Referer tells the
        gateway's own pages from others: these can omit it but cannot forge it.
        """
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("cross-site", "same-site") or not scope["path"].startswith(("/api/", OLLAMA))
        if scope["path"] not in STARTING_PATHS or not headers.get("user-agent", "").startswith("Mozilla/"):
            return True
        return self._known_origin("/".join(headers.get("referer", "").split("/", 3)[:3]), host)

    def _known_origin(self, origin: str, host: str) -> bool:
        origin = origin.lower()
        if "*" in self.cors_origins or origin in self.cors_origins or _LOCALHOST.fullmatch(origin):
            return True
        # It is the same origin, whether the client spoke HTTP or HTTPS to a proxy in front.
        return host != "" and origin.partition("://")[2] == host.lower()

    def _bounded(self, receive: Receive, announced: str) -> Receive:
        """A `receive` that raises `TooLarge` in the handler when the body is too large."""
        limit, received = self.max_body_bytes, 0

        async def bounded() -> Message:
            nonlocal received
            if not announced.isdecimal() or int(announced) <= limit:
                message = await receive()
                received += len(message.get("body", b""))
                if received <= limit:
                    return message
            raise TooLarge(f"The request body is larger than {limit} bytes (GATEWAY_MAX_BODY_BYTES).")

        return bounded


@dataclass
class Authentication:
    """Refuses requests without a key on every route that is not listed as open, so that none can be forgotten.

    Anybody who knows a stream's id may read and stop it: nobody can guess the id, and `EventSource` can send no key.
    `request.scope["key"]` is the name of the key, or None.
    """

    app: ASGIApp
    keys: Keys
    wrong_keys: WrongKeys = field(default_factory=WrongKeys)

    OPEN: ClassVar = re.compile(
        rf"/|{OLLAMA}/?|/static/.*|/healthz|/readyz|/client\.js|/client\.d\.ts|/openapi\.json|/api/session"
    )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            scope["key"] = next(iter(self.keys.holders(headers)), None) if self.keys else None
            if self.keys and scope["key"] is None:
                if bearer(headers):  # on open routes, too: their answers differ, so that they would tell at once
                    await self._delay(scope)
                if not await self._open(scope):
                    error = Unauthorized("This gateway requires an API key: send it as `Authorization: Bearer KEY`.")
                    await error_json(error, {"WWW-Authenticate": "Bearer"}, scope)(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _delay(self, scope: Scope) -> None:
        """Have a wrong key wait, but only as long as its client does: then it holds no more than a silent connection.

        Its body is dropped: the `Guard` would not let one that is too large be read, and so not see the client leave.
        """
        seconds = self.wrong_keys.delay(scope["client"][0] if scope["client"] else "")
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (await scope["receive"]())["type"] != "http.disconnect":
                    pass

    async def _open(self, scope: Scope) -> bool:
        if self.OPEN.fullmatch(scope["path"]):
            return True
        match = STREAM_PATH.fullmatch(scope["path"])
        if match is None:
            return False
        try:
            return await scope["state"]["streams"].log(match[1]) is not None
        except Busy:  # the route cannot find the stream either, and tells an `EventSource` to come again
            return True


@lru_cache(maxsize=1024)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
