"""Who may ask, and how much they may send: checks before any handler runs, as pure ASGI."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import Busy, ForbiddenHost, ForbiddenOrigin, GatewayError, TooLarge, Unauthorized
from gateway.responses import SECURITY_HEADERS, error_json

LOCALHOST_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"

STARTING_PATHS = ("/api/chat", "/api/generate")
"""Where a GET starts a generation."""

SESSION_COOKIE = "gateway_session"
SESSION_PATH = "/api/session"

# not the standard library's parser: it takes half a minute for a hostile cookie, and gives up on a foreign one
_SESSION = re.compile(rf"(?:^|;)\s*{SESSION_COOKIE}=([0-9a-f]+)\s*(?:;|$)")
_LOCAL_NAME = re.compile(r"localhost|[a-z0-9_-]+|[a-z0-9_.-]+\.(local|internal|localhost)", re.IGNORECASE)
_STREAM_PATH = re.compile(r"/api/streams/([0-9a-z]+)")


class Guard:
    """Refuses foreign hosts and origins on every route, bounds request bodies, and sets the headers that every
    answer has.

    The Host check stops DNS rebinding, where a foreign page's own name is made to point here. CORS alone would not
    stop a foreign page's GET: it reaches the server without a preflight, and here it costs GPU time.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Collection[str],
        cors_origins: Collection[str],
        max_head_bytes: int,
        max_body_bytes: int,
    ) -> None:
        self._app = app
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._cors_origins = frozenset(origin.lower() for origin in cors_origins)
        self._max_head_bytes = max_head_bytes
        self._max_body_bytes = max_body_bytes
        self._localhost = re.compile(LOCALHOST_ORIGIN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":  # on plain HTTP a browser ignores it, and complains on its console
                    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
            await send(message)

        headers = Headers(scope=scope)
        if error := self._refusal(scope, headers):
            await error_json(error)(scope, receive, send_with_headers)
            return
        if scope["method"] == "POST":
            receive = self._bounded(receive, headers.get("content-length", "0"))
        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> GatewayError | None:
        head = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in headers.raw)
        if head > self._max_head_bytes:
            return TooLarge(
                f"The request line and headers are larger than {self._max_head_bytes} bytes (GATEWAY_MAX_HEAD_BYTES).",
                status=431,
            )
        host, origin = headers.get("host", ""), headers.get("origin")
        if not all(map(self._known_host, headers.getlist("host"))):
            return ForbiddenHost(
                "The gateway does not answer to this host name. Its operator can list it in GATEWAY_ALLOWED_HOSTS."
            )
        if not (self._known_site(scope, headers, host) if origin is None else self._known_origin(origin, host)):
            return ForbiddenOrigin(
                "Pages of this origin may not use the gateway. Its operator can allow them in GATEWAY_CORS_ORIGINS. "
                "A browser that does not tell the origin, as on plain HTTP, can use POST or HTTPS."
            )
        return None

    def _known_host(self, host: str) -> bool:
        """Names that no public DNS entry can have, addresses, and what the operator lists."""
        name = re.sub(r":\d*$", "", host.lower()).rstrip(".")
        if "*" in self._allowed_hosts or name in self._allowed_hosts or _LOCAL_NAME.fullmatch(name):
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    def _known_site(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Whether a request without an Origin may come from where it does: an <img>, a link or a form's GET has none.

        On plain HTTP beyond localhost browsers send no Sec-Fetch-Site either. There only the Referer tells the own
        pages, and those of other sites can leave it out but not forge it.
        """
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("cross-site", "same-site") or not scope["path"].startswith("/api/")
        if scope["path"] not in STARTING_PATHS or not headers.get("user-agent", "").startswith("Mozilla/"):
            return True
        return self._known_origin("/".join(headers.get("referer", "").split("/", 3)[:3]), host)

    def _known_origin(self, origin: str, host: str) -> bool:
        origin = origin.lower()
        if "*" in self._cors_origins or origin in self._cors_origins or self._localhost.fullmatch(origin):
            return True
        # the same origin, whatever scheme a proxy in front has spoken
        return origin.partition("://")[2] == host.lower() != ""

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


class Keys:
    """The operator's API keys, by name. Without any, everybody who passes the `Guard` may ask."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        # a session proves that its holder knew the key, and cannot be turned back into it
        self._sessions = {
            name: hmac.new(key.encode(), b"ollama-sse-gateway session", hashlib.sha256).hexdigest()
            for name, key in keys.items()
        }
        self._key_digests = {name: _digest(key) for name, key in keys.items()}
        self._session_digests = {name: _digest(session) for name, session in self._sessions.items()}

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def holder(self, headers: Headers) -> str | None:
        """The name of the key that a request brings, as a bearer token or by its session cookie."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _match(self._key_digests, token.strip())
        cookie = _SESSION.search(headers.get("cookie", ""))
        return _match(self._session_digests, cookie[1]) if cookie else None

    def session(self, name: str) -> str:
        """What the session cookie of a key's holder says."""
        return self._sessions[name]


class Authentication:
    """Refuses requests without a key, on every route that is not listed as open, so that none can be forgotten.

    A stream that is held may be read and stopped by whoever knows its id, which nobody can guess: `EventSource`
    can send no key. `request.scope["key"]` is the name of the key, or None.
    """

    OPEN = re.compile(r"/|/static/.*|/healthz|/readyz|/client\.js|/client\.d\.ts|/openapi\.json|/api/session")

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["key"] = self._keys.holder(Headers(scope=scope)) if self._keys else None
            if self._keys and scope["key"] is None and not await self._open(scope):
                error = Unauthorized("This gateway asks for an API key: send it as `Authorization: Bearer KEY`.")
                await error_json(error, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _open(self, scope: Scope) -> bool:
        if self.OPEN.fullmatch(scope["path"]):
            return True
        match = _STREAM_PATH.fullmatch(scope["path"])
        if match is None:
            return False
        try:
            return await scope["state"]["streams"].log(match[1]) is not None
        except Busy:  # its route cannot find it either, and tells an `EventSource` to come again
            return True


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _match(digests: Mapping[str, bytes], given: str) -> str | None:
    """The name of the secret that was given, found in the same time whichever it is, or none.

    Digests are compared, since to compare secrets themselves would tell their length.
    """
    found, digest = None, _digest(given)
    for name, known in digests.items():
        if hmac.compare_digest(known, digest):
            found = name
    return found
