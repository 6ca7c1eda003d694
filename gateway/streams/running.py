"""The generations of this process that have not ended, and their viewers."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.errors import Busy, Cancelled, ProducerLost
from gateway.jobs import Job
from gateway.streams.generation import Generation, Observer
from gateway.upstream.wire import normal_name

MAX_PULLS = 4
"""Pulls at once. Ollama opens up to 16 connections for each: a few fill any line, and many would fill the disk."""


class Running(Observer):
    """Generations by stream id. What is asked of one that does not run here is ignored.

    A log backend that other processes share passes on what their viewers want: `join`, `leave`, `stop` and `disown`.
    """

    def __init__(self) -> None:
        self.viewers = 0  # clients that read a stream in this process, wherever the stream runs
        self._generations: dict[str, Generation] = {}
        self._sharing: dict[str, set[str]] = {}  # the callers of each stream that several requests have asked for
        self._starting = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._generations)

    def __contains__(self, sid: str) -> bool:
        return sid in self._generations

    def all(self) -> list[Generation]:
        return list(self._generations.values())

    def same(self, job: Job) -> Generation | None:
        """The pull of the same model, however its name is written. Raises `Busy` when another one would be too many."""
        pulls = [each for each in self._generations.values() if each.job.kind is job.kind]
        same = next((each for each in pulls if normal_name(each.job.model) == normal_name(job.model)), None)
        if same is None and len(pulls) >= MAX_PULLS:
            raise Busy(f"{len(pulls)} models are being pulled, the most at once. Try again when one of them is there.")
        return same

    def share(self, generation: Generation, caller: str, attach_timeout: float) -> None:
        """Note that a request of `caller` has joined a pull, and count it as a viewer until it can be one itself."""
        callers = self._sharing.setdefault(generation.sid, {generation.job.caller})
        callers.add(caller)
        generation.join()
        asyncio.get_running_loop().call_later(attach_timeout, generation.leave)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Count a generation as running while it is being made, so that a shutdown does not overlook it."""
        self._starting += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._starting -= 1
            self._settle()

    async def idle(self) -> None:
        """Wait until nothing runs."""
        await self._idle.wait()

    def started(self, generation: Generation) -> None:
        self._generations[generation.sid] = generation

    def ended(self, generation: Generation) -> None:
        del self._generations[generation.sid]
        self._sharing.pop(generation.sid, None)
        self._settle()

    def watch(self, sid: str) -> Callable[[], None] | None:
        """Count a viewer of a stream that runs here. Call the function that is returned when it leaves."""
        generation = self._generations.get(sid)
        if generation is None:
            return None
        generation.join()
        return generation.leave

    def join(self, sid: str) -> None:
        """Another replica has viewers of the stream."""
        if generation := self._generations.get(sid):
            generation.join()

    def leave(self, sid: str) -> None:
        """That replica has no viewers of it any more."""
        if generation := self._generations.get(sid):
            generation.leave()

    def stop(self, sid: str, caller: str) -> None:
        """Stop the stream on request; one that several callers have asked for, when none of them is left."""
        callers = self._sharing.get(sid, set())
        callers.discard(caller)
        if not callers and (generation := self._generations.get(sid)):
            generation.stop(Cancelled("Stopped on request."))

    def disown(self, sid: str) -> None:
        """Stop the stream because the other replicas have ended it."""
        if generation := self._generations.get(sid):
            generation.stop(ProducerLost("The other replicas of the gateway considered this one dead."))

    def _settle(self) -> None:
        if not self._generations and not self._starting:
            self._idle.set()
