"""One generation's life: queued → starting → loading → prompt → generating → ended.

A generation reads Ollama and appends to its log. It never waits for a viewer, and no viewer affects its time limits.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from gateway import errors
from gateway.dialects import events
from gateway.jobs import Job, Json, Limits, Outcome, Phase, Reason, Status
from gateway.streams.audience import Audience
from gateway.streams.ledger import Holding
from gateway.streams.limits import next_limit
from gateway.streams.log import EventLog
from gateway.streams.moments import Moments
from gateway.streams.queue import Ticket
from gateway.streams.reconnect import Pauses
from gateway.upstream.client import OllamaClient
from gateway.upstream.servers import Upstreams
from gateway.upstream.wire import as_shown, begins, message_of, progress_of

logger = logging.getLogger(__name__)

WAITING = frozenset([Phase.QUEUED, Phase.STARTING, Phase.LOADING, Phase.PROMPT])
DRAIN_SECONDS = 1.0  # how long the connection of a finished answer may take to end, so that it can be used again
SHUTDOWN_RETRY_MS = (1000, 10_000)  # streams that a shutdown has ended must not all come back in one wave


class Observer:
    """Is told what happens to every generation. Subclasses override what they want to know."""

    def started(self, generation: "Generation") -> None:
        """It has been made, and will run."""

    def changed(self, generation: "Generation") -> None:
        """It has entered another phase."""

    def ended(self, generation: "Generation") -> None:
        """Its end is in the log."""

    def released(self, generation: "Generation", seconds: float) -> None:
        """Its upstream connection has closed and its slot is free, `seconds` after its end."""


@dataclass(eq=False, kw_only=True)
class Generation:
    """Runs one job into one log.

    It ends exactly once: by Ollama's last line, by an error, by `stop`, or because nobody reads it, `resume_window`
    seconds after its last viewer has left, or sooner if others wait for its slot. `server` is the Ollama asked.
    """

    sid: str
    job: Job
    log: EventLog
    holding: Holding
    upstreams: Upstreams
    limits: Limits
    resume_window: float
    observers: Sequence[Observer]

    def __post_init__(self) -> None:
        self._traits = self.job.kind.traits
        self.phase = Phase.QUEUED if self._traits.generates else Phase.PULLING
        self.outcome: Outcome | None = None
        self.error: errors.GatewayError | None = None
        self.last_line: Json = {}
        self._reason: Json = {}  # the last line with a `done_reason`: the end, if no line says `done`
        self._progress: float | None = None  # as Ollama tells it
        self.server: OllamaClient | None = None
        self._loop = asyncio.get_running_loop()
        self.moments = Moments(self._loop.time())
        self._task: asyncio.Task[None]
        self._ticket: Ticket | None = None
        self._timer: asyncio.TimerHandle | None = None  # for the next time limit that can expire
        self._audience = Audience(
            self.limits.unwatched,
            lambda: self.moments.asked is not None and self._ticket is not None and self._ticket.contested,
            lambda reason: self.stop(errors.Cancelled(reason)),
        )

    @property
    def waiting(self) -> bool:
        """Whether viewers still wait for a first token, so that status events are due."""
        return self.outcome is None and self.phase in WAITING

    def start(self, ticket: Ticket | None, attach_timeout: float) -> None:
        """Run as soon as the ticket has a slot; without a ticket, run at once.

        The first viewer must come within `attach_timeout` seconds, or within the resume window if that is longer.
        """
        self._notify(lambda observer: observer.started(self))
        self._ticket = ticket
        self._audience.expect(max(attach_timeout, self.resume_window))
        self._task = self._loop.create_task(self._run())
        # a callback, because a task that is cancelled before its first step never runs a `finally`
        self._task.add_done_callback(lambda _: self._release())

    def stop(self, error: errors.GatewayError) -> None:
        """End now, in whatever phase, with `error` as the terminal message, and close the upstream connection.

        A load that others wait for goes on until it is done: Ollama would throw it away and begin again.
        """
        loads = self.phase is Phase.LOADING and self._ticket is not None and self._ticket.carries
        self._fail(error)
        if loads and self.outcome is Outcome.CANCELLED:
            self._set_timer(self.limits.first_token, self._task.cancel)
        else:
            self._task.cancel()

    async def finished(self) -> None:
        """Wait until the upstream connection and the slot are given back, right after the end."""
        await asyncio.wait([self._task])

    def join(self) -> None:
        """Count one more viewer."""
        self._audience.join()

    def leave(self) -> None:
        """Count one viewer fewer. After the last one the generation stops, unless it has a resume window."""
        self._audience.leave(self.resume_window)

    def observe(self, *, loaded: bool, in_line: bool) -> None:
        """Enter the phase that this implies, `in_line` meaning that Ollama may still be busy with earlier requests."""
        if in_line:  # nothing is wrong with a server that has others to answer
            self.moments.turn = self._loop.time()
        phase = Phase.STARTING if in_line else Phase.PROMPT if loaded else Phase.LOADING
        sure = self._progress is not None and phase is not Phase.PROMPT  # Ollama itself tells how far it is
        if self.waiting and self.phase not in (Phase.QUEUED, phase) and not sure:
            self._progress = None
            self._enter(phase)

    def announce(self) -> None:
        """Show viewers where the stream is."""
        if self.waiting:
            now = self._loop.time()
            status: Status = {"phase": self.phase, "elapsed_ms": self.moments.since_creation(now)}
            if self.phase is Phase.QUEUED and self._ticket is not None:
                self._ticket.describe(status, now)
            if self._progress is not None:
                status["progress"] = self._progress
            self.log.announce(events.status(status))

    async def _run(self) -> None:
        try:
            if self._ticket is not None:
                await self._ticket.admitted(self.announce)
            pauses = Pauses(self.limits.reconnect)
            while True:  # in no coroutine of its own, which would be resumed for every token
                self._begin_asking()
                try:
                    server = self._ticket.server if self._ticket else ""
                    return await self.upstreams.ask(self.job.model, self._read, server)
                except errors.OllamaDown:
                    pause = pauses.next(self._loop.time())
                    if pause is None or self._ticket is None:
                        raise
                self.server = None
                self._ticket.keep(Reason.OLLAMA_DOWN)
                self._enter(Phase.QUEUED)
                await asyncio.sleep(pause)
        except asyncio.CancelledError:
            pass  # what stops it calls `stop`; a task keeps the exception that ends it
        except errors.GatewayError as error:
            self._fail(error)
        except Exception:
            logger.exception("request %s failed", self.job.request_id)
            self._fail(errors.InternalError("The gateway failed. Its log has the details."))

    def _begin_asking(self) -> None:
        now = self.moments.turn = self.moments.read = self._loop.time()
        self.moments.asked = self.moments.asked or now
        if self.phase is Phase.QUEUED:
            self._enter(Phase.STARTING)
        self._check_limits()

    def _release(self) -> None:
        self._set_timer(0, self._release)
        if self._ticket is not None:
            self._ticket.release()
        seconds = self.moments.since_end(self._loop.time())
        self._notify(lambda observer: observer.released(self, seconds))

    async def _read(self, server: OllamaClient) -> None:
        """Relay one server's answer. Raises only while nothing was relayed, so that another server can be asked."""
        self.server, self._progress = server, None
        try:
            async with aclosing(server.lines(self._traits.path, self.job.body, self.holding.extra)) as batches:
                async for batch in batches:
                    self.moments.read = self._loop.time()
                    if self.outcome is None:  # after the end, read on to the end of the body: it frees the connection
                        self._relay(batch)
                    elif self.outcome is Outcome.CANCELLED:  # the load that others wait for is done
                        return
                    del batch
            if self.outcome is None:
                if not self._reason:
                    raise errors.Truncated("Ollama ended the answer without completing it.")
                self.last_line = self._reason
                self._end(Outcome.COMPLETE)
        except errors.GatewayError as error:
            if not self.log.last:
                raise
            self._fail(error)

    def _relay(self, batch: Sequence[bytes]) -> None:
        """Append what Ollama sent, up to the line that ends the answer."""
        lines: list[bytes] = []
        done, moments, shaped = self._traits.last, self.moments, self.job.shaped
        try:
            for line in batch:
                message = message_of(line)
                if message is None or (moments.first_token is None and self._only_tells_progress(message)):
                    continue
                lines.append(as_shown(line, message, shaped=shaped))
                if message.get(done[0]) == done[1]:
                    self.last_line = message
                    break
                if message.get("done_reason"):
                    self._reason = message
        finally:
            if lines and self.outcome is None:  # a limit may have expired with the first token
                self.log.append(lines)
        if self.last_line:
            self._end(Outcome.COMPLETE)

    def _only_tells_progress(self, message: Json) -> bool:
        """Whether a line before the first token is no part of the answer. The first token begins the next phase."""
        if not self._traits.generates or begins(message):
            self._begin_generating()
            return False
        told = progress_of(message)
        if told is None:
            return False
        phase, self._progress = told
        if self.phase is phase:
            self.announce()
        else:
            self._enter(phase)
        return True

    def _begin_generating(self) -> None:
        self.moments.first_token = self.moments.read
        if self._ticket is not None:
            self._ticket.begin()
        if self.phase is not Phase.PULLING:
            self._enter(Phase.GENERATING)
        self._check_limits()

    def _fail(self, error: errors.GatewayError) -> None:
        self._end(Outcome.CANCELLED if isinstance(error, errors.Cancelled) else Outcome.ERROR, error)

    def _end(self, outcome: Outcome, error: errors.GatewayError | None = None) -> None:
        """Write the end, unless it has been written already."""
        if self.outcome is not None:
            return
        if error is not None:  # the frames behind it hold what was read, and this generation, which holds the error
            error.__traceback__ = error.__cause__ = error.__context__ = None
        self.outcome, self.error = outcome, error
        self.moments.ended = self._loop.time()
        terminal = None if error is None else orjson.dumps(error.payload(self.phase))
        summary = self.moments.summary(outcome, self.log.last + (terminal is not None))
        retry_ms = random.randint(*SHUTDOWN_RETRY_MS) if isinstance(error, errors.ShuttingDown) else None
        self.log.end(terminal, summary, retry_ms)
        self.holding.become(0)
        self._audience.close()
        self._set_timer(DRAIN_SECONDS, self._task.cancel)
        self._notify(lambda observer: observer.ended(self))

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.announce()
        self._notify(lambda observer: observer.changed(self))

    def _notify(self, tell: Callable[[Observer], None]) -> None:
        for observer in self.observers:
            tell(observer)

    def _check_limits(self) -> None:
        """Stop if a time limit has expired, otherwise check again when the next one can.

        A timer that re-arms itself costs nothing per token. One that each token restarts would.
        """
        limit = next_limit(self.limits, self.phase, self.moments)
        seconds = 0 if limit is None else limit.due - self._loop.time()
        if limit is not None and seconds <= 0:
            self.stop(limit.error())
        else:
            self._set_timer(seconds, self._check_limits)

    def _set_timer(self, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` in so many seconds, and nothing else; with 0, nothing at all."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then) if seconds else None
