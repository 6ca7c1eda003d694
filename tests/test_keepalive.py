"""A stream has something to read from the first moment on, however long Ollama is silent, and shows the phase."""

import asyncio

import aiohttp
import orjson
import pytest

from tests.asks import CHAT
from tests.gateways import gateway
from tests.sse import Event, Events, ending, messages
from tests.upstreams import (
    ONCE_DONE,
    Answer,
    Peer,
    says,
    silence,
    streams,
    token,
    upstream,
    whole,
)
from tests.waits import until


def loaded(*names: str) -> bytes:
    """The answer to `ps` when these models are in memory."""
    return whole(200, orjson.dumps({"models": [{"name": name} for name in names]}))


async def stall(peer: Peer) -> None:
    await peer.start()
    await peer.lines(token("a"))
    await silence(peer)


async def test_pings_keep_an_impatient_client() -> None:
    """In real time: a client that gives up after 2 s without bytes outlasts more than 2 s without anything but
    pings."""
    pinged = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await pinged.wait()
        await streams(token("a"), ONCE_DONE)(peer)

    impatient = aiohttp.ClientTimeout(sock_read=2)
    async with (
        upstream(slow) as ollama,
        gateway(ollama.url, ping_interval=0.5, status_interval=60) as gw,
        gw.session.get(gw.url + CHAT, timeout=impatient) as response,
    ):
        events = Events(response)
        reading = asyncio.create_task(events.next("end"))
        await until(lambda: events.pings >= 6)
        pinged.set()
        assert (await reading).json["outcome"] == "complete"


async def test_first_bytes_before_ollama(full_backlog: str) -> None:
    """`retry`, `meta` and the phase arrive although Ollama takes no connection; the headers are the contract's."""
    async with gateway(full_backlog, connect_timeout=60) as gw, gw.open(CHAT) as events:
        meta = await anext(aiter(events))
        assert events.raw.startswith(b"retry: 1000\n\nevent: meta\n")
        sid = meta.json["id"]
        assert meta.json == {"v": 1, "id": sid, "url": f"/api/streams/{sid}", "kind": "chat", "model": "m"}
        assert meta.id is None
        assert len(sid) >= 26
        assert (await events.next("status")).json["phase"] == "starting"
        headers = events.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Cache-Control"] == "no-store, no-transform"
        assert headers["X-Accel-Buffering"] == "no"


async def until_shown(phase: str, events: Events) -> None:
    """Wait until this phase is shown."""
    while (await events.next("status")).json["phase"] != phase:
        pass


async def test_phases_are_told_apart_by_ps() -> None:
    """Queued, starting, loading as long as `ps` does not list the model, then prompt; a name needs no `:latest`."""
    ps = loaded("other:latest")
    go = asyncio.Semaphore(0)

    async def answer(peer: Peer) -> None:
        await go.acquire()
        await streams(token("a"), ONCE_DONE)(peer)

    async def answer_ps(peer: Peer) -> None:
        await peer.send(ps)

    async with (
        upstream(answer, ps=answer_ps) as ollama,
        gateway(ollama.url, max_active=1, status_interval=0.05) as gw,
        gw.open(CHAT) as first,
    ):
        assert (await first.next("status")).json["phase"] == "starting"
        async with gw.open("/api/generate?model=M:latest&prompt=Hi") as second:
            status = await second.next("status")
            assert (status.json["phase"], status.json["position"]) == ("queued", 1)
            ps = loaded("other:latest", "m:latest")
            await until_shown("prompt", first)
            ps = loaded()
            await until_shown("loading", first)  # it was unloaded, and is loaded again
            ps = loaded("m:latest")
            go.release()
            assert [event.name async for event in first][-3:] == ["message", "message", "end"]
            await until_shown("starting", second)
            await until_shown("prompt", second)


async def test_status_is_a_heartbeat_that_ends_with_the_first_token() -> None:
    """Status events repeat with the time that has passed; after the first token, tokens are the heartbeat."""
    go = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await go.wait()
        await stall(peer)

    async with (
        upstream(answer) as ollama,
        gateway(ollama.url, status_interval=0.05, ping_interval=0.05) as gw,
        gw.open(CHAT) as events,
    ):
        elapsed = [(await events.next("status")).json["elapsed_ms"] for _ in range(5)]
        assert elapsed == sorted(elapsed)
        assert elapsed[-1] > elapsed[0]
        go.set()
        await events.next()
        pings, asked = events.pings, len(ollama.asked("/api/ps"))
        reading = asyncio.ensure_future(anext(aiter(events)))
        while events.pings < pings + 5:
            await asyncio.wait([reading], timeout=0.01)
        assert not reading.done()
        assert len(ollama.asked("/api/ps")) == asked  # nothing waits any more, so `ps` is not asked
        reading.cancel()


async def test_one_question_for_all_waiting_streams() -> None:
    async with upstream(silence) as ollama, gateway(ollama.url, num_parallel=50, status_interval=0.2) as gw:
        sids = [await gw.start(chat={"model": "m", "messages": []}) for _ in range(50)]

        async def watch(sid: str) -> None:
            async with gw.open(f"/api/streams/{sid}") as events:
                for _ in range(4):
                    assert (await events.next("status")).json["phase"] in ("starting", "loading")

        await asyncio.gather(*map(watch, sids))
        assert 1 <= len(ollama.asked("/api/ps")) < 50  # one question for each status event would be 200


async def test_no_question_for_queued_streams() -> None:
    """A stream that is queued here is not at Ollama yet, so `ps` can tell nothing of it."""
    async with (
        upstream(stall) as ollama,
        gateway(ollama.url, max_active=1, status_interval=0.05) as gw,
        gw.open(CHAT) as first,
    ):
        await first.next()
        asked = len(ollama.asked("/api/ps"))
        async with gw.open(CHAT) as second:
            for _ in range(5):
                assert (await second.next("status")).json["phase"] == "queued"
        assert len(ollama.asked("/api/ps")) == asked


@pytest.mark.parametrize(
    "ps",
    [silence, says(whole(500, b'{"error":"no"}')), says(b"no HTTP\r\n\r\n"), says(whole(200, b'{"models":[{}]}'))],
    ids=["blocks", "fails", "no HTTP", "no names"],
)
async def test_status_does_not_depend_on_ps(ps: Answer) -> None:
    """Status events come although `ps` blocks or fails."""
    async with (
        upstream(silence, ps=ps) as ollama,
        gateway(ollama.url, status_interval=0.1) as gw,
        gw.open(CHAT) as events,
    ):
        for _ in range(6):
            assert (await events.next("status")).json["phase"] == "starting"
        assert ollama.asked("/api/ps")


async def test_pulse_survives_a_stream_that_ends_while_it_asks() -> None:
    """A stream that ended while `ps` was on its way must not be touched, nor take the heartbeat of others with it."""
    asked, tell = asyncio.Event(), asyncio.Event()

    async def ps(peer: Peer) -> None:
        asked.set()
        await tell.wait()
        await peer.send(loaded("m:latest"))

    async with (
        upstream(silence, ps=ps) as ollama,
        gateway(ollama.url, status_interval=1) as gw,
        gw.open(CHAT) as stays,
    ):
        leaver = await gw.start(chat={"model": "m"})
        await asked.wait()
        async with gw.session.delete(f"{gw.url}/api/streams/{leaver}"):
            assert (await stays.next("status")).json["phase"] == "starting"
            tell.set()
        await until_shown("prompt", stays)
        ended = await gw.read(f"/api/streams/{leaver}")
        assert messages(ended)[-1].json["phase"] == "starting"
        assert (await stays.next("status")).json["phase"] == "prompt"


@pytest.mark.parametrize(("answer", "limit"), [(silence, "first_token_timeout"), (stall, "idle_timeout")])
async def test_pings_do_not_feed_the_limits(answer: Answer, limit: str) -> None:
    """What the gateway itself sends must not hide that Ollama is dead."""
    settings = {"ping_interval": 0.01, "status_interval": 0.05, limit: 0.3}
    async with upstream(answer) as ollama, gateway(ollama.url, **settings) as gw, gw.open(CHAT) as events:
        assert ending([event async for event in events]) == ("error", limit)
        assert events.pings > 3


async def test_pings_stand_between_events() -> None:
    """With a ping every millisecond and events that need many writes, none lands inside one: the reader is strict."""
    lines = [token("x" * 50_000) for _ in range(40)]

    async def answer(peer: Peer) -> None:
        await peer.start()
        for line in lines:
            await peer.lines(line)
            await asyncio.sleep(0.005)
        await peer.lines(ONCE_DONE)
        await peer.end()

    async with (
        upstream(answer) as ollama,
        gateway(ollama.url, ping_interval=0.001) as gw,
        gw.open(CHAT) as events,
    ):
        seen: list[Event] = [event async for event in events]
        assert ending(seen) == ("complete", None)
        assert [event.data + b"\n" for event in messages(seen)] == [*lines, ONCE_DONE]
        assert events.pings > 10
