"""Memory has a ledger: whatever is thrown at the gateway, it holds its budget and little more, and the thrower pays."""

import asyncio
import gc
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.jobs import Job
from gateway.upstream.ndjson import NDJSONDecoder
from gateway.web import protocol
from tests.asks import STORY, TABLE, quick
from tests.gateways import gateway
from tests.processes import process, resident_bytes
from tests.sse import Events, ending
from tests.upstreams import ONCE_DONE, Peer, chunk, streams, token, upstream
from tests.waits import until

ADA, MALLORY = "ada-ada-ada-ada-ada", "mallory-mallory-mallory"
KEYS = f"ada:{ADA},mallory:{MALLORY}"
PATH = "/api/chat?model=m&prompt="


def key(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def test_the_client_that_holds_most_pays() -> None:
    """With what has ended first, then with what runs. Others lose nothing that they have, and are served."""
    go = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.start()
        message = orjson.loads(peer.request.body)["messages"][0]["content"]
        await peer.lines(token("x" * int(message.partition(" ")[0])))
        if "wait" in message:
            await go.wait()
        await peer.lines(token("y"), ONCE_DONE)
        await peer.end()

    async with (
        AsyncExitStack() as stack,
        upstream(answer) as ollama,
        gateway(ollama.url, max_log_bytes=112_500, api_keys=KEYS) as gw,
    ):

        async def open_stream(prompt: str, secret: str) -> Events:
            events = await stack.enter_async_context(gw.open(PATH + prompt, headers=key(secret)))
            while (event := await events.next()).name != "message":
                pass
            assert "error" not in event.json, event
            return events

        async def held(sid: str) -> bool:
            return await gw.state["streams"].log(sid) is not None

        ended = [await gw.read(PATH + "30000", headers=key(MALLORY)) for _ in range(2)]
        oldest, newest = [events[0].json["id"] for events in ended]
        own = (await gw.read(PATH + "100", headers=key(ADA)))[0].json["id"]
        answer_of_ada = await open_stream("100+wait", ADA)
        running = [await open_stream("30000+wait", MALLORY) for _ in range(2)]
        assert (await held(oldest), await held(newest)) == (False, True)
        another = await open_stream("15000+wait", ADA)
        assert not await held(newest)
        refused = await gw.read(PATH + "30000", headers=key(MALLORY))
        assert ending(refused) == ("error", "busy")
        more = await gw.read(PATH + "25000", headers=key(ADA))
        assert ending(more) == ("complete", None)
        go.set()
        ends = [ending([event async for event in events]) for events in (answer_of_ada, another, *running)]
        assert ends[:2] == [("complete", None)] * 2
        assert sorted(ends[2:]) == [("complete", None), ("error", "busy")]
        assert await held(own)


async def test_a_body_is_counted_while_it_is_read_and_while_it_waits() -> None:
    read = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await read.wait()
        await streams(token("a"), ONCE_DONE)(peer)

    async with (
        upstream(answer) as ollama,
        gateway(ollama.url, max_log_bytes=100_000, retain_seconds=0) as gw,
    ):
        body = b'{"chat":{"model":"m","messages":[{"role":"user","content":"%b"}]}}' % (b"x" * 20_000)
        address = urlsplit(gw.url)
        request = b"POST /api/streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connections = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(request + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-1])
            connections.append((reader, writer))
        reader, _ = connections[2]
        assert b" 503 " in await reader.readline()  # three of them are more than half
        assert 2 * 20_000 < await held(gw.session, gw.url) < 50_000
        reader, writer = connections[0]
        writer.write(body[-1:])
        assert b" 503 " in await reader.readline()  # what was read of it is as large again
        for _, writer in connections:
            writer.close()
        while await held(gw.session, gw.url) != 0:
            pass
        async with gw.session.post(gw.url + "/api/streams", data=body) as response:
            created = await response.json()
        assert 20_000 < await held(gw.session, gw.url) < 25_000
        async with gw.open(created["url"]) as events:
            read.set()
            assert ending([event async for event in events]) == ("complete", None)
        assert await held(gw.session, gw.url) == 0


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def made(kind: Any) -> list[Any]:
    """What has been made since the collector was stopped, and is still there."""
    return [each for each in gc.get_objects(generation=0) if isinstance(each, kind)]


@pytest.mark.usefixtures("no_collector")
async def test_what_a_stream_held_is_free_at_its_end_however_it_ends() -> None:
    """Not when the garbage collector comes by, which may be much later, and about which the ledger knows nothing."""

    def free() -> bool:
        return not made(Job | NDJSONDecoder)

    simulator = quick(token_rate=50)
    async with gateway(simulator, max_active=2, retain_seconds=0) as gw:
        for model in ("burst-20", "error", "truncate-3", "no-response", "not-json", "oversized-line"):
            await gw.read(f"/api/streams/{await gw.start(chat=TABLE | {'model': f'fault:{model}'})}")
            await until(free)
        for _ in range(2):
            async with gw.open("/api/chat?model=llama3.2&prompt=Write+a+long+story") as events:
                await events.next()
                assert not free()
        await until(free)
        sids = [await gw.start(chat=STORY) for _ in range(4)]
        await simulator.until(lambda: simulator.states["generating"] == 2)
        for sid in sids:
            await gw.session.delete(f"{gw.url}/api/streams/{sid}")
        await until(free)


@pytest.mark.usefixtures("no_collector")
async def test_a_request_is_free_once_it_is_answered() -> None:
    def refused() -> list[TracebackType]:
        return [each for each in made(TracebackType) if each.tb_frame.f_code.co_filename == protocol.__file__]

    async with gateway("http://127.0.0.1:9") as gw:
        for path in ("/healthz", "/readyz", "/api/models", "/api/chat", "/nothing", "/") * 3:
            async with gw.session.get(gw.url + path) as response:
                await response.read()
        await until(lambda: len(made(RequestResponseCycle)) == 1)  # the connection has its last one
        address = urlsplit(gw.url)
        for head in (b"no HTTP", b"GET /" + b"x" * 70_000, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(head + b"\r\n\r\n")
            assert b" 4" in await reader.readline()
            writer.close()
        await until(lambda: not refused())


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("resets", [False, True])
async def test_a_connection_is_free_once_its_client_has_left(resets: bool) -> None:
    async with gateway("http://127.0.0.1:9") as gw:
        address = urlsplit(gw.url)
        for path in (b"/healthz", b"/" + b"x" * 60_000):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            await reader.readline()
            if resets:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
        await until(lambda: not made(protocol.BoundedProtocol))


MIB = 2**20
BUDGET = 128 * MIB
ALLOWED = BUDGET * 1.2

Flood = Callable[[aiohttp.ClientSession, str], AbstractAsyncContextManager[None]]


async def held(session: aiohttp.ClientSession, url: str) -> float:
    """What the gateway says that it holds, in bytes."""
    async with session.get(url + "/metrics") as response:
        match = re.search(r"^gateway_held_bytes (\S+)$", await response.text(), re.MULTILINE)
    assert match
    return float(match[1])


@asynccontextmanager
async def bodies(session: aiohttp.ClientSession, url: str) -> AsyncIterator[None]:
    """Requests with images that wait for a slot, and that nobody reads."""
    message = {"role": "user", "content": "wait", "images": ["A" * 4 * MIB]}
    body = orjson.dumps({"chat": {"model": "m", "messages": [message]}, "resume_window": 300})
    for _ in range(40):
        async with session.post(f"{url}/api/streams", data=BytesIO(body)) as response:
            assert response.status in (201, 503)
    yield


@asynccontextmanager
async def uploads(session: aiohttp.ClientSession, url: str) -> AsyncIterator[None]:
    """Requests that are sent but for their last byte."""
    address = urlsplit(url)

    async def send() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {MALLORY}\r\n".encode())
        writer.write(b"Content-Length: 4000000\r\n\r\n" + b" " * 3_999_999)
        try:
            with suppress(ConnectionError):
                await reader.read()
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(send()) for _ in range(40)]
        while await held(session, url) < BUDGET / 2 - 4_000_000:
            pass
        yield
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def answers(prompts: Sequence[str], session: aiohttp.ClientSession, url: str) -> AsyncIterator[None]:
    """Answers that nobody reads: with a first line that has no end, or with very many lines."""
    for number in range(40):
        message = {"role": "user", "content": prompts[number % len(prompts)]}
        body = {"chat": {"model": "m", "messages": [message]}, "resume_window": 300}
        async with session.post(f"{url}/api/streams", json=body) as response:
            assert response.status in (201, 503)
    while await held(session, url) < BUDGET * 0.9:
        pass
    yield


@pytest.mark.slow
@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(bodies, id="bodies"),
        pytest.param(uploads, id="uploads"),
        pytest.param(partial(answers, ["endless"]), id="a line without end"),
        pytest.param(partial(answers, ["long"]), id="many lines"),
        pytest.param(partial(answers, ["endless", "long"]), id="both"),
    ],
)
async def test_a_flood_stays_within_the_budget_and_an_honest_client_is_served(tmp_path: Path, flood: Flood) -> None:
    async def answer(peer: Peer) -> None:
        await peer.start()
        if b"endless" in peer.request.body:
            await peer.send(chunk(b'{"message":{"content":"' + b"x" * 6 * MIB))
        for _ in range(200 if b"long" in peer.request.body else 0):
            await peer.lines(token("x" * 30_000))
        if b"honest" not in peer.request.body:
            await asyncio.Event().wait()
        await peer.lines(token("a"), ONCE_DONE)
        await peer.end()

    flags = "--max-active=30", "--num-parallel=30", f"--max-log-bytes={BUDGET}", f"--api-keys={KEYS}"
    async with (
        upstream(answer) as ollama,
        process(tmp_path, f"--ollama-url={ollama.url}", *flags) as running,
        aiohttp.ClientSession(headers=key(MALLORY)) as session,
    ):

        async def ask() -> None:
            async with session.get(f"{running.url}{PATH}honest", headers=key(ADA)) as response:
                assert b'"done":true' in await response.read()

        await asyncio.gather(*(ask() for _ in range(30)))  # what a process needs that serves as many
        before = resident_bytes(running)
        async with flood(session, running.url):
            await ask()
            assert resident_bytes(running) - before < ALLOWED
