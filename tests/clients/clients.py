"""Every client as one function: it reads the stream at a URL, and yields its events as the client gave them.

What we have found out about them:

- `eventsource`, `eventsource-client` and Chromium reconnect after every cut, and stop at a 204.
- `undici` does as well, but its timer does not keep Node alive.
- `event-source-polyfill` sends its last id in the query. It stops at a 204 where it uses XMLHttpRequest; with `fetch`
  it takes a 204 for a broken connection and comes back, so that its user has to close it at the end.
- `fetch-event-source` reconnects after a cut, but not after a clean end; it does not run without a page around it.
- `httpx-sse` yields an empty message for a block that has only `retry:`.
- `httpx-sse`, `sseclient-py` and curl do not reconnect.
"""

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import aconnect_sse
from playwright.async_api import Browser
from sseclient import SSEClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.servers import serve
from tests.sse import Event, parse

HERE = Path(__file__).parent

Client = Callable[[str, str, Browser], AsyncIterator[Event]]
"""It is given a stream's URL and the gateway's own, which differ when there is a bad network in between."""

IN_A_PAGE = """
async ({url, client}) => {
  if (client) {
    const {openStream} = await import(client)
    for await (const event of openStream(url)) await tell(event)
    return
  }
  const source = new EventSource(url)
  return new Promise((resolve) => {
    for (const name of ["message", "meta", "status", "end"])
      source.addEventListener(name, ({data, lastEventId}) => {
        const told = tell({event: name, data, id: lastEventId})
        if (name !== "end") return
        source.close()
        told.then(resolve)
      })
  })
}
"""


async def blank(_: Request) -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>A frontend</title>")


FRONTEND = Starlette(routes=[Route("/", blank)])


def as_event(given: dict[str, Any]) -> Event | None:
    """The event that a page or `read.mjs` prints: a plain one, or one of `client.js`, which has further types."""
    match given:
        case {"event": name, "data": data}:
            return Event(name, data.encode(), given.get("id"))
        case {"type": "chunk", "id": event_id, "chunk": chunk}:
            return Event("message", json.dumps(chunk).encode(), event_id)
        case {"type": "error" | "end" as name, "id": event_id, **fields}:
            return Event("message" if name == "error" else name, json.dumps(fields).encode(), event_id)
        case {"type": "meta" | "status" as name, **fields}:
            return Event(name, json.dumps(fields).encode(), None)
    return None


async def lines(*command: str | Path) -> AsyncIterator[bytes]:
    """The lines that a command prints. It must end by itself, with success."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, limit=2**24)
    assert process.stdout
    try:
        async for line in process.stdout:
            yield line
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def node(client: str, url: str, *mode: str) -> AsyncIterator[Event]:
    """One of the clients in `read.mjs`."""
    async for line in lines("node", HERE / "read.mjs", client, url, *mode):
        if event := as_event(json.loads(line)):
            yield event


def in_node(client: str) -> Client:
    return lambda url, _, __: node(client, url)


def in_chromium(module: str | None) -> Client:
    """The browser's own EventSource, or the gateway's module of this name, in a page of another origin."""

    async def read(url: str, home: str, browser: Browser) -> AsyncIterator[Event]:
        told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        async with serve(FRONTEND) as origin:
            page = await browser.new_page()
            await page.expose_function("tell", told.put_nowait)
            await page.goto(origin)
            reading = asyncio.ensure_future(page.evaluate(IN_A_PAGE, {"url": url, "client": module and home + module}))
            reading.add_done_callback(lambda _: told.put_nowait(None))
            while (given := await told.get()) is not None:
                if event := as_event(given):
                    yield event
            await reading
            await page.close()

    return read


async def curl(url: str, _: str, __: Browser) -> AsyncIterator[Event]:
    text = b"".join([line async for line in lines("curl", "--silent", "--no-buffer", "--fail", url)])
    for block in text.removesuffix(b"\n\n").split(b"\n\n"):
        if event := parse(block):
            yield event


async def httpx_sse(url: str, _: str, __: Browser) -> AsyncIterator[Event]:
    async with httpx.AsyncClient(timeout=None) as client, aconnect_sse(client, "GET", url) as source:
        async for sse in source.aiter_sse():
            if sse.data:
                yield Event(sse.event, sse.data.encode(), sse.id)


async def sseclient_py(url: str, _: str, __: Browser) -> AsyncIterator[Event]:
    """It blocks, so it reads in a thread."""

    def read() -> list[Event]:
        with httpx.stream("GET", url, timeout=None) as response:
            return [Event(sse.event, sse.data.encode(), sse.id) for sse in SSEClient(response.iter_bytes()).events()]

    for each in await asyncio.to_thread(read):
        yield each


CLIENTS: dict[str, Client] = {
    "client.js in Node": in_node("client.js"),
    "client.js in Chromium": in_chromium("/client.js"),
    "EventSource in Chromium": in_chromium(None),
    "eventsource": in_node("eventsource"),
    "undici": in_node("undici"),
    "event-source-polyfill": in_node("event-source-polyfill"),
    "eventsource-client": in_node("eventsource-client"),
    "fetch-event-source": in_node("fetch-event-source"),
    "httpx-sse": httpx_sse,
    "sseclient-py": sseclient_py,
    "curl": curl,
}
