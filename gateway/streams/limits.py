"""The time limits of a generation: which of them hold in a phase, and which expires next."""

from collections.abc import Iterator
from typing import NamedTuple

from gateway import errors
from gateway.jobs import Limits, Phase
from gateway.streams.moments import Moments

_TOTAL = "The answer took longer than {:g} s (GATEWAY_TOTAL_TIMEOUT)."
_IDLE = "Ollama sent nothing for {:g} s in the middle of the answer (GATEWAY_IDLE_TIMEOUT)."
_NO_PROGRESS = "Ollama sent no progress for {:g} s (GATEWAY_FIRST_TOKEN_TIMEOUT)."
_NO_TOKEN = "Ollama sent no token within {:g} s (GATEWAY_FIRST_TOKEN_TIMEOUT)."


class TimeLimit(NamedTuple):
    """A limit that expires `seconds` after the moment `since`; 0 seconds disable it."""

    since: float
    seconds: float
    kind: type[errors.LimitReached]
    message: str

    @property
    def due(self) -> float:
        return self.since + self.seconds

    def error(self) -> errors.LimitReached:
        """The error that a stream ends with when the limit has expired."""
        return self.kind(self.message.format(self.seconds))


def next_limit(limits: Limits, phase: Phase, moments: Moments) -> TimeLimit | None:
    """The limit that expires next, if any, once Ollama was asked."""
    enabled = [limit for limit in _in_force(limits, phase, moments) if limit.seconds]
    return min(enabled, key=lambda limit: limit.due, default=None)


def _in_force(limits: Limits, phase: Phase, moments: Moments) -> Iterator[TimeLimit]:
    assert moments.asked is not None
    yield TimeLimit(moments.asked, limits.total, errors.TotalTimeout, _TOTAL)
    if phase is Phase.GENERATING:
        yield TimeLimit(moments.read, limits.idle, errors.IdleTimeout, _IDLE)
    elif phase is Phase.PULLING:
        # Ollama is silent while it verifies a large download, just as it is while it loads a large model.
        yield TimeLimit(moments.read, limits.first_token, errors.IdleTimeout, _NO_PROGRESS)
    else:
        yield TimeLimit(moments.turn, limits.first_token, errors.FirstTokenTimeout, _NO_TOKEN)
