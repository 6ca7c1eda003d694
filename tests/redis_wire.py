"""A wire to a Redis that breaks at a chosen command."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.redis_server import Redis


class Wire:
    """Commands with the word `cut` do not get through, nor, once, does the answer to one with the word `deaf`.

    The connection breaks in both cases, and `broken` counts how often. `before` has calls that are made once, before
    a command with a certain word gets through.

    A command with the word `hold` waits, and its connection with it, until `release` is called; `held` counts them.
    """

    def __init__(self, port: int) -> None:
        self.url = ""
        self.cut = b""
        self.deaf = b""
        self.before: dict[bytes, Callable[[], object]] = {}
        self.broken = 0
        self.hold = b""
        self.held = 0
        self._released = asyncio.Event()
        self._port = port

    def release(self) -> None:
        """Let all commands through that are held."""
        self.hold = b""
        self._released.set()

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
                    await redis_reader.read(2**20)  # Redis has run it once it answers
                    break
                if self.hold and self.hold in command:
                    self.held += 1
                    await self._released.wait()
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
    """A wire to this Redis, which breaks nothing at first."""
    made = Wire(redis.port)
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield made
    finally:
        server.close()
