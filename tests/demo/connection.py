"""A raw connection to the simulator: what comes over it is compared with what Ollama sent, byte for byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    """A response as it came over a raw socket, in the terms of a `Transcript`."""

    status: int | None
    headers: dict[str, str]
    framing: str | None
    chunks: list[bytes]
    ended: str

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.split(b"\n") if line]

    @property
    def text(self) -> str:
        return "".join(line["message"]["content"] if "message" in line else line["response"] for line in self.lines)


class Connection:
    """A raw connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        head = {"Host": "127.0.0.1", "Content-Length": str(len(body))} | (headers or {})
        fields = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode() + body)

    async def answer(self) -> Answer:
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except asyncio.IncompleteReadError:
            return Answer(None, {}, None, [], "connection closed before response headers")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
        answer = Answer(int(head[0].split()[1]), headers, "chunked", [], "complete")
        if "content-length" in headers:
            answer.framing = "content-length"
            if length := int(headers["content-length"]):
                answer.chunks.append(await self.reader.readexactly(length))
            return answer
        try:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                answer.chunks.append((await self.reader.readexactly(size + 2))[:-2])
            assert await self.reader.readexactly(2) == b"\r\n"
        except asyncio.IncompleteReadError:
            answer.ended = "connection closed without terminating chunk"
        return answer

    async def ask(self, path: str, body: Any = None, method: str | None = None) -> Answer:
        method = method or ("GET" if body is None else "POST")
        self.send(method, path, b"" if body is None else json.dumps(body).encode())
        return await self.answer()

    def leave(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Connection]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**26)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask(url: str, path: str, body: Any = None, method: str | None = None) -> Answer:
    async with connect(url) as connection:
        return await connection.ask(path, body, method)


def chat(model: str = "llama3.2", content: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}
