"""When what has happened to a generation."""

from dataclasses import dataclass

from gateway.jobs import End, Outcome


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

    def since_end(self, moment: float) -> float:
        """Seconds; 0 for what has not ended."""
        return moment - (self.ended or moment)

    def timings(self) -> dict[str, int | None]:
        """Milliseconds until Ollama was asked, to the first token, and to the end; None for what has not happened."""
        moments = {"queue_ms": self.asked, "first_token_ms": self.first_token, "elapsed_ms": self.ended}
        return {name: None if moment is None else self.since_creation(moment) for name, moment in moments.items()}

    def summary(self, outcome: Outcome, events: int) -> End:
        """The payload of the `end` event of a stream with so many events before it."""
        times = self.timings()
        first, elapsed = times["first_token_ms"], times["elapsed_ms"]
        return {"outcome": outcome, "events": events, "first_token_ms": first, "elapsed_ms": elapsed}
