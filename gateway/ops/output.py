"""Standard output and standard error, written to without waiting: whoever reads them may stop, and a disk may be full.

A write to a pipe that nobody reads never returns, and in the event loop it would hold every stream.
"""

import os
from queue import SimpleQueue
from threading import Event, Thread
from typing import TextIO

MAX_BYTES = 1024 * 1024  # what may wait to be written
FLUSH_SECONDS = 1.0  # how long the end waits for it
RETRY_SECONDS = 1.0  # how soon a write that has failed is tried again
GATHER_SECONDS = 0.01  # how long lines are gathered: a thread that woke up for each would take a fifth more CPU


class Output:
    """Writes lines in a thread of its own. What cannot be written waits until it can: a disk may get room again."""

    def __init__(self, stream: TextIO | None) -> None:
        # None if it was closed before the process began: its number may be that of a client's connection by now.
        self._file = os.open(os.devnull, os.O_WRONLY) if stream is None else stream.fileno()
        # Garbage is collected at any moment, and may log: this queue can be used again within its own `put`.
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._taken = self._written = 0  # in bytes; each changes in one thread only
        self._closing = Event()
        # a daemon: a write that never returns must not keep the process from ending
        self._thread = Thread(target=self._write, name="output", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The bytes that are not written yet."""
        return self._taken - self._written

    def put(self, line: str) -> bool:
        """Have a line written. False if too much is waiting: then it is not. Call it from one thread at a time."""
        data = (line + "\n").encode(errors="backslashreplace")
        if self.waiting + len(data) > MAX_BYTES:
            return False
        self._taken += len(data)
        self._lines.put(data)
        return True

    def close(self) -> bool:
        """Write what waits, within `FLUSH_SECONDS`. Whether all of it was written."""
        self._closing.set()
        self._lines.put(b"")
        self._thread.join(FLUSH_SECONDS)
        return not self.waiting

    def _write(self) -> None:
        while not (self._closing.is_set() and self._lines.empty()):
            lines = [self._lines.get()]
            self._closing.wait(GATHER_SECONDS)
            while not self._lines.empty():
                lines.append(self._lines.get())
            if not self._write_all(b"".join(lines)):
                return

    def _write_all(self, data: bytes) -> bool:
        while data:
            try:
                written = os.write(self._file, data)
            except OSError:
                if self._closing.wait(RETRY_SECONDS):
                    return False
            else:
                data = data[written:]
                self._written += written
        return True


def say(stream: TextIO | None, line: str) -> bool:
    """Write one line to a standard stream. Whether it was written; no failure raises."""
    output = Output(stream)
    output.put(line)
    return output.close()
