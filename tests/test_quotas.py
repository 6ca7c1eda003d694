"""Fair use: one client, known by its key or its address, cannot take what all share, and what it took is given back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from gateway.asks.parsing import network
from gateway.errors import Busy
from gateway.streams.places import Rules
from gateway.streams.queue import LocalQueue
from gateway.streams.quotas import Quota, Quotas
from gateway.streams.running import Running
from tests.asks import chat, quick
from tests.gateways import Gateway, gateway
from tests.redis_server import Redis
from tests.sse import ending
from tests.upstreams import Peer, Upstream, silence, upstream

STREAM = {"chat": chat("Hi", model="m")}
KEYS = "ada:ada-0123456789abcdef,bob:bob-0123456789abcdef"
ADA, BOB = ({"Authorization": f"Bearer {name}-0123456789abcdef"} for name in ("ada", "bob"))


@asynccontextmanager
async def silent(**settings: Any) -> AsyncIterator[tuple[Gateway, Upstream]]:
    """A gateway with an Ollama that never says anything, so that streams run on."""
    async with upstream(silence) as ollama, gateway(ollama.url, **settings) as gw:
        yield gw, ollama


async def start(gw: Gateway, headers: dict[str, str] | None = None) -> str | int:
    """The new stream's URL, or the seconds to wait."""
    async with gw.session.post(gw.url + "/api/streams", json=STREAM, headers=headers) as response:
        body = await response.json()
        if response.status == 201:
            return str(body["url"])
        assert (response.status, body["code"], body["retryable"]) == (429, "busy", True)
        return int(response.headers["Retry-After"])


def running(gw: Gateway) -> int:
    return len(gw.state["streams"].running)


async def test_streams_at_once() -> None:
    async with silent(client_max_streams=2) as (gw, ollama):
        urls = [await start(gw), await start(gw)]
        assert isinstance(await start(gw), int)
        assert running(gw) == 2
        async with gw.session.delete(f"{gw.url}{urls[0]}"):
            assert isinstance(await start(gw), str)
        await ollama.until(lambda: len(ollama.asked("/api/chat")) == 3)


async def test_one_key_holder_does_not_use_up_what_another_has() -> None:
    """Both come from one address."""
    async with silent(client_max_streams=1, api_keys=KEYS) as (gw, _):
        for key in (ADA, BOB):
            assert isinstance(await start(gw, key), str)
            assert isinstance(await start(gw, key), int)


async def test_places_in_the_queue() -> None:
    async with silent(client_max_queued=1, max_active=1, api_keys=KEYS) as (gw, ollama):
        first = await start(gw, ADA)
        await ollama.until(lambda: ollama.open == 1)
        assert isinstance(await start(gw, ADA), str)  # waits
        assert isinstance(await start(gw, ADA), int)
        async with gw.session.delete(f"{gw.url}{first}"):
            await ollama.until(lambda: len(ollama.asked("/api/chat")) == 2)
        assert isinstance(await start(gw, ADA), str)
        assert isinstance(await start(gw, BOB), str)


async def test_places_in_the_queue_for_a_burst(redis: Redis) -> None:
    """All of them are checked before the first of them waits: with Redis, entering the queue takes a moment."""
    async with silent(client_max_queued=1, max_active=1, api_keys=KEYS, redis_url=redis.url) as (gw, ollama):
        await start(gw, BOB)
        await ollama.until(lambda: ollama.open == 1)
        answers = await asyncio.gather(*(start(gw, ADA) for _ in range(40)))
        assert sum(isinstance(answer, str) for answer in answers) == 1
        assert gw.state["streams"].queue.waiting == 1


async def test_starts_per_minute() -> None:
    async with gateway(quick(), client_starts_per_minute=2) as gw:
        for _ in range(2):
            assert ending(await gw.read("/api/chat?model=llama3.2&prompt=x")) == ("complete", None)
        async with gw.session.get(gw.url + "/api/chat?model=llama3.2&prompt=x") as response:
            assert (response.status, (await response.json())["code"]) == (429, "busy")
            assert 1 <= int(response.headers["Retry-After"]) <= 60
        as_event_source = {"Accept": "text/event-stream"}
        assert ending(await gw.read("/api/chat?model=llama3.2&prompt=x", headers=as_event_source)) == ("error", "busy")
        async with gw.session.get(gw.url + "/api/models") as response:
            assert response.status == 200  # only starts are counted


async def test_reading_again_is_no_start() -> None:
    async with silent(client_starts_per_minute=1) as (gw, _):
        url = str(await start(gw))
        async with gw.open(url) as events, gw.open(url) as others:
            assert await events.next("meta") == await others.next("meta")
        assert isinstance(await start(gw), int)


# The minute passes


def quotas(**quota: int) -> Quotas:
    return Quotas(Quota(**quota), Running(), LocalQueue(Rules(1), 0))


def refused(quotas: Quotas, client: str, now: float) -> int:
    """The seconds to wait at the moment `now` of the test's own clock; 0 if the start is allowed."""
    try:
        quotas._count_start(client, now)
    except Busy as error:
        return error.retry_after or 0
    return 0


async def test_the_minute_slides() -> None:
    counted = quotas(starts_per_minute=2)
    assert [refused(counted, "a", now) for now in (0, 30, 30.5, 59, 60, 61, 89, 90)] == [0, 0, 30, 2, 0, 30, 2, 0]


async def test_retry_after_is_long_enough() -> None:
    counted = quotas(starts_per_minute=1)
    now = 1000.25
    refused(counted, "a", now)
    for later in (0.0, 0.001, 30.5, 59.0, 59.999):
        wait = refused(counted, "a", now + later)
        assert wait >= 1
        assert not refused(quotas_after(now), "a", now + later + wait)


def quotas_after(now: float) -> Quotas:
    counted = quotas(starts_per_minute=1)
    refused(counted, "a", now)
    return counted


async def test_nothing_is_kept_of_clients_that_have_gone() -> None:
    """Memory is bounded by the number of clients within a minute, and by what each may start."""
    counted = quotas(starts_per_minute=3)
    for second in range(10_000):
        for _ in range(5):
            refused(counted, f"client {second}", second)
        refused(counted, "regular", second)
        assert len(counted._starts) <= 62
        assert all(0 < len(starts) <= 3 for starts in counted._starts.values())


def test_an_address_of_ipv6_is_one_of_a_household() -> None:
    assert network("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert network("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert network("2001:db8:1:3::9") != network("2001:db8:1:2::9")
    assert network("fe80::1%eth0") == "fe80::/64"
    for address in ("::ffff:192.0.2.1", "64:ff9b::192.0.2.1", "::FFFF:c000:201"):
        assert network(address) == "192.0.2.1"
    for as_it_is in ("192.0.2.1", "", "unix", "ada"):
        assert network(as_it_is) == as_it_is


# Places are given back


async def leave(gw: Gateway, ollama: Upstream) -> None:
    async with gw.open("/api/chat?model=m&prompt=x") as events:
        await events.next("meta")
        await ollama.until(lambda: ollama.open == 1)


async def delete(gw: Gateway, ollama: Upstream) -> None:
    url = await start(gw)
    async with gw.session.delete(f"{gw.url}{url}") as response:
        assert response.status == 204


async def never_come(gw: Gateway, ollama: Upstream) -> None:
    await start(gw)


async def leave_the_queue(gw: Gateway, ollama: Upstream) -> None:
    async with gw.open("/api/chat?model=m&prompt=x") as first, gw.open("/api/chat?model=m&prompt=x") as second:
        await first.next("meta")
        assert (await second.next("status")).json["phase"] == "queued"


async def half_a_request(gw: Gateway, ollama: Upstream) -> None:
    address = urlsplit(gw.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b'POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"model":')
    await writer.drain()
    writer.close()


async def be_refused(gw: Gateway, ollama: Upstream) -> None:
    for body in ({"chat": {"model": 1}}, {"pull": {"model": "m"}}, {**STREAM, "preset": "none"}):
        async with gw.session.post(gw.url + "/api/streams", json=body) as response:
            assert response.status in (403, 422)


@pytest.mark.parametrize("way", [leave, delete, never_come, leave_the_queue, half_a_request, be_refused])
async def test_every_way_out_gives_the_place_back(way: Callable[[Gateway, Upstream], Awaitable[None]]) -> None:
    async with silent(client_max_streams=2, max_active=1, attach_timeout=0.05) as (gw, ollama):
        for _ in range(3):
            await way(gw, ollama)
            await ended(gw)
        assert all([isinstance(await start(gw), str) for _ in range(2)])


async def ended(gw: Gateway) -> None:
    while running(gw):
        async with gw.session.get(gw.url + "/healthz"):
            pass


async def die(peer: Peer) -> None:
    peer.reset()


async def test_an_error_gives_the_place_back() -> None:
    async with upstream(die) as ollama, gateway(ollama.url, client_max_streams=1) as gw:
        for _ in range(3):
            assert ending(await gw.read("/api/chat?model=m&prompt=x")) == ("error", "ollama_unreachable")


async def test_a_full_gateway_gives_the_place_back() -> None:
    """`busy` of the whole gateway comes after the client's own quota was asked."""
    async with silent(client_max_streams=1, max_active=1, max_queued=0, api_keys=KEYS) as (gw, _):
        first = await start(gw, ADA)
        async with gw.session.post(gw.url + "/api/streams", json=STREAM, headers=BOB) as response:
            assert (response.status, (await response.json())["code"]) == (503, "busy")
        async with gw.session.delete(f"{gw.url}{first}"):
            await ended(gw)
        assert isinstance(await start(gw, BOB), str)


# The client's identity


async def addresses(url: str, session: aiohttp.ClientSession, *forwarded: str) -> list[bool]:
    """Whether each start, forwarded for one of these, was allowed; an address may have one stream."""
    allowed = []
    for each in forwarded:
        async with session.post(url + "/api/streams", json=STREAM, headers={"X-Forwarded-For": each}) as response:
            allowed.append(response.status == 201)
    return allowed


@pytest.mark.parametrize(
    ("proxies", "allowed"),
    [
        # the last address that no proxy has added counts, whatever a client has put before it
        ("127.0.0.1,10.0.0.0/8", [True, False, False, False, True, False, True]),
        ("127.0.0.1", [True, False, False, True, True, False, True]),
        ("", [True, False, False, False, False, False, False]),
        ("10.0.0.0/8", [True, False, False, False, False, False, False]),
    ],
)
async def test_an_address_is_taken_from_trusted_proxies_only(proxies: str, allowed: list[bool]) -> None:
    async with (
        upstream(silence) as ollama,
        gateway(ollama.url, client_max_streams=1, trusted_proxies=proxies) as gw,
    ):
        forwarded = (
            "192.0.2.1",
            "192.0.2.1",
            "6.6.6.6, 192.0.2.1",
            "192.0.2.1, 10.1.2.3",
            "2001:db8::1",
            "2001:db8::2",
            "192.0.2.2",
        )
        assert await addresses(gw.url, gw.session, *forwarded) == allowed


async def test_what_a_proxy_says_is_no_key() -> None:
    """A header with the name of a key does not make its sender the key's holder."""
    async with upstream(silence) as ollama:
        settings = {"api_keys": KEYS, "client_max_streams": 1, "trusted_proxies": "127.0.0.1"}
        async with gateway(ollama.url, **settings) as gw:
            headers = BOB | {"X-Forwarded-For": "ada"}
            async with gw.session.post(gw.url + "/api/streams", json=STREAM, headers=headers) as response:
                assert response.status == 201
            async with gw.session.post(gw.url + "/api/streams", json=STREAM, headers=ADA) as response:
                assert response.status == 201
                assert orjson.loads(await response.read())["kind"] == "chat"
