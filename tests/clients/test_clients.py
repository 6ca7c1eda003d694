"""Independent clients read what Ollama has sent; those that reconnect lose nothing, and ask Ollama once."""

import asyncio
import json
from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.clients.clients import CLIENTS, node
from tests.exposition import parse
from tests.gateways import gateway
from tests.page.cutting import cutting
from tests.page.pages import chromium
from tests.sse import Event, ending, messages
from tests.upstreams import ONCE_DONE, Peer, streams, token, upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

HARD = [
    *(
        "Grüße",
        " 👩‍👧 👍🏽",
        " 日本",
        " <b>&amp;</b>",
        "\u2028",
        "\u2029",
        "\x85",
        "\x0b\x0c\x1c",
        "\ufeff",
        "\x00\x1f\x7f",
    ),
    *(" data: x\n\nevent: end\nid: 1\n\n", ": ping\r\n", "\\ \" '", " ", "", 300_000 * "long "),
]
"""Text that is hard to carry: much of it is a line's end to somebody."""

RESUMING = [
    "client.js in Node",
    "client.js in Chromium",
    "EventSource in Chromium",
    "event-source-polyfill",
    "eventsource",
    "undici",
    "eventsource-client",
    "fetch-event-source",
]
"""Clients that reconnect by themselves."""

CUT_AFTER = 2_500


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


def compare(client: str, events: list[Event], sent: list[bytes]) -> None:
    """All of the messages, in order, as they were sent, with the ids of one stream counting from 1."""
    given = [event.data for event in messages(events)]
    if client.startswith("client.js"):
        assert [orjson.loads(data) for data in given] == [orjson.loads(line) for line in sent]
    else:
        assert given == [line.strip() for line in sent]
    assert events[0].name == "meta"
    sid = events[0].json["id"]
    numbered = [event.id for event in events if event.name in ("message", "end")]
    assert numbered == [f"{sid}-{number}" for number in range(1, len(sent) + 2)]


@pytest.mark.parametrize("client", CLIENTS)
async def test_it_reads_what_is_hard_to_carry(client: str, browser: Browser) -> None:
    """Each text twice: as it is, as other servers write it, and escaped, as Ollama does."""
    escaped = [
        json.dumps({"model": "m", "message": {"content": text}, "done": False}).encode() + b"\n" for text in HARD
    ]
    sent = [*map(token, HARD), *escaped, ONCE_DONE]
    async with upstream(streams(*sent)) as ollama, gateway(ollama.url) as gw:
        events = [event async for event in CLIENTS[client](gw.url + "/api/chat?model=m&prompt=x", gw.url, browser)]
        compare(client, events, sent)
        assert ending(events) == ("complete", None)


@pytest.mark.parametrize("client", CLIENTS)
async def test_it_reads_past_pings_and_statuses(client: str, browser: Browser) -> None:
    sent = [token("slow"), token("ly"), ONCE_DONE]

    async def slowly(peer: Peer) -> None:
        await peer.start()
        for line in sent:
            await asyncio.sleep(0.3)
            await peer.lines(line)
        await peer.end()

    async with (
        upstream(slowly) as ollama,
        gateway(ollama.url, ping_interval=0.05, status_interval=0.1) as gw,
    ):
        events = [event async for event in CLIENTS[client](gw.url + "/api/chat?model=m&prompt=x", gw.url, browser)]
        compare(client, events, sent)
        statuses = [event.json["phase"] for event in events if event.name == "status"]
        assert statuses
        assert set(statuses) <= {"queued", "starting", "loading", "prompt"}


@pytest.mark.parametrize("client", CLIENTS)
async def test_it_reads_how_a_stream_fails(client: str, browser: Browser) -> None:
    async with upstream(streams(token("a"), b'{"error":"out of memory"}\n')) as ollama, gateway(ollama.url) as gw:
        events = [event async for event in CLIENTS[client](gw.url + "/api/chat?model=m&prompt=x", gw.url, browser)]
        assert ending(events) == ("error", "ollama_error")
        error = messages(events)[-1].json
        assert error == {
            "error": "out of memory",
            "code": "ollama_error",
            "status": 500,
            "phase": "generating",
            "retryable": True,
        }


@pytest.mark.parametrize("client", RESUMING)
async def test_it_resumes_after_cuts(client: str, browser: Browser) -> None:
    """Every connection breaks after `CUT_AFTER` bytes, wherever that is; the first time Ollama is not half done.

    No connection breaks before the client has an id: a busy client can drop what arrives together with a cut, and a
    one-shot that is asked for without an id starts again.
    """
    sent = [*(token(f"token {number}") for number in range(40)), ONCE_DONE]
    has_id = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.start()
        await peer.lines(sent[0])
        await has_id.wait()
        await peer.lines(*sent[1:20])
        await proxy.until_passed(CUT_AFTER + 1)
        await peer.lines(*sent[20:])
        await peer.end()

    async with upstream(answer) as ollama, gateway(ollama.url) as gw, cutting(gw.url) as proxy:
        proxy.allowance = CUT_AFTER
        events = []
        url = proxy.url + "/api/chat?model=m&prompt=x&resume_window=30"
        async for event in CLIENTS[client](url, gw.url, browser):
            events.append(event)
            if event.name == "message":
                has_id.set()
        once = [event for event in events if event.name in ("message", "end")]
        compare(client, [events[0], *once], sent)
        assert len([event for event in events if event.name == "meta"]) > 2
        assert len(ollama.asked("/api/chat")) == 1


@pytest.mark.parametrize(
    ("client", "returns"),
    [
        ("eventsource", 1),
        ("undici", 1),
        ("eventsource-client", 1),
        ("fetch-event-source", 0),
        ("client.js", 0),
    ],
)
async def test_it_stops_by_itself_after_the_end(client: str, returns: int) -> None:
    """When its user does not stop it, it reconnects once at most, and is then told to stop. Node then ends."""
    async with upstream(streams(token("a"), ONCE_DONE)) as ollama, gateway(ollama.url) as gw:
        events = [event async for event in node(client, gw.url + "/api/chat?model=m&prompt=x", "forgetful")]
        compare(client, events, [token("a"), ONCE_DONE])
        async with gw.session.get(gw.url + "/metrics") as response:
            assert parse(await response.text())["gateway_resumes_total"].value(result="ended") == returns
        assert len(ollama.asked("/api/chat")) == 1
