"""Event framing, ids and their parsing. Pure, and the only place that spells Server-Sent Events.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson

CONTENT_TYPE = "text/event-stream"

LOST = 10**12
"""The number of the terminal message when the replica that wrote a stream is gone. It may have shown its readers more
than others know of; no stream has as many events."""

_CR = ord("\r")  # a number: Python looks for bytes in bytes only after an exception that it hides

_EVENT_ID = re.compile(r"([0-9a-z]{26,64})-([1-9][0-9]{0,17})")


class EventId(NamedTuple):
    """The id of one event: stream `sid`, and `seq` counting 1, 2, 3… within it."""

    sid: str
    seq: int


def new_sid() -> str:
    """A fresh stream id: 128 random bits, since whoever knows it may read and stop the stream."""
    return secrets.token_hex(16)


def parse_event_id(text: str) -> EventId | None:
    """`<sid>-<seq>`, or None when it is anything else."""
    match = _EVENT_ID.fullmatch(text)
    return EventId(match[1], int(match[2])) if match else None


def messages(sid: str, first: int, lines: Sequence[bytes]) -> list[bytes]:
    """Unnamed events that each carry one JSON line, with `seq` from `first` on.

    JSON allows a raw CR as white space and SSE ends a line at it: left alone, an upstream could forge events.
    `data:` stands before `id:` because a widely used client adopts an id before its event is whole.
    """
    if _CR in b"".join(lines):  # one search for all: there hardly ever is one
        lines = [line.replace(b"\r", b" ") for line in lines]
    stream = sid.encode()
    return [b"data: %b\nid: %b-%d\n\n" % (line, stream, seq) for seq, line in enumerate(lines, first)]


def end(sid: str, seq: int, payload: Mapping[str, object], retry: int | None = None) -> bytes:
    """The `end` event: the last of every stream, and with an id, so that a reconnect after it can be told.

    `retry` is how many milliseconds a client shall wait before it reconnects.
    """
    wait = b"" if retry is None else b"retry: %d\n" % retry
    return b"event: end\n%bdata: %b\nid: %b-%d\n\n" % (wait, orjson.dumps(payload), sid.encode(), seq)


def sidecar(name: str, payload: Mapping[str, object]) -> bytes:
    """A named event without an id, which a client may ignore."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(payload))


def retry(milliseconds: int) -> bytes:
    """How long `EventSource` waits before it reconnects."""
    return b"retry: %d\n\n" % milliseconds
