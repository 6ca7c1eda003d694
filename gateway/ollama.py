"""The only user of aiohttp: what Ollama is asked, and what its answers and failures mean.

Foreign exceptions stop here. Facts about Ollama's wire are in docs/architecture.md.
"""

import re
import socket
from asyncio import IncompleteReadError
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any, Self

import aiohttp
import orjson

from gateway.errors import (
    BadUpstream,
    Busy,
    ConnectTimeout,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    OllamaError,
    OllamaUnreachable,
    Truncated,
)
from gateway.ndjson import NDJSONDecoder

# Of the client's headers none is forwarded: `:cloud` models would relay them onward, and Ollama refuses a
# foreign Origin or Host. `identity`, because a compressing proxy in between would hold tokens back.
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}

# While it holds less than this, aiohttp runs its parser anew for each HTTP chunk that it hands out, and Ollama sends a
# chunk a line: with the 256 KiB that it has by default a fast answer costs a fifth more CPU.
_READ_BYTES = 16 * 1024

# What the kernel holds of an answer for us. Little of it fits the processor's cache and goes on to the clients often,
# where megabytes, as the kernel would allow, are read in one go: a fast answer costs a fifth more CPU then.
_RECEIVE_BYTES = 64 * 1024

_REFUSAL_BYTES = 64 * 1024
_MESSAGE_CHARS = 1000

# Ollama's own words (with `shift` off or `truncate` false) and its runner's
_TOO_LONG = re.compile(r"(longer than|exceeds) the (available )?context (length|size)")

Json = dict[str, Any]


class Ollama:
    """A client of one Ollama server, to be used as an async context manager.

    `url` has no trailing slash; `setting` is where the operator finds it.
    Limits are in seconds and bytes: `connect_timeout` for a connection,
    `query_timeout` for a whole short request (tags, ps, show, version), `max_line` for one NDJSON line.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float,
        query_timeout: float,
        max_line: int,
        setting: str = "GATEWAY_OLLAMA_URL",
    ) -> None:
        self.url = url
        self.name = re.sub("//[^/]*@", "//", url)
        """`url` without credentials, to be shown."""
        self._setting = setting
        self._connect_timeout = connect_timeout
        self._query_timeout = aiohttp.ClientTimeout(total=query_timeout)
        self._max_line = max_line
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # how many run at once is the admission's decision
            connector=aiohttp.TCPConnector(limit=0, socket_factory=_socket),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            read_bufsize=_READ_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def lines(self, path: str, body: bytes) -> AsyncGenerator[list[bytes]]:
        """POST `body` and yield the answer's JSON lines, those of one network read together.

        Nothing at all arrives while the model loads. Leaving the iteration closes the connection, which is
        how Ollama is told to stop. Raises `UpstreamError`, `ConnectTimeout` or `Busy`. An end without
        `done` is for the caller to judge.
        """
        decoder = NDJSONDecoder(self._max_line)
        # a known size gives the request a Content-Length: Ollama may notice a leaving client late without one
        # a file, because aiohttp would write bytes of many megabytes (images) at one go
        request = self._session.post(self.url + path, data=BytesIO(body), allow_redirects=False)
        with self._translated():
            async with request as response:
                if response.status != 200:
                    raise await self._refusal(response)
                try:
                    while chunk := await response.content.readany():
                        if lines := decoder.feed(chunk):
                            yield lines
                except (aiohttp.ClientPayloadError, aiohttp.ClientOSError) as error:
                    raise Truncated(
                        "The connection to Ollama broke before the answer was complete.", retryable=True
                    ) from error
                if lines := decoder.flush():
                    yield lines

    async def tags(self) -> list[Json]:
        """The installed models, as `/api/tags` lists them."""
        return await self._models("/api/tags")

    async def ps(self) -> list[Json]:
        """The loaded models, as `/api/ps` lists them. One that is still loading is not among them."""
        return await self._models("/api/ps")

    async def show(self, model: str) -> Json:
        """What `/api/show` tells of one model."""
        return await self._query("POST", "/api/show", {"model": model})

    async def version(self) -> str:
        """Ollama's version: the cheapest proof that it answers."""
        return str((await self._query("GET", "/api/version")).get("version", ""))

    async def _models(self, path: str) -> list[Json]:
        models = (await self._query("GET", path)).get("models") or []
        if not isinstance(models, list) or not all(
            isinstance(model, dict) and isinstance(model.get("name"), str) for model in models
        ):
            raise BadUpstream(f"Ollama's answer to {path} is not a list of models.")
        return models

    async def _query(self, method: str, path: str, body: Json | None = None) -> Json:
        data = None if body is None else orjson.dumps(body)
        request = self._session.request(
            method, self.url + path, data=data, timeout=self._query_timeout, allow_redirects=False
        )
        with self._translated():
            async with request as response:
                if response.status != 200:
                    raise await self._refusal(response)
                text = await response.read()
        return parse_line(text)

    async def _refusal(self, response: aiohttp.ClientResponse) -> GatewayError:
        """What an answer other than 200 means."""
        try:
            text = await response.content.readexactly(_REFUSAL_BYTES)  # `read` would stop at the first piece of it
        except IncompleteReadError as whole:
            text = whole.partial
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            body = None
        if not (isinstance(body, dict) and "error" in body):
            if response.status == 403:
                return OllamaError("Ollama refuses requests from the gateway (403).", status=403)
            return BadUpstream(
                f"The server at {self._setting} answered {response.status}, not as Ollama would. Is it Ollama?"
            )
        message = error_text(body["error"])
        match response.status:
            case 404:
                return ModelNotFound(message)
            case 503:
                return Busy(message)
            case 400 if _TOO_LONG.search(message):
                return InvalidRequest(f"The conversation is too long for the model: {message}")
            case status if 400 <= status < 600:
                return OllamaError(message, status=status, retryable=status >= 500)
            case status:
                return BadUpstream(f"Ollama answered with the unexpected status {status}.")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectTimeout(
                f"Ollama did not accept a connection within {self._connect_timeout:g} s "
                f"(GATEWAY_CONNECT_TIMEOUT; its address is {self._setting})."
            ) from error
        except TimeoutError as error:
            raise OllamaUnreachable("Ollama is there but does not answer.") from error
        except aiohttp.ClientConnectorError as error:
            raise OllamaUnreachable(
                f"Ollama is not reachable. Is it running, and is {self._setting} its address?"
            ) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise OllamaUnreachable("Ollama closed the connection before it answered.") from error
        except aiohttp.ClientError as error:
            raise BadUpstream("Ollama's answer is not valid HTTP. Is it really Ollama?") from error


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    sock = socket.socket(*address[:3])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return sock


def parse_line(line: bytes) -> Json:
    """One JSON object as Ollama sends it. Raises `BadUpstream` for anything else."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise BadUpstream("Ollama sent something that is not a JSON object. Is it really Ollama that answers?")
    return value


def error_text(value: object) -> str:
    """Ollama's own words for a person, out of an `error` field of whatever form.

    The runner's errors come as a string that holds JSON. A Go type error would name internal types.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    while isinstance(value, dict):
        value = value.get("error") or value.get("message")
    text = value.strip() if isinstance(value, str) else ""
    if text.startswith("json:"):
        return "Ollama could not make sense of the request's JSON."
    return text[:_MESSAGE_CHARS] or "Ollama reported an error without saying which."


def normal_name(model: str) -> str:
    """A model's name as Ollama lists it: lower case, and `:latest` where no tag is given."""
    name = model.lower()
    return name if re.search(r":[^/]*$", name) else name + ":latest"
