"""All streams that a client can reach through this process: starting, finding, watching and stopping them."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.dialects import events
from gateway.errors import Busy, Conflict, ShuttingDown
from gateway.jobs import SID, Claim, Job, Limits, Meta, Phase, stream_url
from gateway.streams.generation import Generation, Observer
from gateway.streams.homes import Homes
from gateway.streams.ledger import NO_ROOM, Holding, Ledger
from gateway.streams.log import LogStore, Peers, ReadableLog
from gateway.streams.queue import Queue, Ticket
from gateway.streams.quotas import Quotas
from gateway.streams.running import Running
from gateway.upstream.servers import Upstreams

RETRY_MS = 1000  # the wait before a reconnect that every stream tells `EventSource` first
JOIN_SECONDS = 0.25
"""How long a stream outlives its last viewer at this replica: news of a viewer at another one can arrive first."""

START_SECONDS = 10.0  # how long a request waits for an equal one, which has come earlier, to start its stream
START_POLL_SECONDS = 0.05
ASKING_TURNS = 2
"""The loop's turns that a generation needs to send its request: Ollama is to work while the response is set up."""

HAND_OVER_RETRY_MS = 100  # for a viewer that is sent to another replica in the middle of an answer
_SID = re.compile(SID)


@dataclass(eq=False, kw_only=True)
class Streams(Observer):
    """Starts generations, and finds the logs of running and of ended ones. Times are in seconds.

    `peers` is there when other replicas serve the same streams.
    """

    upstreams: Upstreams
    logs: LogStore
    queue: Queue
    running: Running
    ledger: Ledger
    quotas: Quotas
    limits: Limits
    attach_timeout: float
    max_resume_window: float
    observers: Sequence[Observer]
    peers: Peers | None = None

    def __post_init__(self) -> None:
        self.draining = False
        self._return_window = JOIN_SECONDS if self.peers else 0.0
        self._joining = asyncio.Lock()
        self._homes = Homes()
        self.ledger.stop_running.append(self._stop_largest)

    async def start(
        self, caller: str, make: Callable[[], Awaitable[Job]], claim: Claim | None
    ) -> tuple[str, ReadableLog]:
        """Start the job that `make` returns, or join a stream that must not run twice: its id and its log.

        Raises `Busy`, `ShuttingDown`, `Conflict`, and what `make` raises.
        """
        sid = events.new_sid()
        if claim is None:
            return await self._start(caller, make, sid)
        if earlier := await self._claim(claim, sid):
            return earlier
        try:
            return await self._start(caller, make, sid)
        except BaseException:
            self.logs.disclaim(sid)
            raise

    async def log(self, sid: str) -> ReadableLog | None:
        """The log of a stream that runs or ended a while ago; None when it is not held. Raises `Busy`."""
        return await self.logs.find(sid) if _SID.fullmatch(sid) else None

    async def stop(self, sid: str, caller: str) -> None:
        """Stop a stream if it runs, here or at another replica, unless others than `caller` have asked for it, too.

        Raises `Busy` when it is not known whether it runs.
        """
        if sid not in self.running and self.peers and _SID.fullmatch(sid):
            await self.peers.stop(sid, caller)
        self.running.stop(sid, caller)

    def watch(self, sid: str) -> Callable[[], None]:
        """Count a viewer. Call the function that is returned when it leaves."""
        leave = self.running.watch(sid) or (self.peers and self.peers.watch(sid))
        self.running.viewers += 1

        def end() -> None:
            self.running.viewers -= 1
            if leave:
                leave()

        return end

    def changed(self, generation: Generation) -> None:
        if generation.phase is Phase.GENERATING:  # its model is loaded
            self.upstreams.answers.forget()

    def ended(self, generation: Generation) -> None:
        if generation.server is not None and len(self.upstreams.servers) > 1:
            self._homes.note(generation.job, generation.server.name)
        self.upstreams.answers.forget()  # it may have pulled or unloaded a model, which must show at once

    def released(self, generation: Generation, seconds: float) -> None:
        self.upstreams.answers.forget()  # of several servers, that one's models are asked for once more now

    def hand_over(self) -> None:
        """Start nothing new, and send viewers that reconnect to other replicas, while what runs goes on."""
        self.draining = True
        self._return_window = self.attach_timeout  # for streams that are being started at this moment, too
        for generation in self.running.all():
            generation.resume_window = max(generation.resume_window, self._return_window)  # its viewers come back
        if self.peers:
            self.peers.send_away(HAND_OVER_RETRY_MS)

    async def drain(self, seconds: float) -> None:
        """Start nothing new, let what runs finish for up to `seconds`, then end the rest with `shutting_down`."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self.running.idle()
        except TimeoutError:
            running = self.running.all()
            for generation in running:
                generation.stop(ShuttingDown("The gateway is shutting down."))
            await asyncio.gather(*(generation.finished() for generation in running))

    async def _claim(self, claim: Claim, sid: str) -> tuple[str, ReadableLog] | None:
        """The stream that an equal request has started under this claim; None if the claim is for `sid` now."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            holder, request = await self.logs.claim(claim, sid)
            if holder == sid:
                return None
            if request != claim.request:
                raise Conflict("Idempotency-Key: has been used for another request.")
            if log := await self.logs.find(holder):
                return holder, log
            await asyncio.sleep(START_POLL_SECONDS)
        raise Busy("An earlier request with this Idempotency-Key is still being started. Try again in a moment.")

    async def _start(self, caller: str, make: Callable[[], Awaitable[Job]], sid: str) -> tuple[str, ReadableLog]:
        if self.draining:
            raise ShuttingDown("The gateway is shutting down and takes no new requests.")
        with self.quotas.starting(caller), self.running.starting():
            job = await make()
            if job.kind.traits.generates:
                generation = await self._queue(job, sid)
            else:
                async with self._joining:  # otherwise equal jobs that start at the same moment would miss each other
                    if same := self.running.same(job):
                        same.resume_window = max(same.resume_window, self._window(job))
                        self.running.share(same, job.caller, self.attach_timeout)
                    generation = same or await self._begin(job, None, sid)
        for _ in range(ASKING_TURNS):
            await asyncio.sleep(0)
        return generation.sid, generation.log

    def _stop_largest(self, client: str) -> bool:
        """Make room: stop the stream of a client that holds most. See `Ledger`."""
        streams = [each for each in self.running.all() if each.job.caller == client]
        largest = max(streams, key=lambda each: each.holding.size + each.log.size, default=None)
        if largest is not None:
            largest.stop(Busy(NO_ROOM))
            self.logs.forget(largest.sid)
        return largest is not None

    async def _queue(self, job: Job, sid: str) -> Generation:
        ticket = await self.queue.enter(job.caller, job.loads, self._homes.of(job))
        try:
            if ticket.position:  # of a burst, all were admitted before the first of them waited
                self.quotas.check_waiting(job.caller)
            return await self._begin(job, ticket, sid)
        except BaseException:
            ticket.release()
            raise

    async def _begin(self, job: Job, ticket: Ticket | None, sid: str) -> Generation:
        holding = Holding(self.ledger, job.caller)
        window = self._window(job)
        meta: Meta = {"v": 1, "id": sid, "url": stream_url(sid), "kind": job.kind, "model": job.model}
        try:
            holding.become(len(job.body))
            head = events.retry(RETRY_MS) + events.meta(meta, primed=window > 0)
            log = await self.logs.create(sid, head, job.caller)
        except BaseException:
            holding.become(0)
            raise
        generation = Generation(
            sid=sid,
            job=job,
            log=log,
            holding=holding,
            upstreams=self.upstreams,
            limits=self.limits,
            resume_window=max(window, self._return_window),
            observers=[self.running, self, *self.observers],
        )
        generation.start(ticket, self.attach_timeout)
        return generation

    def _window(self, job: Job) -> float:
        return min(job.resume_window, self.max_resume_window)
