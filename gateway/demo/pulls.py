"""Downloads: several digests, a tick of 60 ms, shared by all who wait, resumable, and some that fail."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from gateway.demo.models import Model

TICK_SECONDS = 0.06

_PARTS = {"weights": None, "template": 1_429, "license": 7_711, "params": 96, "config": 485}


@dataclass
class Download:
    """The files of one model. Bytes arrive while somebody waits for them, and stay when nobody does."""

    model: Model
    seconds: float
    """How long all of it takes; 0 is at once."""
    _arrived: float = 0.0
    _looked_at: float = field(default_factory=monotonic)
    _waiters: int = 0

    def files(self) -> Iterator[tuple[str, int]]:
        """Digest and size of each."""
        for part, size in _PARTS.items():
            yield hashlib.sha256(f"{self.model.name}/{part}".encode()).hexdigest(), size or self.model.size

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self.arrived()
        self._waiters += 1
        try:
            yield
        finally:
            self.arrived()
            self._waiters -= 1

    def arrived(self) -> int:
        """Bytes of the first, large file that are here."""
        now = monotonic()
        if self._waiters:
            share = (now - self._looked_at) / self.seconds if self.seconds else 1
            self._arrived = min(1.0, self._arrived + share)
        self._looked_at = now
        return int(self._arrived * self.model.size)

    async def progress(self) -> AsyncGenerator[dict[str, Any]]:
        """The lines between `pulling manifest` and the verdict."""
        for number, (digest, size) in enumerate(self.files()):
            completed = 0
            while completed < size:
                completed = size if number else self.arrived()
                line = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": size}
                yield line | ({"completed": completed} if completed else {})
                if completed < size:
                    await asyncio.sleep(TICK_SECONDS)
        yield {"status": "verifying sha256 digest"}


class Pulls:
    """All downloads that are under way or were left half done."""

    def __init__(self, models: dict[str, Model], seconds: float) -> None:
        self._models, self._seconds = models, seconds
        self._downloads: dict[str, Download] = {}

    async def lines(self, name: str) -> AsyncGenerator[dict[str, Any]]:
        """What `/api/pull` says, one object a line; an `error` is the last. Afterwards the model is there."""
        yield {"status": "pulling manifest"}
        base = name.rpartition("/")[2]
        if base.startswith("nope"):
            yield {"error": "pull model manifest: file does not exist"}
            return
        if base == "fault:unreachable":
            address = "registry.ollama.ai/v2/library/fault/manifests/unreachable"
            reason = "dial tcp 127.0.0.1:443: connect: connection refused"
            yield {"error": f'pull model manifest: Get "https://{address}": {reason}'}
            return
        download = self._download(name)
        with download.waiting():
            async with aclosing(download.progress()) as progress:
                async for line in progress:
                    yield line
        if base == "fault:digest-mismatch":
            digests = [digest for digest, _ in download.files()]
            difference = f"want sha256:{digests[0]}, got sha256:{digests[1]}"
            yield {"error": f"digest mismatch, file must be downloaded again: {difference}"}
            return
        yield {"status": "writing manifest"}
        self._downloads.pop(name, None)
        self._models.setdefault(name, download.model)
        yield {"status": "success"}

    def _download(self, name: str) -> Download:
        if name in self._models:
            return Download(self._models[name], 0)
        if name not in self._downloads:
            billions = re.search(r":(\d+(?:\.\d+)?)b", name)
            size = float(billions[1]) * 1e9 if billions else 3.2e9
            self._downloads[name] = Download(Model(name, ("completion", "tools"), parameters=size), self._seconds)
        return self._downloads[name]
