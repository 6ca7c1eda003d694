"""What the gateway tells its operator: a line for each request and for each ended stream, never what was said.

Lines are for a person, or JSON objects for a machine; both hold the same fields.
"""

import json
import logging
import re
import secrets
import time
from datetime import UTC, datetime
from typing import Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.relay import Generation
from gateway.streams import Observer

logger = logging.getLogger(__name__)

SHOWN_ID = 8
"""Characters of a stream's id that a log shows: enough to follow it, too few to read or stop it."""

MODEL_CHARS = 100
PATH_CHARS = 200

_QUIET_PATHS = re.compile(r"/(healthz|readyz|metrics|static/.*)")
_STREAM_PATH = re.compile(rf"(/api/streams/[0-9a-z]{{{SHOWN_ID}}})[0-9a-z]+")


def configure(form: Literal["console", "json"], level: str) -> None:
    """Send all log records of this process to standard error, as lines for a person or as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if form == "json" else _ConsoleFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # its warnings are of malformed requests, say nothing of them, and anybody can cause as many as they like
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class Access:
    """Gives each request an id, its own or the one a proxy in front has given it, and logs it when it is over.

    The query string is left out: it holds prompts.
    """

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
            status = status or 500  # which is sent outside of this
            raise
        finally:
            path = _STREAM_PATH.sub(r"\1…", scope["path"][:PATH_CHARS])
            level = logging.DEBUG if _QUIET_PATHS.fullmatch(path) else logging.INFO
            _log(
                level,
                "request",
                request_id=request_id,
                client=scope["client"][0] if scope["client"] else "",
                **({"key": scope["key"]} if scope.get("key") else {}),
                method=scope["method"],
                path=path,
                status=status,
                elapsed_ms=round((time.monotonic() - began) * 1000),
            )


class Journal(Observer):
    """Logs each generation's end: how it ended, and how long each phase took."""

    def ended(self, generation: Generation) -> None:
        fields: dict[str, object] = {
            "stream": generation.sid[:SHOWN_ID],
            "request_id": generation.job.request_id,
            "kind": generation.job.kind,
            "model": generation.job.model[:MODEL_CHARS],
            "outcome": generation.outcome,
        }
        if generation.error is not None:
            fields |= {"code": generation.error.code, "phase": generation.phase}
        fields |= generation.timings()
        fields["events"] = generation.log.last
        _log(logging.INFO, "stream", **fields)


def _log(level: int, event: str, **fields: object) -> None:
    logger.log(level, event, extra={"fields": fields})


class _ConsoleFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        # indented: what an exception quotes must not forge a line either
        return "\n    ".join(super().format(record).splitlines())

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = getattr(record, "fields", {})
        return " ".join([super().formatMessage(record), *(f"{name}={_word(value)}" for name, value in fields.items())])


def _word(value: object) -> str:
    """A field's value as one word: what a client has named must not forge a line, nor steer a terminal."""
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
