"""How much each scenario measures."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How much is measured. Times are in seconds; `counts` and `capacity` are numbers of streams.

    `leave` is what servers get to notice that all clients have left.
    """

    settle: float = 1
    leave: float = 0.25
    seconds: float = 4
    streams: int = 100
    burst_streams: int = 20
    burst_seconds: float = 2
    requests: int = 200
    silent: int = 500
    kept: int = 5000
    kept_seconds: float = 60
    cancels: int = 200
    viewed: int = 20
    viewers: int = 5
    events: int = 10_000
    reads: int = 5
    shared: int = 40
    counts: Sequence[int] = (1, 10, 50, 100, 250, 500)
    count_seconds: float = 2
    capacity: Sequence[int] = (100, 200, 400, 800, 1600)


QUICK = Sizes(
    settle=0.05,
    leave=0.02,
    seconds=0.2,
    streams=5,
    burst_streams=2,
    burst_seconds=0.2,
    requests=5,
    silent=10,
    kept=10,
    kept_seconds=0.2,
    cancels=5,
    viewed=2,
    viewers=2,
    events=200,
    reads=1,
    shared=2,
    counts=(1, 5),
    count_seconds=0.2,
    capacity=(5,),
)
