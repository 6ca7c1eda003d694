"""Framing and ids."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import events
from gateway.jobs import End, Outcome, Phase
from tests.sse import Event, parse

SID = "0" * 32
SUMMARY: End = {"outcome": Outcome.COMPLETE, "events": 1, "first_token_ms": None, "elapsed_ms": 2}
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(st.characters(exclude_categories=["Cs"]))
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def test_frames() -> None:
    """Byte for byte: `data:` before `id:`, names only on sidecars, plain LF, a blank line after each."""
    assert events.messages(SID, 17, [b'{"a":1}', b"{}"]) == [
        b'data: {"a":1}\nid: %b-17\n\n' % SID.encode(),
        b"data: {}\nid: %b-18\n\n" % SID.encode(),
    ]
    assert events.end(SID, 2, SUMMARY) == (
        b"event: end\ndata: %b\nid: %b-2\n\n" % (orjson.dumps(SUMMARY), SID.encode())
    )
    status = events.status({"phase": Phase.LOADING, "elapsed_ms": 5})
    assert status == b'event: status\ndata: {"phase":"loading","elapsed_ms":5}\n\n'
    assert events.ping().encode() == b": ping\n\n"
    assert events.retry(1000) == b"retry: 1000\n\n"


@given(JSON)
def test_any_json_comes_through(value: object) -> None:
    """Whatever a line of JSON holds, a strict reader gets it back, as one event with its id."""
    line = orjson.dumps({"value": value})
    assert parse(events.messages(SID, 1, [line])[0].removesuffix(b"\n\n")) == Event("message", line, f"{SID}-1")


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line)))
def test_no_line_forges_an_event(lines: list[bytes]) -> None:
    """This includes a line with a raw CR, which would end it in an event stream, at any place among others."""
    for line, frame in zip(lines, events.messages(SID, 1, lines), strict=True):
        assert frame.count(b"\n") == 3
        assert b"\r" not in frame
        assert frame.startswith(b"data: " + line.replace(b"\r", b" "))


def test_sids() -> None:
    """They have 128 random bits, in characters that are safe in URLs and headers; an event's id has under 128 bytes."""
    sids = {events.new_sid() for _ in range(1000)}
    assert len(sids) == 1000
    for sid in sids:
        assert len(sid) == 32
        assert events.parse_event_id(f"{sid}-1") == (sid, 1)
        assert len(f"{sid}-{10**18 - 1}") < 128


@given(st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=26, max_size=64), st.integers(1, 10**18 - 1))
def test_ids_round_trip(sid: str, seq: int) -> None:
    assert events.parse_event_id(f"{sid}-{seq}") == events.EventId(sid, seq)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1",
        SID,
        *[
            f"{SID}{rest}"
            for rest in ("-", "-00", "-01", "-+1", "-1 ", "-1\n", "-٣", "--1", "-1-1", "-1.0", f"-{10**18}")
        ],
        f" {SID}-1",
        f"{'A' * 32}-1",
        f"{'0' * 25}-1",
        f"{'0' * 65}-1",
    ],
)
def test_what_is_no_id(text: str) -> None:
    assert events.parse_event_id(text) is None
