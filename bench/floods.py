"""What attackers do, each kind by itself: `python -m bench.floods NAME PORT SECONDS` prints how often it was done.

`python -m bench.floods hostile PORT` is a server in Ollama's place that answers everything without an end.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

import uvloop

MALLORY = "mallory-mallory-mallory"
WORKERS = 32  # attempts at a time
HELD_SECONDS = 3.0  # how long an attacker holds what it holds
KEY = f"Authorization: Bearer {MALLORY}"
LONG = "rate=0 tokens=20000 seed=1"
_numbers = count()

Flood = Callable[[int], Awaitable[None]]


async def send(port: int, *parts: str | bytes, held: float = 0.0, read: bool = True) -> None:
    """Open a connection, send it all, read an answer's beginning or hold the connection, and close it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part.encode() if isinstance(part, str) else part)
            async with asyncio.timeout(HELD_SECONDS):
                await writer.drain()
        if held:
            await asyncio.sleep(held)
        elif read:
            async with asyncio.timeout(HELD_SECONDS):
                await reader.read(1000)
    finally:
        writer.transport.abort()


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def stream(prompt: str, *more: bytes) -> bytes:
    """The body of POST /api/streams; `more` are further fields of the message."""
    fields = b"".join(b"," + each for each in more)
    return b'{"chat":{"model":"bench","messages":[{"role":"user","content":"%b"%b}]},"resume_window":300}' % (
        prompt.encode(),
        fields,
    )


async def half_a_head(port: int) -> None:
    await send(port, "GET /api/models HTTP/1.1\r\nHost: loc", held=HELD_SECONDS)


async def half_a_body(port: int) -> None:
    whole = request("POST /api/chat", KEY, body=b" " * 4_000_000)
    await send(port, whole[:-1], held=HELD_SECONDS)


async def large_bodies(port: int) -> None:
    image = b'"images":["%b"]' % (b"A" * 4_000_000)
    await send(port, request("POST /api/streams", KEY, body=stream(LONG, image)))


async def starts(port: int) -> None:
    await send(port, request("POST /api/streams", KEY, body=stream(LONG)))


async def unread_answers(port: int) -> None:
    path = "/api/chat?model=bench&prompt=" + LONG.replace(" ", "+")
    await send(port, request(f"GET {path}", KEY), held=HELD_SECONDS)


async def leaving_at_once(port: int) -> None:
    path = "/api/chat?model=bench&prompt=" + LONG.replace(" ", "+")
    await send(port, request(f"GET {path}", KEY), read=False)


async def wrong_keys(port: int) -> None:
    await send(port, *(request("GET /api/models", f"Authorization: Bearer {next(_numbers):032}") for _ in range(10)))


async def unknown_streams(port: int) -> None:
    await send(port, request(f"GET /api/streams/{next(_numbers):032x}"))


async def no_http(port: int) -> None:
    await send(port, os.urandom(2000))


async def costly_names(port: int) -> None:
    await send(port, request(f"GET /api/chat?prompt=x&model={':/' * 30_000}", KEY))


async def many_headers(port: int) -> None:
    await send(port, request("GET /api/models", *(f"x{number}: 1" for number in range(8_000))))


async def many_values(port: int) -> None:
    body = b'{"messages":[%b]}' % b",".join([b'{"role":"u","a":1,"b":2,"c":3}'] * 3_900)
    await send(port, request("POST /api/chat", KEY, body=body))


async def lists(port: int) -> None:
    for path in ("/api/models", "/metrics", "/readyz", "/openapi.json", "/"):
        await send(port, request(f"GET {path}", KEY))


async def pipelines(port: int) -> None:
    await send(port, request("GET /api/chat?model=bench&prompt=x", KEY) * 200)


async def hostile_ollama(port: int) -> None:
    await send(port, request("POST /api/chat", KEY, body=b'{"model":"hostile","messages":[]}'), held=HELD_SECONDS)


FLOODS: dict[str, Flood] = {
    flood.__name__.replace("_", " "): flood
    for flood in (
        *(half_a_head, half_a_body, large_bodies, starts, unread_answers, leaving_at_once, wrong_keys),
        *(unknown_streams, no_http, costly_names, many_headers, many_values, lists, pipelines, hostile_ollama),
    )
}


async def attack(flood: Flood, port: int, seconds: float) -> int:
    """Do it again and again, by `WORKERS` at a time, and return how often."""
    loop = asyncio.get_running_loop()
    end, attempts = loop.time() + seconds, 0

    async def work() -> None:
        nonlocal attempts
        while loop.time() < end:
            attempts += 1
            with suppress(OSError, TimeoutError):
                await flood(port)

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return attempts


async def hostile(port: int) -> None:
    """Serve as an Ollama that has a model called `hostile`, and whose every other answer is a line without an end."""
    models = b'{"models":[{"name":"hostile"}]}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"/api/tags" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(models), models))
                    continue
                writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"message":{"content":"')
                while True:
                    writer.write(b"x" * 65_536)
                    await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    os.nice(5)  # attackers use processors of their own
    name, port, *seconds = sys.argv[1:]
    main = attack(FLOODS[name], int(port), float(seconds[0])) if seconds else hostile(int(port))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(main))
