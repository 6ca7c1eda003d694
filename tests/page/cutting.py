"""A TCP proxy that cuts what runs through it, as a bad network does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """In front of a server. `cut` breaks every connection; while `refusing`, new ones are broken at once."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.refusing = False
        self.allowance: int | None = None
        """Bytes after which every connection ends, wherever in an event that is."""
        self.passed = 0
        """Bytes that came back from the server."""
        self.moved = asyncio.Event()

    async def until_passed(self, count: int) -> None:
        while self.passed < count:
            self.moved.clear()
            await self.moved.wait()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers |= {writer, back}
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer, count=True))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool = False) -> None:
        left = self.allowance if count else None
        try:
            while data := await reader.read(65536 if left is None else min(left, 65536)):
                left = left and left - len(data)
                writer.write(data)
                await writer.drain()
                if count:
                    self.passed += len(data)
                    self.moved.set()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def cutting(url: str) -> AsyncIterator[Proxy]:
    """A proxy in front of `url`, on a port of its own."""
    proxy = Proxy(int(url.rpartition(":")[2]))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
