"""How often an Ollama that is down is tried again."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # in seconds


class Pauses:
    """Pauses that grow, for `seconds` from the first one on."""

    __slots__ = ("_pause", "_seconds", "_until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pause = FIRST_PAUSE
        self._until: float | None = None

    def next(self, now: float) -> float | None:
        """The seconds until the next try; None after the last one."""
        if self._until is None:
            self._until = now + self._seconds
        if now >= self._until:
            return None
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return min(pause, self._until - now)
