"""The gateway's log: a line for each request and for each ended stream, and never a prompt or an answer.

Lines are for a person, or JSON objects for a machine; both hold the same fields.
"""

import json
import logging
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.ops.output import MAX_BYTES, Output
from gateway.streams.generation import Generation, Observer

logger = logging.getLogger(__name__)

SHOWN_ID = 8  # characters of a stream's id: enough to follow the stream, too few to read or stop it
MODEL_CHARS = 100
PATH_CHARS = 200

_QUIET_PATHS = re.compile(r"/(healthz|readyz|metrics|static/.*)")
_STREAM_ID = re.compile(rf"([0-9a-z]{{{SHOWN_ID}}})[0-9a-z]{{18,}}")  # in any path, right or wrong


def configure(form: Literal["console", "json"], level: str) -> None:
    """Send all log records of this process to standard error, as lines for a person or as JSON."""
    handler = _Handler()
    handler.setFormatter(_JsonFormatter() if form == "json" else _ConsoleFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)  # Python would write them to standard error itself, and wait for its reader
    # uvicorn warns of malformed requests without saying what is wrong, and anybody can cause any number of these lines.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class Access:
    """Gives each request an id, or takes a proxy's, and logs it at its end, without the query: it holds prompts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if re.fullmatch(r"[\w-]{1,64}", given) else secrets.token_hex(8)
        scope["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        began = time.monotonic()
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            status = status or 500  # that response is sent outside of this middleware
            raise
        finally:
            _log_request(scope, status, round((time.monotonic() - began) * 1000))


def _log_request(scope: Scope, status: int, elapsed_ms: int) -> None:
    path = scope["path"].partition("?")[0]  # where a client has escaped the question mark, its query is in the path
    path = _STREAM_ID.sub(r"\1…", path[:PATH_CHARS])
    level = logging.DEBUG if _QUIET_PATHS.fullmatch(path) else logging.INFO
    fields = {"request_id": scope["request_id"], "client": scope["client"][0] if scope["client"] else ""}
    if scope.get("key"):
        fields["key"] = scope["key"]
    fields |= {"method": scope["method"], "path": path, "status": status, "elapsed_ms": elapsed_ms}
    logger.log(level, "request", extra={"fields": fields})


class Journal(Observer):
    """Logs how each generation ended, and how long its phases took."""

    def ended(self, generation: Generation) -> None:
        job = generation.job
        fields: dict[str, object] = {"stream": generation.sid[:SHOWN_ID], "request_id": job.request_id}
        fields |= {"kind": job.kind, "model": job.model[:MODEL_CHARS], "outcome": generation.outcome}
        if generation.error is not None:
            fields |= {"code": generation.error.code, "phase": generation.phase}
        fields |= generation.moments.timings() | {"events": generation.log.last}
        logger.info("stream", extra={"fields": fields})


class _Handler(logging.Handler):
    """Writes to standard error. When too much waits to be written, lines are lost, and the next one says how many.

    After a loss no line is taken until half of what waits is written. Otherwise a slow reader would get a warning with
    every line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._output = Output(sys.stderr)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # in the arguments of a hook's own call: Python would write to standard error itself
            logger.exception("a call in line %d of %s cannot be logged", record.lineno, record.pathname)
            return
        if self._lost and self._output.waiting < MAX_BYTES // 2:
            self._tell_lost()
        if self._lost or not self._output.put(line):
            self._lost += 1

    def close(self) -> None:
        if self._lost:
            self._tell_lost()
        self._output.close()
        super().close()

    def _tell_lost(self) -> None:
        message = "log lines were lost while standard error could not be written to"
        fields = {"lines": self._lost}
        record = {"name": __name__, "levelname": "WARNING", "msg": message, "fields": fields}
        if self._output.put(self.format(logging.makeLogRecord(record))):
            self._lost = 0


class _ConsoleFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        # indented, because the text that an exception quotes must not forge a line either
        return "\n    ".join(super().format(record).splitlines())

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = getattr(record, "fields", {})
        return " ".join([super().formatMessage(record), *(f"{name}={_word(value)}" for name, value in fields.items())])


def _word(value: object) -> str:
    """A field's value as one word: a name that a client has chosen must neither forge a line nor control a terminal."""
    text = str(value)
    return text if re.fullmatch(r"[\w./:@…-]+", text) else json.dumps(text)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
