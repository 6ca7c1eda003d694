"""A wire to a Redis that breaks at the command of one's choice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.redis_server import Redis


class Wire:
    """`cut` is a word of the commands that do not get through; of those with `deaf`, once, the answer does not.

    The connection breaks in both cases; `broken` counts how often. What `before` has of a word is done before it.
    """

    def __init__(self, port: int) -> None:
        self.url = ""
        self.cut = b""
        self.deaf = b""
        self.before: dict[bytes, Callable[[], object]] = {}
        self.broken = 0
        self._port = port

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", self._port)
        answering = asyncio.create_task(self._answer(redis_reader, writer))
        try:
            while command := await reader.read(2**20):
                for word in [word for word in self.before if word in command]:
                    self.before.pop(word)()
                if self.cut and self.cut in command:
                    self.broken += 1
                    break
                if self.deaf and self.deaf in command:
                    self.deaf = b""
                    self.broken += 1
                    answering.cancel()
                    redis_writer.write(command)
                    await redis_reader.read(2**20)  # so it was run
                    break
                redis_writer.write(command)
        except ConnectionError:
            pass
        finally:
            answering.cancel()
            writer.close()
            redis_writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while answer := await reader.read(2**20):
                writer.write(answer)
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def wire(redis: Redis) -> AsyncIterator[Wire]:
    """A wire to it, whole at first."""
    made = Wire(redis.port)
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield made
    finally:
        server.close()
