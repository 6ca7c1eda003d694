"""A copy of a log that another replica writes, for as long as it has viewers here."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from gateway.dialects import events
from gateway.errors import GatewayError, ProducerLost
from gateway.jobs import End, Outcome, Phase
from gateway.replicas.connection import Keys
from gateway.replicas.replica import Fields, Replica
from gateway.streams.buffer import Buffered, EventBuffer
from gateway.streams.log import Progress

LINGER_SECONDS = 2.0  # how long a mirror without viewers is kept for a viewer that reconnects


END_LOST = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last then return -1 end
for index = 1, #last[2], 2 do if last[2][index] == 'end' then return 0 end end
redis.call('XADD', KEYS[1], ARGV[1], 'lost', ARGV[2], 'end', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
"""End the log of a dead writer. Only the first replica to run it does so; -1 means that the log is gone already."""


class Mirror(Buffered):
    """A `ReadableLog`. `producer` is the replica that writes it, and `release` is called when nobody reads it here."""

    def __init__(
        self, buffer: EventBuffer, producer: str, replica: Replica, release: Callable[["Mirror"], None]
    ) -> None:
        super().__init__(buffer)
        self.producer = producer
        self._replica = replica
        self._release = release
        self._viewers = 0
        self._lingering: asyncio.TimerHandle | None = None

    @property
    def ended(self) -> bool:
        return self.buffer.ended

    def progress(self, seq: int) -> Progress:
        """What is left for a reader, which may have seen events elsewhere that are not here yet."""
        progress = super().progress(seq)
        return Progress.MORE if progress is Progress.UNKNOWN and not self.ended else progress

    def apply(self, _: bytes, fields: Fields) -> None:
        """Add what is new in an entry of the log in Redis. A log that Redis had lost is published again as a whole."""
        if b"lost" in fields:
            terminal, summary = orjson.loads(fields[b"lost"])
            self.buffer.end_lost(terminal.encode(), summary)
        elif b"events" in fields and not self.ended:
            known = self.last - int(fields[b"first"]) + 1
            frames = [frame + b"\n\n" for frame in fields[b"events"].split(b"\n\n")[:-1]][known:]
            try:
                if frames:
                    self.buffer.extend(frames)
            except GatewayError as error:
                self.buffer.end_lost(*obituary(self.last, error.message))
            else:
                if b"end" in fields:
                    self.buffer.close()

    def watch(self) -> Callable[[], None]:
        """Count a viewer, and tell the writer of the first one. Call the function that is returned when it leaves."""
        self._viewers += 1
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._viewers == 1:
            self._tell("join")
        return self._leave

    def _leave(self) -> None:
        self._viewers -= 1
        if not self._viewers:
            self._tell("leave")
            self.linger()

    def remind(self) -> None:
        """Tell the writer once more of viewers that it may have forgotten."""
        if self._viewers:
            self._tell("join")

    def linger(self) -> None:
        """Be released soon, unless a viewer comes."""
        self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._release, self)

    def lose(self, reason: str) -> None:
        """End it for its readers, and let go of it, so that one who comes back finds the stream anew."""
        self.buffer.end_lost(*obituary(self.last, reason))
        self._release(self)

    def _tell(self, what: str) -> None:
        if not self.ended:
            self._replica.send(self.producer, what, self.sid)


def obituary(last: int, reason: str) -> tuple[bytes, End]:
    """The terminal message and the summary of a stream that has lost its writer after event number `last`."""
    phase = Phase.GENERATING if last else Phase.STARTING
    summary: End = {"outcome": Outcome.ERROR, "events": last + 1, "first_token_ms": None, "elapsed_ms": None}
    return orjson.dumps(ProducerLost(reason).payload(phase)), summary


def ending(keys: Keys, sid: str, producer: str, terminal: bytes, summary: End, ttl_ms: int) -> tuple[Any, ...]:
    """The command that ends a log whose writer will not, unless that one still has its lease."""
    lost = orjson.dumps([terminal.decode(), summary])
    return "EVAL", END_LOST, 2, keys.log(sid), keys.lease(producer), f"{events.LOST + 1}-0", lost, ttl_ms
