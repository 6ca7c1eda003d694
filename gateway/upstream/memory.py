"""Which models an Ollama server has in memory, by whatever name they were loaded."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Set
from time import monotonic

from gateway.errors import GatewayError
from gateway.upstream.client import OllamaClient
from gateway.upstream.wire import normal_name, weights

KNOWN_SECONDS = 60.0  # after which a name may have come to mean other weights
SHOW_SECONDS = 0.5  # how long Ollama may take to tell them
MAX_KNOWN = 1000  # names whose weights are remembered


class ServerMemory:
    """What one server has loaded. Models that share their weights share one runner, and Ollama lists only the name that
    loaded it.
    """

    def __init__(self, client: OllamaClient) -> None:
        self._client = client
        self._known: dict[str, tuple[float, str | None]] = {}
        self._parallel: Counter[str] = Counter()

    async def runners(self, models: Set[str]) -> dict[str, str]:
        """The name by which the runner of each of `models` is listed; those without a runner must be loaded.

        Takes and gives normal names. Raises `UpstreamError`.
        """
        listed = {normal_name(model["name"]) for model in await self._client.ps()}
        runners = {name: name for name in models & listed}
        if listed and (others := models - listed):
            names = [*others, *listed]
            found = dict(zip(names, await asyncio.gather(*map(self._weights, names)), strict=True))
            by_weights = {found[name]: name for name in listed if found[name]}
            runners |= {name: by_weights[found[name]] for name in others if found[name] in by_weights}
        return runners

    async def look(self, models: Set[str]) -> tuple[dict[str, str], set[str]]:
        """The weights of each of `models`, or its name if they are unknown; and the weights that are loaded.

        Takes normal names. Raises `UpstreamError`.
        """
        listed = {normal_name(model["name"]) for model in await self._client.ps()}
        names = [*models | listed]
        found = dict(zip(names, await asyncio.gather(*map(self._weights, names)), strict=True))
        weights = {name: found[name] or name for name in names}
        return weights, {weights[name] for name in listed}

    def note_parallel(self, runners: Iterable[str]) -> None:
        """Note which runners serve a request at this moment, each as often as it does."""
        self._parallel |= Counter(runners)

    def parallel(self, runner: str) -> int:
        """How many requests this runner has been seen to serve at once. Ollama does not tell how many it would."""
        return max(self._parallel[runner], 1)

    async def _weights(self, name: str) -> str | None:
        since, known = self._known.get(name, (float("-inf"), None))
        if monotonic() - since < KNOWN_SECONDS:
            return known
        try:
            async with asyncio.timeout(SHOW_SECONDS):
                found = weights(await self._client.show(name))
        except (TimeoutError, GatewayError):  # then the names must do
            found = None
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[name] = monotonic(), found
        return found
