"""A bounded, incremental splitter of newline-delimited JSON. Pure: it does no I/O and parses no JSON."""

from gateway.errors import BadUpstream


class NDJSONDecoder:
    """Turns chunks of bytes into whole lines, wherever the chunks were cut.

    Lines end at LF only: U+2028 and U+0085 may stand raw inside a JSON string. Blank lines are dropped.
    A line longer than `max_line` bytes raises `BadUpstream`, before more than that is held.
    """

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        # One piece of memory that grows: thousands of small ones would leave holes that nothing larger fits into.
        self._tail = bytearray()

    @property
    def held(self) -> int:
        """The bytes of the unfinished line."""
        return len(self._tail)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their LF."""
        longest = len(self._tail) + len(chunk)  # an upper bound
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._tail:
            lines[0] = bytes(self._tail + lines[0])
            self._tail.clear()
        self._tail += rest
        if longest > self._max_line and max([len(self._tail), *map(len, lines)]) > self._max_line:
            raise BadUpstream(f"Ollama sent a line of more than {self._max_line} bytes (GATEWAY_MAX_LINE_BYTES).")
        return list(filter(bytes.strip, lines))

    def flush(self) -> list[bytes]:
        """The unfinished line at the end of the input: Ollama sends some answers without a final LF."""
        line = bytes(self._tail)
        self._tail.clear()
        return [line] if line.strip() else []
