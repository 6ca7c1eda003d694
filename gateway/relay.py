"""One generation's life: queued → loading → prompt → generating → ended.

A generation reads Ollama and appends to its log. It never waits for a viewer, and no viewer feeds its limits.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import orjson

from gateway import events
from gateway.admission import Ticket
from gateway.errors import (
    Cancelled,
    FirstTokenTimeout,
    GatewayError,
    IdleTimeout,
    InternalError,
    LimitReached,
    OllamaError,
    ProducerLost,
    ShuttingDown,
    TotalTimeout,
    Truncated,
)
from gateway.logs import EventLog
from gateway.ollama import Json, Ollama, error_text, parse_line
from gateway.upstreams import Upstreams

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 1.0
"""How long a finished answer's connection may take to end, so that it can be used again."""

SHUTDOWN_RETRY_MS = (1000, 10_000)


class Kind(StrEnum):
    CHAT = "chat"
    GENERATE = "generate"
    PULL = "pull"


class Phase(StrEnum):
    QUEUED = "queued"
    LOADING = "loading"
    PROMPT = "prompt"
    GENERATING = "generating"
    PULLING = "pulling"


class Outcome(StrEnum):
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of every generation, in seconds; 0 is none."""

    first_token: float
    idle: float
    total: float


@dataclass(frozen=True, slots=True)
class Job:
    """What Ollama is to be asked: `body` is its request body, `model` is the body's own.

    `client`, a key's name or an address, and `request_id` tell who asked: two jobs that ask for the same are equal.
    """

    kind: Kind
    model: str
    body: bytes
    client: str = field(default="", compare=False)
    request_id: str = field(default="", compare=False)


_TOTAL = "The answer took longer than {:g} s (GATEWAY_TOTAL_TIMEOUT)."
_IDLE = "Ollama sent nothing for {:g} s in the middle of the answer (GATEWAY_IDLE_TIMEOUT)."
_NO_PROGRESS = "Ollama sent no progress for {:g} s (GATEWAY_FIRST_TOKEN_TIMEOUT)."
_NO_TOKEN = "Ollama sent no token within {:g} s (GATEWAY_FIRST_TOKEN_TIMEOUT)."


class _TimeLimit(NamedTuple):
    """It has passed, with this error, `seconds` after the moment `since`; 0 seconds are no limit."""

    since: float
    seconds: float
    error: type[LimitReached]
    message: str


class Generation:
    """Runs one job into one log.

    It ends exactly once: by Ollama's own last line, by an error, by `stop`, or when nobody watches: after
    `resume_window` seconds, or before the first viewer, `attach_timeout` if that is longer.
    `on_change` is called with it when it enters another phase, and once when it has ended; `on_release` when
    its upstream connection is closed, with the seconds that took. `server` is the one that is asked.
    """

    def __init__(
        self,
        sid: str,
        job: Job,
        log: EventLog,
        *,
        upstreams: Upstreams,
        limits: Limits,
        resume_window: float,
        on_change: Callable[["Generation"], None],
        on_release: Callable[["Generation", float], None],
    ) -> None:
        self.sid = sid
        self.job = job
        self.log = log
        self.phase = Phase.PULLING if job.kind is Kind.PULL else Phase.QUEUED
        self.outcome: Outcome | None = None
        self.error: GatewayError | None = None
        self.last_line: Json = {}
        self.viewers = 0
        self.server: Ollama | None = None
        self._upstreams = upstreams
        self._limits = limits
        self._resume_window = resume_window
        self._on_change = on_change
        self._on_release = on_release
        self._position = 0
        self._loop = asyncio.get_running_loop()
        self.created_at = self._loop.time()
        self.asked_at: float | None = None
        self.first_token_at: float | None = None
        self.ended_at = 0.0
        self._read_at = 0.0
        self._task: asyncio.Task[None]
        self._timer: asyncio.TimerHandle | None = None  # the next time limit that can fire
        self._unwatched: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> bool:
        """Whether viewers still wait for a first token, so that status events are due."""
        return self.outcome is None and self.phase in (Phase.QUEUED, Phase.LOADING, Phase.PROMPT)

    def start(self, ticket: Ticket | None, attach_timeout: float) -> None:
        """Run, as soon as the ticket has a slot. A pull needs none: it keeps no model busy."""
        if ticket is not None:
            ticket.on_move = self._move
            if ticket.position:
                self._move(ticket.position)
        self._unwatched = self._loop.call_later(max(attach_timeout, self._resume_window), self._abandon)
        self._task = self._loop.create_task(self._run(ticket))
        # a callback, because a task that is cancelled before its first step never runs a `finally`
        self._task.add_done_callback(lambda _: self._release(ticket))

    def timings(self) -> dict[str, int | None]:
        """Milliseconds from its creation to Ollama being asked, to the first token and to the end; None if never."""
        return {
            "queue_ms": self._since_creation(self.asked_at),
            "first_token_ms": self._since_creation(self.first_token_at),
            "elapsed_ms": self._since_creation(self.ended_at or self._loop.time()),
        }

    def stop(self, error: GatewayError) -> None:
        """End now, in whatever phase: `error` is the terminal message, the upstream connection is closed."""
        self._fail(error)
        self._task.cancel()

    async def finished(self) -> None:
        """Until the upstream connection and the slot are given back, which follows the end at once."""
        await asyncio.wait([self._task])

    def join(self) -> None:
        """A viewer has come."""
        self.viewers += 1
        if self._unwatched is not None:
            self._unwatched.cancel()
            self._unwatched = None

    def leave(self) -> None:
        """A viewer has gone. With the last one the generation stops, unless it has a resume window."""
        self.viewers -= 1
        if self.viewers == 0 and self.outcome is None:
            if self._resume_window:
                self._unwatched = self._loop.call_later(self._resume_window, self._abandon)
            else:
                self._abandon()

    def await_return(self, seconds: float) -> None:
        """Go on for so long at least when the last viewer leaves: it was sent away and will come back."""
        self._resume_window = max(self._resume_window, seconds)

    def observe(self, loaded: bool) -> None:
        """Learn whether Ollama has the model in memory: if not, it loads it, else it reads the prompt."""
        phase = Phase.PROMPT if loaded else Phase.LOADING
        if self.waiting and self.phase not in (Phase.QUEUED, phase):
            self._enter(phase)

    def announce(self) -> None:
        """Show viewers where it stands."""
        if self.waiting:
            status: dict[str, object] = {"phase": self.phase}
            if self.phase is Phase.QUEUED:
                status["position"] = self._position
            status["elapsed_ms"] = self._since_creation(self._loop.time())
            self.log.announce(events.sidecar("status", status))

    async def _run(self, ticket: Ticket | None) -> None:
        try:
            if ticket is not None:
                await ticket.admitted()
            self.asked_at = self._read_at = self._loop.time()
            if self.phase is Phase.QUEUED:
                self._enter(Phase.LOADING)
            self._watch()
            await self._upstreams.ask(self.job.model, self._read)
        except GatewayError as error:
            self._fail(error)
        except Exception:
            logger.exception("request %s failed", self.job.request_id)
            self._fail(InternalError("The gateway failed. Its log has the details."))

    def _release(self, ticket: Ticket | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if ticket is not None:
            ticket.release()
        self._on_release(self, self._loop.time() - self.ended_at)

    async def _read(self, server: Ollama) -> None:
        """Relay one server's answer. Raises as long as nothing was relayed, so that another server can be asked."""
        self.server = server
        try:
            async with aclosing(server.lines(f"/api/{self.job.kind}", self.job.body)) as batches:
                async for batch in batches:
                    self._read_at = self._loop.time()
                    if self.outcome is None:  # after the end, read on to the end of the body: it frees the connection
                        self._take(batch)
            if self.outcome is None:
                raise Truncated("Ollama ended the answer without completing it.")
        except GatewayError as error:
            if self.first_token_at is None:
                raise
            self._fail(error)

    def _take(self, batch: Sequence[bytes]) -> None:
        """Append what Ollama sent, up to the line that ends the answer."""
        lines: list[bytes] = []
        pull = self.job.kind is Kind.PULL
        try:
            for line in batch:
                message = parse_line(line)
                if "error" in message:
                    raise OllamaError(error_text(message["error"]))
                lines.append(line)
                if message.get("done") is True or (pull and message.get("status") == "success"):
                    self.last_line = message
                    break
        finally:
            if lines:
                if self.first_token_at is None:
                    self._first_token()
                self.log.append(lines)
        if self.last_line:
            self._end(Outcome.COMPLETE)

    def _first_token(self) -> None:
        self.first_token_at = self._read_at
        if self.phase is not Phase.PULLING:
            self._enter(Phase.GENERATING)
        self._watch()

    def _fail(self, error: GatewayError) -> None:
        self._end(Outcome.CANCELLED if isinstance(error, Cancelled) else Outcome.ERROR, error)

    def _end(self, outcome: Outcome, error: GatewayError | None = None) -> None:
        """Write the end, once: whatever comes second has lost."""
        if self.outcome is not None:
            return
        self.outcome, self.error = outcome, error
        self.ended_at = self._loop.time()
        terminal = None if error is None else orjson.dumps(error.payload(self.phase))
        summary = {
            "outcome": outcome,
            "events": self.log.last + (terminal is not None),
            "first_token_ms": self._since_creation(self.first_token_at),
            "elapsed_ms": self._since_creation(self.ended_at),
        }
        if terminal is not None and isinstance(error, ProducerLost):
            self.log.lose(terminal, summary)
        else:
            # streams that a shutdown has ended must not all come back in one wave
            retry = random.randint(*SHUTDOWN_RETRY_MS) if isinstance(error, ShuttingDown) else None
            self.log.end(terminal, summary, retry)
        if self._unwatched is not None:
            self._unwatched.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(DRAIN_SECONDS, self._task.cancel)
        self._on_change(self)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.announce()
        self._on_change(self)

    def _move(self, position: int) -> None:
        self._position = position
        self.announce()

    def _abandon(self) -> None:
        self.stop(Cancelled("The last viewer left."))

    def _watch(self) -> None:
        """Stop at the time limit that has passed, else look again when the next one can pass.

        One timer that re-arms itself costs nothing per token, where one that each token restarts would.
        """
        if self._timer is not None:
            self._timer.cancel()
        passing = [limit for limit in self._time_limits() if limit.seconds]
        if not passing:
            return
        next_limit = min(passing, key=lambda limit: limit.since + limit.seconds)
        due = next_limit.since + next_limit.seconds
        if due <= self._loop.time():
            self.stop(next_limit.error(next_limit.message.format(next_limit.seconds)))
        else:
            self._timer = self._loop.call_at(due, self._watch)

    def _time_limits(self) -> Iterator[_TimeLimit]:
        """Those that hold in this phase."""
        assert self.asked_at is not None
        limits = self._limits
        yield _TimeLimit(self.asked_at, limits.total, TotalTimeout, _TOTAL)
        if self.phase is Phase.GENERATING:
            yield _TimeLimit(self._read_at, limits.idle, IdleTimeout, _IDLE)
        elif self.phase is Phase.PULLING:
            # Ollama is silent while it verifies a large download, as it is while it loads one
            yield _TimeLimit(self._read_at, limits.first_token, IdleTimeout, _NO_PROGRESS)
        else:
            yield _TimeLimit(self.asked_at, limits.first_token, FirstTokenTimeout, _NO_TOKEN)

    def _since_creation(self, moment: float | None) -> int | None:
        return None if moment is None else round((moment - self.created_at) * 1000)
