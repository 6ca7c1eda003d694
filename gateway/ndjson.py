"""A pure, bounded, incremental splitter of newline-delimited JSON. It knows no I/O and no JSON."""

from gateway.errors import BadUpstream


class NDJSONDecoder:
    """Bytes in, whole lines out, however the bytes were cut.

    Lines end at LF only: U+2028 and U+0085 may stand raw inside a JSON string. Blank lines are dropped.
    A line longer than `max_line` bytes raises `BadUpstream`, before more than that is held.
    """

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._tail: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their LF."""
        longest = self._held + len(chunk)  # at most
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._tail:
            self._tail.append(lines[0])
            lines[0] = b"".join(self._tail)
            self._tail, self._held = [], 0
        if rest:
            self._tail.append(rest)
            self._held += len(rest)
        if longest > self._max_line and max([self._held, *map(len, lines)]) > self._max_line:
            raise BadUpstream(f"Ollama sent a line of more than {self._max_line} bytes (GATEWAY_MAX_LINE_BYTES).")
        return list(filter(bytes.strip, lines))

    def flush(self) -> list[bytes]:
        """What is left at the end of the input: Ollama sends some answers without a final LF."""
        line = b"".join(self._tail)
        self._tail, self._held = [], 0
        return [line] if line.strip() else []
