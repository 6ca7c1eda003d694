"""Splitting lines: the same lines however the bytes were cut, and never more held than the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadUpstream
from gateway.upstream.ndjson import NDJSONDecoder
from tests.transcripts import NAMES, load

TEXT = '{"a":"é👩‍👩‍👧\u2028\x85"}\n\r\n \n{"b":1}\r\n{"c":2}'.encode()
LINES = ['{"a":"é👩‍👩‍👧\u2028\x85"}'.encode(), b'{"b":1}\r', b'{"c":2}']


def decoded(pieces: list[bytes], max_line: int = 2**24) -> list[bytes]:
    decoder = NDJSONDecoder(max_line)
    return [line for piece in pieces for line in decoder.feed(piece)] + decoder.flush()


def test_whole() -> None:
    """LF ends a line, nothing else does; blank lines are dropped; the last one needs no LF."""
    assert decoded([TEXT]) == LINES


@pytest.mark.parametrize("at", range(len(TEXT) + 1))
def test_cut_at_each_byte(at: int) -> None:
    assert decoded([TEXT[:at], TEXT[at:]]) == LINES


def test_byte_by_byte() -> None:
    assert decoded([TEXT[at : at + 1] for at in range(len(TEXT))]) == LINES


@given(st.lists(st.binary(max_size=20)))
def test_any_cut(pieces: list[bytes]) -> None:
    whole = [line for line in b"".join(pieces).split(b"\n") if line.strip()]
    assert decoded(pieces) == whole


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("chat", "generate", "pull"))])
def test_recorded_chunks(name: str) -> None:
    transcript = load(name)
    assert decoded(list(transcript.chunks)) == [line for line in transcript.body.split(b"\n") if line]


def test_lines_come_as_soon_as_they_are_whole() -> None:
    decoder = NDJSONDecoder(100)
    assert decoder.feed(b"one\ntw") == [b"one"]
    assert decoder.feed(b"o") == []
    assert decoder.feed(b"\n") == [b"two"]
    assert decoder.flush() == []


@pytest.mark.parametrize("size", range(1, 33))
def test_lines_of_just_the_bound(size: int) -> None:
    """However they are cut, no line counts toward the bound of the next."""
    lines = (b"x" * 10 + b"\n") * 2 + b"x" * 10
    assert decoded([lines[at : at + size] for at in range(0, 32, size)], max_line=10) == [b"x" * 10] * 3


@pytest.mark.parametrize(
    "pieces",
    [[b"x" * 11 + b"\n"], [b"x" * 11], [b"x"] * 11, [b"xxxxx", b"xxxxxx\n"], [b"a\nb\n" + b"x" * 11], [b" " * 11]],
)
def test_line_over_the_bound(pieces: list[bytes]) -> None:
    """A line that never ends fails, too, as soon as it is over the bound."""
    with pytest.raises(BadUpstream, match="GATEWAY_MAX_LINE_BYTES"):
        decoded(pieces, max_line=10)


def test_flush_starts_over() -> None:
    decoder = NDJSONDecoder(10)
    decoder.feed(b"x" * 9)
    assert decoder.flush() == [b"x" * 9]
    assert decoder.feed(b"y" * 9 + b"\n") == [b"y" * 9]
    decoder.feed(b" ")
    assert decoder.flush() == []
