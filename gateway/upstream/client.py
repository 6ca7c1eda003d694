"""The HTTP client of one Ollama server: what it is asked, and what its answers and failures mean.

This is the only user of aiohttp, whose exceptions stop here.
"""

import asyncio
import errno
import re
import socket
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from time import monotonic
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson

from gateway import errors
from gateway.jobs import Json
from gateway.upstream.ndjson import NDJSONDecoder
from gateway.upstream.wire import error_text, is_details, is_model, may_pass, parse_line

# None of the client's headers is forwarded: Ollama's cloud models would relay them onward, and Ollama refuses a
# foreign Origin or Host. `identity`, because a compressing proxy in between would hold tokens back.
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}

# While it holds less than this, aiohttp runs its parser once more for each HTTP chunk that it hands out, and Ollama
# sends one chunk per line: with aiohttp's default of 256 KiB a fast answer costs a fifth more CPU.
_READ_BYTES = 16 * 1024

# The kernel's receive buffer for an answer. A small one stays in the processor's cache and is passed on to the clients
# often; with the megabytes that the kernel would allow, a fast answer costs a fifth more CPU.
_RECEIVE_BYTES = 64 * 1024

_REFUSAL_BYTES = 64 * 1024
_ANSWER_BYTES = 16 * 1024 * 1024  # of a short query: a thousand models take about one
_ASKED_AT_ONCE = 12  # short queries: each answer may be as large as that
_SHOWN_AT_ONCE = 8  # of them those for a model's details, so that a long list of models holds up nothing else
_VERSION_CHARS = 100

_NO_FILE = (errno.EMFILE, errno.ENFILE)

_STALE_SECONDS = 1.0  # within which a connection that was closed while it was idle fails
_opened: ContextVar[list[socket.socket]] = ContextVar("opened")
"""Sockets that were made for the request at hand: none where it uses a connection again."""

# Ollama's own words, with `shift` off or `truncate` false, and those of its runner.
_TOO_LONG = re.compile(r"(longer than|exceeds) the (available )?context (length|size)")


@dataclass(eq=False)
class OllamaClient:
    """A client of one Ollama server. Use it as an async context manager.

    `url` has no trailing slash; `setting` names the setting that holds it. The time limits for a connection and for a
    whole short query are in seconds; `max_line`, the size of one NDJSON line, is in bytes.
    """

    url: str
    connect_timeout: float
    query_timeout: float
    max_line: int
    setting: str = "GATEWAY_OLLAMA_URL"

    def __post_init__(self) -> None:
        self.name = re.sub("//[^/]*@", "//", self.url)  # without credentials, to be shown
        self._session: aiohttp.ClientSession
        self._fresh: aiohttp.ClientSession  # each of its requests has a new connection
        self._asking, self._showing = asyncio.Semaphore(_ASKED_AT_ONCE), asyncio.Semaphore(_SHOWN_AT_ONCE)

    async def __aenter__(self) -> Self:
        self._session, self._fresh = self._open(force_close=False), self._open(force_close=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._fresh.close()

    def _open(self, *, force_close: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # no limit here: the queue decides how many run at once
            connector=_Connector(limit=0, socket_factory=_socket, force_close=force_close),
            timeout=aiohttp.ClientTimeout(total=None, connect=self.connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,  # `identity` was asked for, and a small answer could become a huge one
            read_bufsize=_READ_BYTES,
        )

    async def lines(
        self, path: str, body: bytes, hold: Callable[[int], None] = lambda size: None
    ) -> AsyncGenerator[list[bytes]]:
        """POST `body` and yield the answer's JSON lines, those of one network read together.

        Nothing arrives while the model loads. Leaving the iteration closes the connection, which tells Ollama to stop.
        `hold` is told how many bytes of an unfinished line are held, and may raise.
        Raises `UpstreamError`, `ConnectTimeout` or `Busy`, but not for an end without a last line.
        """
        decoder, held = NDJSONDecoder(self.max_line), 0
        sockets: list[socket.socket] = []
        _opened.set(sockets)
        asked_at = monotonic()
        try:
            # A file, because aiohttp writes a bytes object of many megabytes (images) in one go. Its size is known, so
            # the request has a Content-Length: without it Ollama may notice late that a client has left.
            try:
                response = await self._session.post(self.url + path, data=BytesIO(body), allow_redirects=False)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                # Ollama may close an idle connection in the moment of its next use, and then has not read the request.
                begun = isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)
                if sockets or begun or monotonic() - asked_at > _STALE_SECONDS:
                    raise
                response = await self._fresh.post(self.url + path, data=BytesIO(body), allow_redirects=False)
            async with response:
                if response.status != 200:
                    raise await self._refusal(response)
                try:
                    while chunk := await response.content.readany():
                        lines = decoder.feed(chunk)
                        if held != decoder.held:
                            held = decoder.held
                            hold(held)
                        if lines:
                            yield lines
                        del chunk, lines  # or each stream would hold them until it hears more
                except (aiohttp.ClientPayloadError, aiohttp.ClientOSError) as error:
                    message = "The connection to Ollama broke before the answer was complete."
                    raise errors.Truncated(message, retryable=True) from error
                if lines := decoder.flush():
                    yield lines
        except (aiohttp.ClientError, TimeoutError) as error:
            raise await self._unanswered(error) from error

    async def tags(self) -> list[Json]:
        """The installed models, as `/api/tags` lists them."""
        return await self._models("/api/tags")

    async def ps(self) -> list[Json]:
        """The loaded models, as `/api/ps` lists them. One that is still loading is not among them."""
        return await self._models("/api/ps")

    async def show(self, model: str) -> Json:
        """The details of one model, as `/api/show` gives them."""
        async with self._showing:
            details = await self._query("POST", "/api/show", {"model": model})
        if not is_details(details):
            raise errors.BadUpstream("Ollama's answer to /api/show is not about a model.")
        return details

    async def version(self) -> str:
        """Ollama's version: the cheapest proof that it answers."""
        version = (await self._query("GET", "/api/version")).get("version", "")
        if not isinstance(version, str) or len(version) > _VERSION_CHARS:
            raise errors.BadUpstream("Ollama's answer to /api/version is not a version.")
        return version

    async def _unanswered(self, error: aiohttp.ClientError | TimeoutError) -> errors.GatewayError:
        """The error of a request that got no answer: `OllamaDown` if nobody listens there any more either."""
        failure = self._failure(error)
        if type(failure) is errors.OllamaUnreachable and await self._refuses():
            return errors.OllamaDown(failure.message)
        return failure

    async def _refuses(self) -> bool:
        """Whether connections are refused. An Ollama that is only out of reach may run what it was asked."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(self.connect_timeout):
                _, writer = await asyncio.open_connection(parts.hostname, port)
        except OSError as error:
            return isinstance(error, ConnectionRefusedError)
        writer.close()
        return False

    async def _models(self, path: str) -> list[Json]:
        models = (await self._query("GET", path)).get("models") or []
        if not isinstance(models, list) or not all(map(is_model, models)):
            raise errors.BadUpstream(f"Ollama's answer to {path} is not a list of models.")
        return models

    async def _query(self, method: str, path: str, body: Json | None = None) -> Json:
        data, timeout = body and orjson.dumps(body), aiohttp.ClientTimeout(total=self.query_timeout)
        ask, url = self._session.request, self.url + path
        try:
            async with self._asking, ask(method, url, data=data, timeout=timeout, allow_redirects=False) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                return parse_line(await _read(response, _ANSWER_BYTES))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._failure(error) from error

    async def _refusal(self, response: aiohttp.ClientResponse) -> errors.GatewayError:
        """The error that an answer other than 200 means."""
        try:
            body = orjson.loads(await _read(response, _REFUSAL_BYTES))
        except orjson.JSONDecodeError:
            body = None
        if not (isinstance(body, dict) and "error" in body):
            if response.status == 403:
                return errors.OllamaError("Ollama refuses requests from the gateway (403).", status=403)
            problem = (
                f"The server at {self.setting} answered {response.status}, but not in Ollama's format. Is it Ollama?"
            )
            return errors.BadUpstream(problem)
        return _refused(response.status, error_text(body["error"]), body, response.headers.get("Retry-After", ""))

    def _failure(self, error: aiohttp.ClientError | TimeoutError) -> errors.GatewayError:
        """The error that an exception of aiohttp's means."""
        match error:
            case aiohttp.ConnectionTimeoutError():
                hint = f"GATEWAY_CONNECT_TIMEOUT; its address is {self.setting}"
                message = f"Ollama did not accept a connection within {self.connect_timeout:g} s ({hint})."
                return errors.ConnectTimeout(message)
            case TimeoutError():
                return errors.OllamaUnreachable("Ollama accepted the connection but did not answer in time.")
            case aiohttp.ClientConnectorError() if error.errno in _NO_FILE or not _may_open_file():
                return errors.Busy("The gateway has too many files open to connect to Ollama. Try again in a moment.")
            case aiohttp.ClientConnectorError():
                message = f"Ollama is not reachable. Is it running, and is {self.setting} its address?"
                return errors.OllamaDown(message)
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
                return errors.OllamaUnreachable("Ollama closed the connection before it answered.")
            case _:
                return errors.BadUpstream("Ollama's answer is not valid HTTP. Is it really Ollama?")


def _refused(status: int, message: str, body: Json, retry_after: str) -> errors.GatewayError:
    """The error that an answer of Ollama's, with its status and its words, means."""
    match status:
        case 404:
            return errors.ModelNotFound(message)
        case 503:
            return errors.Busy(message)
        case 400 if _TOO_LONG.search(message):
            return errors.InvalidRequest(f"The conversation is too long for the model: {message}")
        case 401 if isinstance(url := body.get("signin_url"), str):  # a model in Ollama's cloud
            return errors.OllamaError(f"{message}. Sign in at {url}", status=401)
        case 429:
            wait = int(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else None
            return errors.OllamaError(message, status=429, retryable=True, retry_after=wait)
        case _ if 400 <= status < 600:
            return errors.OllamaError(message, status=status, retryable=status >= 500 and may_pass(message))
        case _:
            return errors.BadUpstream(f"Ollama answered with the unexpected status {status}.")


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, of which no more than `most` bytes are held: what is longer is cut, and then is no JSON."""
    try:
        return await response.content.readexactly(most)  # `read` would stop after the first chunk
    except asyncio.IncompleteReadError as whole:
        return whole.partial


class _Connector(aiohttp.TCPConnector):
    """Uses a connection again only if nothing has come on it since its last answer.

    aiohttp looks only whether it is still open. What had come would be taken for the next request's answer, and that
    one's answer for the one after it: each client would read what another one was told.
    """

    async def _get(self, key: Any, traces: Any) -> Any:
        connection = await super()._get(key, traces)
        while connection and connection.protocol and connection.protocol.should_close:
            connection.close()
            connection = await super()._get(key, traces)
        return connection


def _may_open_file() -> bool:
    """Without a file left, the C library says now and then that a host's name is not known."""
    try:
        socket.socket().close()
    except OSError:
        return False
    return True


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    sock = socket.socket(*address[:3])
    _opened.get([]).append(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return sock
