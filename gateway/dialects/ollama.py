"""Ollama's own protocol: its lines as NDJSON, one object for `"stream": false`, and its errors. Pure.

Source: Ollama's `server/routes.go` and `api/types.go`, and the recorded answers in `tests/data/transcripts`.
"""

import json
from typing import Any, Protocol

import orjson

from gateway.dialects import events
from gateway.errors import BadUpstream, ErrorPayload
from gateway.jobs import Json, Phase

NDJSON = "application/x-ndjson"
JSON = "application/json; charset=utf-8"

KEEPALIVE = b" "
"""White space before the next object. An empty line would end some clients, which parse every line."""

_UNPROCESSABLE, _BAD_REQUEST = 422, 400

# As Go writes JSON. None of these is part of JSON but within a string.
_ESCAPES = {
    b"<": rb"\u003c",
    b">": rb"\u003e",
    b"&": rb"\u0026",
    b"\xe2\x80\xa8": rb"\u2028",
    b"\xe2\x80\xa9": rb"\u2029",
}

_TEXTS = ("response", "content", "thinking")
_SAID = (*_TEXTS, "tool_calls", "logprobs", "images")
"""The fields of which each line has a piece."""

_NUMBERS = b'"logprobs"', b'"tool_calls"'
"""The fields whose numbers may be of any kind; all others have whole ones."""


def written(value: object) -> bytes:
    """JSON as Ollama writes it. Raises `BadUpstream` for what is nested too deeply."""
    try:
        content = bytes(memoryview(orjson.dumps(value)))  # a copy: orjson's own result keeps a buffer of 4 KiB
    except orjson.JSONEncodeError:
        raise _too_deep() from None
    for character, escape in _ESCAPES.items():
        content = content.replace(character, escape)
    return content


def error(message: str) -> bytes:
    """An error as a body; as a line, it has a line feed after it."""
    return written({"error": message})


def status_of(status: int) -> int:
    """The status of an error as Ollama's clients know it: a request at fault is 400 there in any case."""
    return _BAD_REQUEST if status == _UNPROCESSABLE else status


class Answer(Protocol):
    """What a reader of a log is sent, piece by piece. `failure` is the error that the stream has ended with, if any.

    `line_end` follows what `finish` returns, unless that is an error with a status of its own.
    """

    content_type: str
    line_end: bytes
    failure: ErrorPayload | None

    def feed(self, chunk: bytes) -> bytes:
        """What follows, if anything, when the log has this chunk of whole events."""

    def finish(self) -> bytes:
        """What follows, if anything, at the end of the log: an error, or the whole answer."""


class Lines:
    """The lines, byte for byte. See `Answer`."""

    content_type, line_end = NDJSON, b"\n"

    def __init__(self) -> None:
        self.failure: ErrorPayload | None = None

    def feed(self, chunk: bytes) -> bytes:
        lines = events.lines(chunk)
        if lines and (failure := events.failure(lines[-1])):
            self.failure = failure
            lines.pop()
        return b"".join([line + b"\n" for line in lines])

    def finish(self) -> bytes:
        return error(self.failure["error"]) if self.failure else b""


class Whole:
    """One object, as Ollama makes it of the same lines: the last of them, with all that was said in any. See `Answer`.

    Log probabilities and arguments of tools have their numbers as they came: Go and `orjson` write some differently.
    They are kept as JSON, because as objects they would take ten times the memory of the log, which alone is counted.
    """

    content_type, line_end = JSON, b""

    def __init__(self) -> None:
        self.failure: ErrorPayload | None = None
        self._line = b""
        self._last: Json = {}
        self._said: dict[str, list[Any]] = {}
        self._earlier = False  # whether a line before the last one has said something

    def feed(self, chunk: bytes) -> bytes:
        for line in events.lines(chunk):
            self.failure = self.failure or events.failure(line) or self._add(line)
        return b""

    def finish(self) -> bytes:
        if self.failure is None:
            try:
                return written(self._whole()) if self._earlier else self._line
            except BadUpstream as fault:
                self.failure = fault.payload(Phase.GENERATING)
        return error(self.failure["error"])

    def _add(self, line: bytes) -> ErrorPayload | None:
        self._line, self._earlier = line, bool(self._said)
        try:
            self._last = _read(line)
            for part in (self._last, self._last.get("message")):
                for name in _SAID:
                    said = part.get(name) if isinstance(part, dict) else None
                    if said and isinstance(said, str if name in _TEXTS else list):
                        pieces = [said] if name in _TEXTS else [orjson.Fragment(written(each)) for each in said]
                        self._said.setdefault(name, []).extend(pieces)
        except BadUpstream as fault:
            return fault.payload(Phase.GENERATING)
        return None

    def _whole(self) -> Json:
        said = {name: "".join(parts) if name in _TEXTS else parts for name, parts in self._said.items()}
        if not isinstance(message := self._last.get("message"), dict):
            return _filled(self._last, said)
        beside = {name: said.pop(name) for name in ("logprobs",) if name in said}
        return _filled(self._last | {"message": _filled(message, said)}, beside)


def _read(line: bytes) -> Json:
    value: Json
    if not any(name in line for name in _NUMBERS):  # by far the fastest, for `context`, which may be a megabyte
        value = orjson.loads(line)
        return value
    try:
        value = json.loads(line, parse_float=orjson.Fragment, parse_int=orjson.Fragment)
    except RecursionError:
        raise _too_deep() from None
    return value


def _filled(part: Json, said: Json) -> Json:
    """A part of an answer with what was said in place of its own; what it lacks stands where Ollama has it."""
    filled: Json = {}
    for name, value in part.items():
        filled[name] = said.get(name, value)
        if name in ("response", "content") and "thinking" in said:
            filled["thinking"] = said["thinking"]
    return filled | said


def _too_deep() -> BadUpstream:
    return BadUpstream("Ollama sent JSON that is nested too deeply.")
