"""Server-Sent Events: framing, ids and their parsing. Pure, and the only place that spells them.

Sidecars, pings and `retry` are framed by sse-starlette's `ServerSentEvent`. Events that carry an id are framed here:
`data:` must stand before `id:`, because a widely used client adopts an id before its event is whole and would skip
that event when the connection is cut between the two lines.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson
from sse_starlette.event import ServerSentEvent

from gateway.errors import ErrorPayload
from gateway.jobs import SID, End, Meta, Outcome, Status

CONTENT_TYPE = "text/event-stream"

LOST = 10**12
"""The number of the terminal message when the replica that wrote a stream is gone. That replica may have shown its
own readers more events than the others know of; no stream has this many."""

_CR = ord("\r")  # an int, because `bytes in bytes` first raises and swallows a TypeError

_EVENT_ID = re.compile(rf"({SID})-(0|[1-9][0-9]{{0,17}})")


class EventId(NamedTuple):
    """The id of one event: stream `sid`, and `seq` counting 1, 2, 3… within it; 0 is before the first."""

    sid: str
    seq: int


def new_sid() -> str:
    """A fresh stream id: 128 random bits, since anybody who knows it may read and stop the stream."""
    return secrets.token_hex(16)


def parse_event_id(text: str) -> EventId | None:
    """`<sid>-<seq>`, or None when it is anything else."""
    match = _EVENT_ID.fullmatch(text)
    return EventId(match[1], int(match[2])) if match else None


def messages(sid: str, first: int, lines: Sequence[bytes]) -> list[bytes]:
    """Unnamed events that each carry one JSON line, numbered from `first` on.

    JSON allows a raw CR as white space, and Server-Sent Events end a line at it: a CR that is left alone would let
    an upstream forge events.
    """
    if _CR in b"".join(lines):  # one search for all lines: there is hardly ever a CR
        lines = [line.replace(b"\r", b" ") for line in lines]
    stream = sid.encode()
    return [b"data: %b\nid: %b-%d\n\n" % (line, stream, seq) for seq, line in enumerate(lines, first)]


def lines(chunk: bytes) -> list[bytes]:
    """The lines in a chunk of whole events: the other half of `messages`. Sidecars, pings and `end` have none."""
    return [event[6 : event.index(b"\n")] for event in chunk.split(b"\n\n") if event.startswith(b"data: ")]


def failure(line: bytes) -> ErrorPayload | None:
    """The error that a line of a log reports, if it is one: no line of Ollama's in a log begins with an error."""
    if not line.startswith(b'{"error":'):
        return None
    payload: ErrorPayload = orjson.loads(line)
    return payload


def end(sid: str, seq: int, payload: End, retry_ms: int | None = None) -> bytes:
    """The `end` event. It has an id, so that a reconnect after it can be told from any other.

    `retry_ms` is how long the client should wait before it reconnects.
    """
    wait = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
    return b"event: end\n%bdata: %b\nid: %b-%d\n\n" % (wait, orjson.dumps(payload), sid.encode(), seq)


def error(payload: ErrorPayload) -> bytes:
    """The events that report an error where there is no stream, or no longer one, so that `EventSource` can read it.

    Its events carry the id of a stream that is never held, so that a reconnect gets 204 and stops.
    """
    sid = new_sid()
    summary: End = {"outcome": Outcome.ERROR, "events": 1, "first_token_ms": None, "elapsed_ms": 0}
    return b"".join([*messages(sid, 1, [orjson.dumps(payload)]), end(sid, 2, summary)])


def meta(payload: Meta, *, primed: bool) -> bytes:
    """The `meta` event: a sidecar that says which stream this is.

    If `primed` it has the id before the first event's, with which a client that is cut off before that can come back.
    """
    frame = _sidecar("meta", payload)
    return frame[:-1] + _primer(payload["id"]) + b"\n" if primed else frame


def read_meta(head: bytes) -> Meta:
    """The payload of the `meta` event in a head."""
    meta: Meta = orjson.loads(head.partition(b"event: meta\ndata: ")[2].partition(b"\n")[0])
    return meta


def unprimed(head: bytes, sid: str) -> bytes:
    """A head for a reader that has seen events, and would lose its place by the id before them."""
    return head.replace(_primer(sid), b"")


def _primer(sid: str) -> bytes:
    return b"id: %b-0\n" % sid.encode()


def status(payload: Status) -> bytes:
    """A `status` event: a sidecar that says where the stream is."""
    return _sidecar("status", payload)


def retry(milliseconds: int) -> bytes:
    """How long `EventSource` should wait before it reconnects."""
    return ServerSentEvent(retry=milliseconds, sep="\n").encode()


def ping() -> ServerSentEvent:
    """A comment that keeps a silent connection open."""
    return ServerSentEvent(comment="ping", sep="\n")


def _sidecar(name: str, payload: Mapping[str, object]) -> bytes:
    return ServerSentEvent(orjson.dumps(payload).decode(), event=name, sep="\n").encode()
