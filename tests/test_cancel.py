"""When the client leaves or somebody stops it, the upstream connection closes at once, in whatever phase."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import uvloop
from starlette.types import Message

from gateway.demo import Simulator
from gateway.jobs import Job, Kind
from gateway.streams.buffer import EventBuffer
from gateway.streams.ledger import Ledger
from gateway.streams.shelf import Shelf
from gateway.web.streaming import EventResponse
from tests.asks import CHAT
from tests.gateways import Gateway, gateway
from tests.servers import serve
from tests.sse import Event, ending, messages, parse
from tests.upstreams import (
    NDJSON,
    ONCE_DONE,
    Answer,
    Peer,
    Upstream,
    chunk,
    head,
    reset,
    silence,
    streams,
    token,
    upstream,
)

STREAM = head(200, {"Content-Type": NDJSON, "Transfer-Encoding": "chunked"})

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

on_both_loops = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
"""uvloop serves in production. Not pytest-asyncio's way: it would end the browsers of other tests in the process."""


async def settled(gw: Gateway, condition: Callable[[], bool]) -> None:
    """Wait until `condition()` holds, asking the gateway for a sign of life in between."""
    while not condition():
        async with gw.session.get(gw.url + "/healthz") as response:
            assert response.status == 200


def at_rest(gw: Gateway) -> bool:
    streams = gw.state["streams"]
    return (len(streams.running), streams.running.viewers, streams.logs.size) == (0, 0, 0)


async def one_client(gw: Gateway, path: str, moment: str, rng: random.Random) -> None:
    """Ask, read up to `moment`, and leave, by FIN or by RST."""
    address = urlsplit(gw.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode())
    with suppress(asyncio.IncompleteReadError):  # a short phase may pass unseen; it then leaves after the end
        if moment == "at once":
            await writer.drain()
        elif moment == "any time":
            await reader.readexactly(rng.randrange(1, 2000))
        else:
            await reader.readuntil(moment.encode())
    if rng.random() < 0.5:
        reset(writer)
    else:
        writer.close()


@on_both_loops
@pytest.mark.parametrize("names", [("127.0.0.1",), ("127.0.0.1", "localhost")], ids=["one server", "two servers"])
@pytest.mark.slow
def test_1000_clients_cut_at_random_moments(new_loop: LoopFactory, names: Sequence[str]) -> None:
    """Half of them leave while Ollama is silent. Afterwards no request, task, viewer, log or slot is left.

    With one server they ask for two models in turn, so that the queue holds back a part of them until they leave.
    """
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(cut_1000_clients(names))


async def cut_1000_clients(names: Sequence[str]) -> None:
    rng = random.Random(2)
    simulator = Simulator(token_rate=300, load_seconds=0.2, prompt_seconds=0.2, parallel=1000)
    talking = [
        "at once",
        "event: meta",
        '"starting"',
        '"done":false',
        "any time",
        '"done":true',
        "event: end",
    ]
    silent = ["at once", "event: meta", '"starting"', "elapsed_ms", ": ping"]
    slots = asyncio.Semaphore(100)

    async def client(number: int) -> None:
        async with slots:
            if number % 2:
                await one_client(gw, "/api/chat?model=fault:silent&prompt=Hi", rng.choice(silent), rng)
            else:
                await one_client(gw, "/api/generate?model=llama3.2&prompt=Hi", rng.choice(talking), rng)

    settings = {"max_active": 1000, "num_parallel": 1000, "max_queued": 0, "retain_seconds": 0.1}
    seconds = {"status_interval": 0.1, "ping_interval": 0.05}
    async with (
        serve(simulator.app) as url,
        gateway(
            "", ollama_urls=",".join(url.replace("127.0.0.1", name) for name in names), **settings, **seconds
        ) as gw,
    ):
        await one_client(gw, CHAT, "event: meta", rng)
        await settled(gw, lambda: at_rest(gw))
        before = asyncio.all_tasks()
        await asyncio.gather(*map(client, range(1000)))
        await simulator.until(lambda: simulator.running == 0)
        await settled(gw, lambda: at_rest(gw))
        await settled(gw, lambda: asyncio.all_tasks() <= before)
        if len(names) > 1:
            assert simulator.states["cancelled"] > 600
        async with gw.session.get(gw.url + "/metrics") as response:
            metrics = await response.text()
        for name in ("gateway_streams_active", "gateway_viewers_active", "gateway_queue_depth", "gateway_log_bytes"):
            assert f"\n{name} 0.0\n" in metrics
        assert sum(map(float, re.findall(r'outcome="cancelled"} (.*)', metrics))) > 600
        started = [await gw.start(chat={"model": "fault:silent", "messages": [{"role": "user"}]}) for _ in range(1000)]
        assert len(set(started)) == 1000  # with no queue to wait in: each of the 1,000 slots is free again


@dataclass
class Phase:
    """`answer` keeps a generation where it is; `shown` is the phase in the terminal message."""

    answer: Answer
    shown: str


async def headers_only(peer: Peer) -> None:
    await peer.send(STREAM)
    await silence(peer)


async def mid_answer(peer: Peer) -> None:
    await peer.send(STREAM, chunk(token("a")))
    await silence(peer)


async def mid_line(peer: Peer) -> None:
    await peer.send(STREAM, chunk(token("a")), chunk(token("b")[:10]))
    await silence(peer)


async def flood(peer: Peer) -> None:
    await peer.send(STREAM)
    while True:
        await peer.lines(token("a"))


async def mid_refusal(peer: Peer) -> None:
    await peer.send(head(500, {"Content-Length": "100"}), b'{"error":')
    await silence(peer)


PHASES = {
    "silent": Phase(silence, "loading"),
    "headers": Phase(headers_only, "loading"),
    "refusal": Phase(mid_refusal, "loading"),
    "answer": Phase(mid_answer, "generating"),
    "line": Phase(mid_line, "generating"),
    "flood": Phase(flood, "generating"),
}


async def leave_by_fin(gw: Gateway, sid: str, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def leave_by_rst(gw: Gateway, sid: str, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def leave_by_half_close(gw: Gateway, sid: str, writer: asyncio.StreamWriter) -> None:
    writer.write_eof()


async def stop(gw: Gateway, sid: str, writer: asyncio.StreamWriter) -> None:
    async with gw.session.delete(f"{gw.url}/api/streams/{sid}") as response:
        assert response.status == 204


@asynccontextmanager
async def viewer(gw: Gateway, path: str, shows: str) -> AsyncIterator[tuple[str, asyncio.StreamWriter]]:
    """A client on a bare socket that has read up to `shows`: the stream's id, and the socket."""
    address = urlsplit(gw.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        text = await reader.readuntil(b'"model"')
        sid = text.partition(b'"id":"')[2].partition(b'"')[0].decode()
        await reader.readuntil(shows.encode())
        yield sid, writer
    finally:
        writer.close()


@pytest.mark.parametrize("way", [leave_by_fin, leave_by_rst, leave_by_half_close, stop])
@pytest.mark.parametrize("name", PHASES)
async def test_cancel_in_each_phase(
    name: str, way: Callable[[Gateway, str, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    """The upstream connection closes, the slot is free, and the log ends with exactly one terminal message."""
    phase = PHASES[name]
    shows = '"done":false' if phase.shown == "generating" else '"phase":"loading"'
    async with upstream(phase.answer) as ollama, gateway(ollama.url, max_active=1, max_queued=0) as gw:
        for _ in range(2):
            async with viewer(gw, CHAT, shows) as (sid, writer):
                await ollama.until(lambda: ollama.open == 1)
                await way(gw, sid, writer)
                await ollama.until(lambda: ollama.open == 0)
                await settled(gw, lambda: len(gw.state["streams"].running) == 0)
                events = await gw.read(f"/api/streams/{sid}")
                assert ending(events) == ("cancelled", "cancelled")
                error = messages(events)[-1].json
                assert (error["phase"], error["retryable"]) == (phase.shown, False)


async def test_viewer_who_leaves_a_stream_that_never_pauses() -> None:
    """With new data in every turn of the loop, a cancellation that waits for a pause would never come."""
    most = 1000
    turns = 0
    log = EventBuffer("0" * 32, b"", "", Shelf[Any](Ledger(10**9), max_stream_bytes=10**9, retain_seconds=1))
    loop = asyncio.get_running_loop()
    sent = asyncio.Event()

    def turn() -> None:
        nonlocal turns
        turns += 1
        log.append([b"{}"])
        if turns < most:
            loop.call_soon(turn)

    async def leave_after_the_first() -> Message:
        await sent.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if turns > 20:
            sent.set()

    loop.call_soon(turn)
    response = EventResponse(log.read(0), ping_seconds=15, send_body=send)
    await response({"type": "http", "method": "GET"}, leave_after_the_first, send)
    assert turns < most / 10


async def test_cancel_while_connecting(full_backlog: str) -> None:
    """An attempt to connect that Ollama's host does not answer could last for minutes, and is given up."""
    async with gateway(full_backlog, max_active=1, max_queued=0, connect_timeout=60) as gw:
        for way in (leave_by_fin, stop):
            async with viewer(gw, CHAT, '"phase":"starting"') as (sid, writer):
                await way(gw, sid, writer)
                await settled(gw, lambda: len(gw.state["streams"].running) == 0)
                assert ending(await gw.read(f"/api/streams/{sid}")) == ("cancelled", "cancelled")


async def test_cancel_while_the_request_is_sent() -> None:
    """The connection closes although Ollama does not read, and megabytes of the body are still to be sent."""
    gone = asyncio.Event()
    connected = asyncio.Event()

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await stopped.wait()
        try:
            while await reader.read(2**16):
                pass
        except ConnectionError:
            pass
        gone.set()
        writer.close()

    stopped = asyncio.Event()
    server = await asyncio.start_server(never_read, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    body = {"model": "m", "messages": [{"role": "user", "content": "x", "images": ["A" * 19_000_000]}]}
    async with gateway(f"http://{host}:{port}") as gw:
        async with gw.session.post(gw.url + "/api/streams", data=streamed(orjson.dumps({"chat": body}))) as response:
            sid = (await response.json())["id"]
        await connected.wait()
        async with gw.session.delete(f"{gw.url}/api/streams/{sid}"):
            stopped.set()
        await gone.wait()
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("cancelled", "cancelled")
    server.close()


async def streamed(body: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(body), 2**16):
        yield body[begin : begin + 2**16]


async def test_cancel_in_the_queue_costs_ollama_nothing() -> None:
    async with (
        upstream(silence) as ollama,
        gateway(ollama.url, max_active=1) as gw,
        viewer(gw, CHAT, '"phase":"loading"'),
    ):
        await ollama.until(lambda: ollama.open == 1)
        for way in (leave_by_fin, leave_by_rst, stop):
            async with viewer(gw, CHAT, '"position":1') as (sid, writer):
                await way(gw, sid, writer)
                await settled(gw, lambda: len(gw.state["streams"].running) == 1)
                events = await gw.read(f"/api/streams/{sid}")
                assert ending(events) == ("cancelled", "cancelled")
                assert messages(events)[-1].json["phase"] == "queued"
        assert len(ollama.asked("/api/chat")) == 1


async def test_cancel_after_the_answer_changes_nothing() -> None:
    """An answer that is complete stays complete, though its HTTP body has not ended and the viewer goes."""

    async def answer(peer: Peer) -> None:
        await peer.send(STREAM, chunk(token("a")), chunk(ONCE_DONE))
        await silence(peer)

    async with upstream(answer) as ollama, gateway(ollama.url) as gw:
        for way in (leave_by_fin, stop):
            async with viewer(gw, CHAT, "event: end") as (sid, writer):
                await way(gw, sid, writer)
                await ollama.until(lambda: ollama.open == 0)
                assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)


STREAM_BODY = b'{"chat":{"messages":[{"role":"user","content":"Hi"}]},"resume_window":60}'


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /api/chat?prompt=Hi&resume_window=60 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/streams HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(STREAM_BODY), STREAM_BODY),
    ],
    ids=["GET", "POST"],
)
async def test_client_that_left_before_its_model_was_known(request_: bytes) -> None:
    """While Ollama is asked for a default model, nobody watches the client; then nothing starts for it."""
    asked, tell = asyncio.Event(), asyncio.Event()

    async def tags(peer: Peer) -> None:
        asked.set()
        await tell.wait()
        body = b'{"models":[{"name":"m","digest":"d"}]}'
        await peer.send(head(200, {"Content-Length": str(len(body))}), body)

    async with upstream(silence, tags=tags) as ollama, gateway(ollama.url, retain_seconds=0) as gw:
        address = urlsplit(gw.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(request_)
        await asked.wait()
        reset(writer)
        await settled(gw, lambda: True)
        tell.set()
        await settled(gw, lambda: at_rest(gw))
        assert not ollama.asked("/api/chat")


@on_both_loops
@pytest.mark.parametrize("answer", [streams(token("a"), token("b"), ONCE_DONE), silence, mid_refusal])
def test_stop_after_each_step(new_loop: LoopFactory, answer: Answer) -> None:
    """Stopped before its first step, or after any turn of the loop, it ends once and gives everything back."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(stop_after_each_step(answer))


async def stop_after_each_step(answer: Answer) -> None:

    async def job() -> Job:
        return Job(Kind.CHAT, "m", b'{"model":"m"}')

    async with upstream(answer) as ollama, gateway(ollama.url, max_active=1, max_queued=0) as gw:
        registry = gw.state["streams"]
        turns, outcome = 0, "cancelled"
        while outcome == "cancelled" and turns < 60:
            await registry.start("", job, None)
            (generation,) = registry.running.all()
            for _ in range(turns):
                await asyncio.sleep(0)
            await registry.stop(generation.sid, "")
            log = await registry.log(generation.sid)
            assert log is not None
            outcome, _ = ending(parsed(b"".join([piece async for piece in log.read(0)])))
            await generation.finished()
            await idle(ollama)
            turns += 1
        assert turns > 5
        assert len(registry.running) == 0


async def idle(ollama: Upstream) -> None:
    await ollama.until(lambda: ollama.open == 0)


def parsed(stream: bytes) -> list[Event]:
    return [event for block in stream.split(b"\n\n") if block and (event := parse(block))]
