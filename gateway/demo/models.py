"""The models the simulator has, and the runners that hold the loaded ones."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic, time_ns
from typing import Any

from gateway.demo.wire import RefusedError, timestamp

FOREVER = 2**63 - 1
"""Nanoseconds that a negative `keep_alive` means: Go's longest duration, 292 years."""

_NAME = re.compile(
    r"(?:(?P<host>[\w.-]+(?::\d+)?)/)?(?:(?P<space>\w[\w.-]*)/)?(?P<model>\w[\w.-]*)(?::(?P<tag>\w[\w.-]*))?",
    re.ASCII,
)


def full_name(name: str) -> str | None:
    """The name as Ollama lists it (`llama3.2` is `llama3.2:latest`), or None if it is malformed."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    where = [match["host"], match["space"]] if match["host"] else [match["space"]]
    where = [part for part in where if part not in {None, "registry.ollama.ai", "library"}]
    return "/".join([*where, match["model"]]) + ":" + (match["tag"] or "latest")


@dataclass(frozen=True)
class Model:
    """An installed model. `native` ones run with their own GGUF template, the others with a Modelfile's:
    that decides where tool calls arrive, and whether generate tells thinking apart.
    """

    name: str
    capabilities: tuple[str, ...] = ("completion",)
    family: str = "llama"
    parameters: float = 3.2e9
    quantization: str = "Q4_K_M"
    context_length: int = 131_072
    embedding_length: int = 3072
    native: bool = False
    modified_ns: int = field(default_factory=time_ns)

    @property
    def size(self) -> int:
        return int(self.parameters * 0.63)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def details(self) -> dict[str, Any]:
        millions = self.parameters / 1e6
        return {
            "parent_model": "",
            "format": "gguf",
            "family": self.family,
            "families": [self.family],
            "parameter_size": f"{millions / 1000:.1f}B" if millions >= 1000 else f"{millions:.0f}M",
            "quantization_level": self.quantization,
        }

    def tag(self) -> dict[str, Any]:
        """Its entry in `/api/tags`."""
        return {
            "name": self.name,
            "model": self.name,
            "modified_at": timestamp(self.modified_ns),
            "size": self.size,
            "digest": self.digest,
            "details": {
                **self.details,
                "context_length": self.context_length,
                "embedding_length": self.embedding_length,
            },
            "capabilities": list(self.capabilities),
        }

    def show(self) -> dict[str, Any]:
        """The answer of `/api/show`."""
        return {
            "modelfile": f"# Modelfile of a simulated model\nFROM {self.name}\nTEMPLATE {{{{ .Prompt }}}}\n",
            "template": "{{ .Prompt }}",
            "details": self.details,
            "model_info": {
                "general.architecture": self.family,
                "general.parameter_count": int(self.parameters),
                f"{self.family}.context_length": self.context_length,
                f"{self.family}.embedding_length": self.embedding_length,
            },
            "tensors": [
                {"name": "token_embd.weight", "type": "Q4_K", "shape": [self.embedding_length, 128_256]},
            ],
            "capabilities": list(self.capabilities),
            "modified_at": timestamp(self.modified_ns),
        }


INSTALLED = (
    Model("llama3.2:latest", ("completion", "tools")),
    Model("qwen3:latest", ("completion", "tools", "thinking"), "qwen3", 8.2e9, context_length=40_960),
    Model("gemma3:latest", ("completion", "vision"), "gemma3", 4.3e9),
    Model("nomic-embed-text:latest", ("embedding",), "nomic-bert", 137e6, "F16", 2048, 768),
)


class Runner:
    """A model in memory, or on its way there. Never more than `parallel` generations in it at once."""

    def __init__(self, model: Model, context_length: int, parallel: int) -> None:
        self.model = model
        self.context_length = context_length
        self.slots = asyncio.Semaphore(parallel)
        self.ready = False
        self.ready_at = 0.0
        self.users = 0
        self.keep_alive_ns = 0
        self.idle_since_ns = 0

    @property
    def expires_ns(self) -> int:
        return (time_ns() if self.users else self.idle_since_ns) + self.keep_alive_ns

    def ps(self) -> dict[str, Any]:
        """Its entry in `/api/ps`."""
        return {
            "name": self.model.name,
            "model": self.model.name,
            "size": self.model.size,
            "digest": self.model.digest,
            "details": self.model.details,
            "expires_at": timestamp(self.expires_ns),
            "size_vram": self.model.size,
            "context_length": self.context_length,
        }


class Scheduler:
    """Who is loaded. No timers: a load has a due time, and an expired runner is dropped when looked at."""

    def __init__(self, parallel: int, max_queue: int) -> None:
        self._parallel, self._max_queue = parallel, max_queue
        self._runners: dict[str, Runner] = {}

    def loaded(self) -> Iterator[Runner]:
        """The runners that `/api/ps` lists: a loading one is not among them."""
        for name, runner in list(self._runners.items()):
            if runner.ready and not runner.users and runner.expires_ns <= time_ns():
                del self._runners[name]
            elif runner.ready:
                yield runner

    def drop(self, name: str) -> None:
        """The runner of this model died."""
        self._runners.pop(name, None)

    def unload(self, name: str) -> None:
        """The runner of this model goes as soon as nobody uses it."""
        if runner := self._runners.get(name):
            runner.keep_alive_ns = 0

    @asynccontextmanager
    async def use(
        self,
        model: Model,
        keep_alive_ns: int,
        context_length: int,
        load_seconds: float,
        on_load: Callable[[], None],
    ) -> AsyncIterator[Runner]:
        """The loaded runner. A load whose last waiter leaves is aborted, another context length loads anew.
        A full queue is `RefusedError`.
        """
        list(self.loaded())  # drops what has expired
        waiting = sum(runner.users for runner in self._runners.values() if not runner.ready)
        if waiting > self._max_queue:  # one of them is being served, it does not count
            raise RefusedError(503, "server busy, please try again.  maximum pending requests exceeded")
        runner = self._runners.get(model.name)
        if runner is None or (not runner.users and runner.context_length != context_length):
            runner = self._runners[model.name] = Runner(model, context_length, self._parallel)
            runner.ready_at = monotonic() + load_seconds
        runner.users += 1
        runner.keep_alive_ns = keep_alive_ns
        try:
            if not runner.ready:
                on_load()
                await asyncio.sleep(runner.ready_at - monotonic())
                runner.ready = True
            yield runner
        finally:
            runner.users -= 1
            runner.idle_since_ns = time_ns()
            if not runner.ready and not runner.users and self._runners.get(model.name) is runner:
                self.drop(model.name)
