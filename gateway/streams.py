"""All streams of this process: starting, finding, watching and stopping them."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway import events
from gateway.admission import Admission, Ticket
from gateway.errors import Cancelled, GatewayError, ShuttingDown
from gateway.logs import EventLog, LogStore
from gateway.pulse import Pulse
from gateway.relay import Generation, Job, Kind, Limits
from gateway.upstreams import Upstreams

RETRY_MS = 1000

HAND_OVER_RETRY_MS = 100
"""How soon a viewer shall ask another replica: it reads in the middle of an answer."""


class Observer:
    """Told of every generation: when it starts, when it ends, and when its upstream connection has closed."""

    def started(self, generation: Generation) -> None: ...

    def ended(self, generation: Generation) -> None: ...

    def released(self, generation: Generation, seconds: float) -> None:
        """`seconds` after its end."""


class Streams:
    """The registry of running generations and of the logs that hold what they, and ended ones, said.

    `attach_timeout` and `max_resume_window` are in seconds.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        logs: LogStore,
        admission: Admission,
        pulse: Pulse,
        *,
        limits: Limits,
        attach_timeout: float,
        max_resume_window: float,
        observers: Sequence[Observer],
    ) -> None:
        self.draining = False
        self.viewers = 0
        self._upstreams = upstreams
        self._logs = logs
        self._admission = admission
        self._pulse = pulse
        self._limits = limits
        self._attach_timeout = attach_timeout
        self._max_resume_window = max_resume_window
        self._observers = observers
        self._return_window = 0.0
        self._running: dict[str, Generation] = {}
        self._starting = 0
        self._pulling = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._running)

    async def start(self, job: Job, resume_window: float = 0) -> Generation:
        """Start a job, or join the pull of the same model that runs. Raises `Busy` or `ShuttingDown`."""
        if self.draining:
            raise ShuttingDown("The gateway is shutting down and takes no new requests.")
        self._starting += 1
        self._idle.clear()
        try:
            if job.kind is not Kind.PULL:
                return await self._begin(job, await self._admission.enter(), resume_window)
            async with self._pulling:  # or of several at once none would see another
                running = (generation for generation in self._running.values() if generation.job == job)
                return next(running, None) or await self._begin(job, None, resume_window)
        finally:
            self._starting -= 1
            self._settle()

    async def _begin(self, job: Job, ticket: Ticket | None, resume_window: float) -> Generation:
        sid = events.new_sid()
        meta = {"v": 1, "id": sid, "url": stream_url(sid), "kind": job.kind, "model": job.model}
        try:
            log = await self._logs.create(sid, events.retry(RETRY_MS) + events.sidecar("meta", meta))
        except BaseException:
            if ticket is not None:
                ticket.release()
            raise
        generation = Generation(
            sid,
            job,
            log,
            upstreams=self._upstreams,
            limits=self._limits,
            resume_window=max(min(resume_window, self._max_resume_window), self._return_window),
            on_change=self._changed,
            on_release=self._released,
        )
        self._running[sid] = generation
        for observer in self._observers:
            observer.started(generation)
        generation.start(ticket, self._attach_timeout)
        self._pulse.follow(generation)
        return generation

    @property
    def held(self) -> int:
        """How many logs are held, of running and ended streams."""
        return len(self._logs)

    @property
    def held_bytes(self) -> int:
        """What they hold."""
        return self._logs.size

    async def log(self, sid: str) -> EventLog | None:
        """The log of a stream that runs, or ended a while ago; None when it is not held (any more). Raises `Busy`."""
        return await self._logs.find(sid)

    async def stop_anywhere(self, sid: str) -> None:
        """Stop a stream if it runs, here or at another replica. Raises `Busy` when that cannot be told."""
        if sid in self._running:
            self.stop(sid)
        else:
            await self._logs.stop(sid)

    def stop(self, sid: str) -> None:
        """Stop a stream if it runs here."""
        if generation := self._running.get(sid):
            generation.stop(Cancelled("Stopped on request."))

    def joined(self, sid: str) -> None:
        """Another replica has viewers of a stream that runs here."""
        if generation := self._running.get(sid):
            generation.join()

    def left(self, sid: str) -> None:
        """That replica has none any more."""
        if generation := self._running.get(sid):
            generation.leave()

    def lost(self, sid: str, error: GatewayError) -> None:
        """The other replicas have ended a stream that runs here."""
        if generation := self._running.get(sid):
            generation.stop(error)

    @contextmanager
    def watching(self, sid: str) -> Iterator[None]:
        """Count a viewer for as long as it is there."""
        writer = self._running.get(sid) or self._logs.elsewhere(sid)
        self.viewers += 1
        if writer:
            writer.join()
        try:
            yield
        finally:
            self.viewers -= 1
            if writer:
                writer.leave()

    @property
    def shared(self) -> bool:
        """Whether other replicas serve the same streams."""
        return self._logs.shared

    @property
    def problem(self) -> str | None:
        """Why streams can be neither started nor found, in a word for a person; None when they can."""
        return self._logs.problem

    def hand_over(self) -> None:
        """Take nothing new, and send viewers who return by themselves to other replicas, while what runs goes on."""
        self.draining = True
        self._return_window = self._attach_timeout  # also of what is being started at this moment
        for generation in self._running.values():
            generation.await_return(self._return_window)
        self._logs.dismiss(HAND_OVER_RETRY_MS)

    async def drain(self, seconds: float) -> None:
        """Take nothing new, let what runs finish for up to `seconds`, then end the rest with `shutting_down`."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            running = list(self._running.values())
            for generation in running:
                generation.stop(ShuttingDown("The gateway is shutting down."))
            await asyncio.gather(*(generation.finished() for generation in running))

    def _changed(self, generation: Generation) -> None:
        self._pulse.follow(generation)
        if generation.outcome is not None:
            del self._running[generation.sid]
            self._settle()
            for observer in self._observers:
                observer.ended(generation)

    def _settle(self) -> None:
        if not self._running and not self._starting:
            self._idle.set()

    def _released(self, generation: Generation, seconds: float) -> None:
        for observer in self._observers:
            observer.released(generation, seconds)


def stream_url(sid: str) -> str:
    """Where a stream is read and stopped, relative to the gateway's origin."""
    return f"/api/streams/{sid}"
