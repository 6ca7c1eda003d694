"""When what has happened to a generation."""

from dataclasses import dataclass


@dataclass(slots=True)
class Moments:
    """Times by the event loop's clock, in seconds; None for what has not happened, or never will.

    Ollama was `asked`; since `turn` nobody was before this request there; it has `read` from Ollama last then.
    """

    created: float
    asked: float | None = None
    turn: float = 0.0
    read: float = 0.0
    first_token: float | None = None
    ended: float | None = None

    def since_creation(self, moment: float) -> int:
        """Milliseconds."""
        return round((moment - self.created) * 1000)

    def timings(self) -> dict[str, int | None]:
        """Milliseconds until Ollama was asked, to the first token, and to the end; None for what has not happened."""
        moments = {"queue_ms": self.asked, "first_token_ms": self.first_token, "elapsed_ms": self.ended}
        return {name: None if moment is None else self.since_creation(moment) for name, moment in moments.items()}
