"""The least that the gateway's contract asks of each token, in as few lines as it takes.

Ollama's line is split off, parsed as JSON to find an error or the end, numbered and kept. Another task reads and sends
it, because the answer's own task must be able to outlive its viewers. All else is missing: bounds, time limits, resume,
status events, pings, errors in words. So this is no gateway, but the least that one on these packages costs.
"""

import asyncio
import secrets

import aiohttp
import orjson
from starlette.types import Send

from bench.packages import run


class Answer:
    """The events so far, and the reader that waits for the next one."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.ended = False
        self.waiter: asyncio.Future[None] | None = None

    async def generate(self, session: aiohttp.ClientSession, body: bytes) -> None:
        sid = secrets.token_hex(16).encode()
        rest = b""
        async with session.post("/api/chat", data=body) as response:
            while not self.ended and (chunk := await response.content.readany()):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    message = orjson.loads(line)
                    self.ended = "error" in message or message["done"]
                    self.events.append(b"data: %b\nid: %b-%d\n\n" % (line, sid, len(self.events) + 1))
                if self.waiter is not None and not self.waiter.done():
                    self.waiter.set_result(None)


async def relay(session: aiohttp.ClientSession, body: bytes, send: Send) -> None:
    answer = Answer()
    generation = asyncio.create_task(answer.generate(session, body))
    try:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        seen = 0
        while seen < len(answer.events) or not answer.ended:
            if seen < len(answer.events):
                chunk = b"".join(answer.events[seen:])
                seen = len(answer.events)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            else:
                answer.waiter = asyncio.get_running_loop().create_future()
                await answer.waiter
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        generation.cancel()


if __name__ == "__main__":
    run(relay)
