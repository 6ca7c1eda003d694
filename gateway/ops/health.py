"""Whether the gateway can serve: an Ollama server answers, and no shutdown is under way."""

from gateway.streams.registry import Streams
from gateway.upstream.servers import Health, Upstreams


class Readiness:
    """Looks at the servers, the shutdown and the other replicas."""

    def __init__(self, upstreams: Upstreams, streams: Streams) -> None:
        self._upstreams = upstreams
        self._streams = streams

    async def problem(self) -> str | None:
        """Why the gateway is not ready, as a sentence for a person; None when it is."""
        if self._streams.draining:
            return "The gateway is shutting down."
        if self._streams.peers and self._streams.peers.problem:
            return self._streams.peers.problem
        problems = [server["problem"] for server in await self.servers()]
        return None if None in problems else problems[0]

    async def servers(self) -> list[Health]:
        """Each server, as it was a moment ago."""
        return await self._upstreams.check()
