"""The limit of open files, which each connection counts against.

Without a file left, the event loop's library closes new connections by itself and says nothing, and running streams
lose what they need: a connection to Ollama, a page's file.
"""

import logging
import resource
from time import monotonic

logger = logging.getLogger(__name__)

MOST_FILES = 10_240  # the most that macOS allows; thousands of idle connections cost little memory
SPARE_FILES = 100  # for all that is neither a client nor Ollama: the page, Redis, the hook, the loop itself
SILENT_SECONDS = 60  # how often it is said that connections are refused


def raise_limit() -> int:
    """Raise the limit to `MOST_FILES` if it may be, as shells and systemd begin with few. The limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < MOST_FILES:
        soft = min(hard, MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


class OpenFiles:
    """Keeps files for what streams need: of `limit` files, clients leave `reserved`, or half of all if that is less."""

    def __init__(self, limit: int, reserved: int) -> None:
        self._limit = limit
        self._most = max(limit - reserved, limit // 2)
        self._said_at = float("-inf")

    def admit(self, file: int) -> bool:
        """Whether a new connection may stay. A file gets the lowest free number, which tells how many are open."""
        if file < self._most:
            return True
        if monotonic() - self._said_at > SILENT_SECONDS:
            self._said_at = monotonic()
            logger.warning(
                "new connections are closed: too many files are open for a limit of %d (ulimit -n)", self._limit
            )
        return False
