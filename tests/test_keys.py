"""With keys, every request needs one; and no key is ever shown."""

import asyncio
import gc
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
from starlette.datastructures import Headers
from starlette.routing import Mount, Route

from gateway.app import create_app
from gateway.cli import main
from gateway.dialects.events import new_sid
from gateway.replicas.connection import LOOKUP_CONNECTIONS
from gateway.settings import ConfigurationError, Settings, load
from gateway.web.keys import (
    MAX_DELAY_SECONDS,
    MAX_NETWORKS,
    SESSION_COOKIE,
    SESSION_SECONDS,
    Keys,
    SessionSigner,
    WrongKeys,
)
from gateway.web.routes.table import ROUTES
from tests.asks import chat, quick
from tests.gateways import Gateway, gateway
from tests.processes import INSTALLED, process
from tests.redis_server import Redis
from tests.redis_wire import wire
from tests.servers import serve
from tests.sse import Events, ending
from tests.upstreams import Upstream, silence, upstream
from tests.waits import until

ADA, BOB = "ada-0123456789abcdef", "bob-0123456789abcdef"
KEYS = f"ada:{ADA},bob:{BOB}"
AS_ADA, AS_BOB = {"Authorization": f"Bearer {ADA}"}, {"Authorization": f"Bearer {BOB}"}
OPEN = {"/", "/static", "/healthz", "/readyz", "/openapi.json", "/client.js", "/client.d.ts", "/api/session"}
OPEN |= {"/ollama/"}
"""The routes that need no key; every other one, also one that is added later, does."""


def asks(closed: bool) -> list[tuple[str, str]]:
    """Every method and path of the route table that needs a key, or that does not."""
    found = []
    for route in ROUTES:
        assert isinstance(route, Route | Mount), "a kind of route that this test does not know"
        methods = route.methods if isinstance(route, Route) else {"GET", "HEAD"}
        path = "/static/index.html" if route.path == "/static" else route.path.replace("{sid}", "f" * 32)
        if (route.path not in OPEN) is closed:
            found += [(method, path) for method in sorted(methods or ())]
    return found


@pytest.mark.parametrize(("method", "path"), asks(closed=True))
async def test_every_route_needs_a_key(method: str, path: str) -> None:
    """A request without one gets 401, whatever else is wrong, and Ollama is asked nothing."""
    async with upstream(silence) as ollama, gateway(ollama.url, api_keys=KEYS) as gw:
        for headers in (
            {},
            {"Accept": "text/event-stream"},
            {"Last-Event-ID": "f" * 32 + "-1"},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {ADA}x"},
            {"Authorization": f"Bearer {ADA[:-1]}"},
            {"Authorization": "Bearer é"},
            {"Authorization": f"Basic {ADA}"},
            {"Authorization": ADA},
            {"Cookie": f"{SESSION_COOKIE}={ADA}"},
            {"Cookie": f"{SESSION_COOKIE}={'0' * 92}"},
            {"X-Api-Key": ADA},
        ):
            async with gw.session.request(method, gw.url + path, headers=headers, data=b"{") as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"
                if method != "HEAD":
                    told = await response.json()
                    assert told["error"].startswith("This gateway requires an API key")
                    assert path.startswith("/ollama/") or told["code"] == "unauthorized"
        async with gw.session.request(method, f"{gw.url}{path}?key={ADA}&api_key={ADA}") as response:
            assert response.status == 401  # a key in the URL does not count
        assert ollama.requests == []


@pytest.mark.parametrize(("method", "path"), asks(closed=True))
async def test_every_route_takes_a_key(method: str, path: str) -> None:
    async with gateway(quick(), api_keys=KEYS) as gw:
        for key in (ADA, BOB):
            headers = {"Authorization": f"bearer  {key}"}
            async with gw.session.request(method, gw.url + path, headers=headers, data=b"{}") as response:
                assert response.status != 401


@pytest.mark.parametrize(("method", "path"), asks(closed=False))
async def test_what_the_page_needs_to_ask_for_the_key_is_open(method: str, path: str) -> None:
    async with (
        gateway(quick(), api_keys=KEYS) as gw,
        gw.session.request(method, gw.url + path) as response,
    ):
        wanted = {"GET": 200, "HEAD": 200, "DELETE": 204, "POST": 401}  # the one POST exchanges a key
        assert response.status == wanted[method]


async def test_without_keys_nobody_needs_one() -> None:
    async with gateway(quick()) as gw:
        assert ending(await gw.read("/api/chat?prompt=x")) == ("complete", None)
        async with gw.session.post(gw.url + "/api/session") as response:
            assert response.status == 204
            assert "Set-Cookie" not in response.headers


async def test_readiness_gives_its_reason_to_key_holders_only(closed_port: str) -> None:
    """The reason would reveal what is behind the gateway."""
    async with gateway(closed_port, api_keys=KEYS) as gw:
        async with gw.session.get(gw.url + "/readyz") as response:
            assert (response.status, await response.json()) == (503, {"status": "unavailable"})
        async with gw.session.get(gw.url + "/readyz", headers=AS_ADA) as response:
            assert (await response.json()).keys() == {"status", "reason", "servers"}


# Streams


@asynccontextmanager
async def waiting_stream() -> AsyncIterator[tuple[Gateway, Upstream, str]]:
    """A stream of Ada's at an Ollama that says nothing."""
    async with (
        upstream(silence) as ollama,
        gateway(ollama.url, api_keys=KEYS) as gw,
        gw.session.post(gw.url + "/api/streams", json={"chat": {"model": "m"}}, headers=AS_ADA) as response,
    ):
        assert response.status == 201
        yield gw, ollama, (await response.json())["url"]


async def test_a_stream_is_read_and_stopped_by_its_url_alone() -> None:
    """`EventSource` can send no key, so the id serves as one, for this stream only."""
    async with waiting_stream() as (gw, ollama, url), gw.open(url) as events:
        await ollama.until(lambda: ollama.open == 1)
        await events.next("meta")
        async with gw.session.head(gw.url + url) as response:
            assert response.status == 200
        async with gw.session.delete(gw.url + url) as response:
            assert response.status == 204
        assert [event.name async for event in events][-1] == "end"
        await ollama.until(lambda: ollama.open == 0)


async def test_an_unknown_stream_tells_strangers_nothing() -> None:
    """Each gets the same answer, byte for byte, as an unknown path, so that there is nothing to probe."""
    async with waiting_stream() as (gw, _, url):
        known = url.rpartition("/")[2]
        answers = set()
        others = (known[:-1], known + "0", known.upper(), known[:8], f"{known}/", f"{known}%0a")
        for sid in ("f" * 32, "x", "%2e%2e", *others):
            for method in ("GET", "HEAD", "DELETE"):
                for headers in ({}, {"Last-Event-ID": f"{known}-1"}, {"Accept": "text/event-stream"}):
                    async with gw.session.request(method, f"{gw.url}/api/streams/{sid}", headers=headers) as response:
                        answers.add((response.status, await response.read() if method != "HEAD" else b""))
        async with gw.session.get(gw.url + "/nothing") as response:
            answers.add((response.status, await response.read()))
        assert {status for status, _ in answers} == {401}
        assert len({body for _, body in answers if body}) == 1


async def test_an_id_opens_no_other_stream() -> None:
    async with waiting_stream() as (gw, _, mine):
        async with gw.session.post(gw.url + "/api/streams", json={"chat": {"model": "m"}}, headers=AS_ADA) as response:
            other = (await response.json())["id"]
        for headers, query in (({"Last-Event-ID": f"{other}-1"}, ""), ({}, f"?last_event_id={other}-1")):
            async with gw.session.get(gw.url + mine + query, headers=headers) as response:
                assert response.status == 422


async def test_an_id_does_not_outlive_what_is_held() -> None:
    async with gateway(quick(), api_keys=KEYS, retain_seconds=0, allow_pull=True) as gw:
        async with gw.session.post(gw.url + "/api/streams", json={"pull": {"model": "x"}}, headers=AS_ADA) as made:
            url = (await made.json())["url"]
        ending(await gw.read(url))
        while gw.state["streams"].logs.size:
            async with gw.session.get(gw.url + "/healthz"):
                pass
        async with gw.session.get(gw.url + url) as response:
            assert response.status == 401


def test_ids_cannot_be_guessed() -> None:
    """They are 128 bits of the system's own generator."""
    sids = {new_sid() for _ in range(10_000)}
    assert len(sids) == 10_000
    assert all(re.fullmatch(r"[0-9a-f]{32}", sid) for sid in sids)
    ones = sum(int(sid, 16).bit_count() for sid in sids)
    assert abs(ones / (10_000 * 128) - 0.5) < 0.005  # eleven standard deviations


# Timing


def test_the_work_is_the_same_whichever_key_is_right() -> None:
    """No clock is precise enough to show that in a test, but the calls show it: they are the same, in number and
    order, for every key and for none, and compare digests in constant time."""
    keys = Keys({"ada": ADA, "bob": BOB, "eve": "e" * 90})
    session = keys.session("bob")
    called: list[str] = []

    def watch(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            called.append(function.__name__)

    gc.collect()  # or what it happens to finalize meanwhile would be counted
    works: dict[str, set[tuple[str, ...]]] = {}
    for header, value, name in (
        ("Authorization", f"Bearer {ADA}", "ada"),
        ("Authorization", f"Bearer {BOB}", "bob"),
        ("Authorization", "Bearer " + "e" * 90, "eve"),
        ("Authorization", "Bearer x", None),
        ("Authorization", "Bearer ", None),
        ("Cookie", f"{SESSION_COOKIE}={session}", "bob"),
        ("Cookie", f"{SESSION_COOKIE}={session[:-1]}{int(session[-1], 16) ^ 1:x}", None),
    ):
        headers = Headers({header: value})
        called.clear()
        sys.setprofile(watch)
        found = keys.holders(headers)
        sys.setprofile(None)
        assert found == ([name] if name else [])
        assert "compare_digest" in called
        works.setdefault(header, set()).add(tuple(called))
    assert [len(calls) for calls in works.values()] == [1, 1]


# Wrong keys


def test_a_wrong_key_costs_its_network_time() -> None:
    """The first few are free, and what is kept of all networks is bounded."""
    wrong_keys = WrongKeys()
    delays = [wrong_keys.delay("2001:db8::1") for _ in range(100)]
    assert delays[:8] == [0] * 8
    assert 0 < delays[30] <= delays[-1] == MAX_DELAY_SECONDS
    assert wrong_keys.delay("2001:db8::2") == MAX_DELAY_SECONDS
    assert wrong_keys.delay("2001:db8:0:1::1") == wrong_keys.delay("192.0.2.1") == wrong_keys.delay("") == 0
    for number in range(MAX_NETWORKS):
        wrong_keys.delay(f"10.0.{number >> 8}.{number & 255}")
    assert wrong_keys.delay("2001:db8::2") == 0  # forgotten, for the sake of those that came later


async def test_wrong_keys_wait_and_right_ones_do_not() -> None:
    """Whoever shares the address of one who guesses is served; and one who leaves while waiting leaves nothing."""
    async with upstream(silence) as ollama, gateway(ollama.url, api_keys=KEYS) as gw:
        session = await sign_in(gw)
        before = asyncio.all_tasks()
        wrong = {"Authorization": f"Bearer {ADA}x"}
        routes = (
            ("POST", "/api/session"),
            ("GET", "/readyz"),
            ("GET", f"/api/streams/{'f' * 32}"),
            ("POST", "/api/chat"),
        )
        guesses = [asyncio.create_task(status(gw, wrong, *route)) for route in routes * 8]
        await until(lambda: sum(guess.done() for guess in guesses) >= 8)
        for right in (AS_ADA, AS_BOB, session):
            assert await status(gw, right, "GET", "/api/presets") == 200
        assert await status(gw, {}) == 401  # no key is no guess
        assert await status(gw, {"Cookie": f"{SESSION_COOKIE}={'0' * 92}"}) == 401
        assert not all(guess.done() for guess in guesses)
        known, address = asyncio.all_tasks(), urlsplit(gw.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADA}x\r\n".encode())
        writer.write(b"Content-Length: 999999999\r\n\r\n{")  # more than may be read
        await until(lambda: asyncio.all_tasks() > known)
        for guess in guesses:
            guess.cancel()
        writer.close()
        await until(lambda: asyncio.all_tasks() <= before, 5)


# Look-ups without a key


async def test_look_ups_hold_up_no_start(redis: Redis) -> None:
    """Strangers who ask for random ids, more than there are connections to Redis, wait for one another alone."""
    async with wire(redis) as line, gateway(quick(), redis_url=line.url, api_keys=KEYS) as gw:
        async with gw.session.post(gw.url + "/api/streams", json={"chat": chat("Hi")}, headers=AS_ADA) as made:
            known = (await made.json())["url"]
        line.hold = b"XRANGE"
        asked = [asyncio.create_task(status(gw, {}, "GET", f"/api/streams/{new_sid()}")) for _ in range(200)]
        await until(lambda: line.held == LOOKUP_CONNECTIONS)
        assert ending(await gw.read("/api/chat?prompt=x", headers=AS_ADA)) == ("complete", None)
        assert ending(await gw.read(known)) == ("complete", None)
        line.release()
        assert set(await asyncio.gather(*asked)) == {401}


async def test_what_is_no_id_is_not_looked_for(redis: Redis) -> None:
    def looked() -> object:
        return redis.run("INFO", "commandstats").get("cmdstat_xrange", {}).get("calls", 0)

    shared = {"redis_url": redis.url}
    async with (
        serve(quick().app) as ollama,
        gateway(ollama, **shared) as gw,
        gateway(ollama, api_keys=KEYS, **shared) as locked,
    ):
        before = looked()
        for sid in ("x", "F" * 32, "f" * 25, "f" * 65, "f" * 5000, "f%00" * 10, "é" * 32, f"{'f' * 32}-1"):
            for method, wanted in (("GET", 404), ("DELETE", 204)):
                assert await status(gw, {}, method, f"/api/streams/{sid}") == wanted
                assert await status(locked, AS_ADA, method, f"/api/streams/{sid}") == wanted
                assert await status(locked, {}, method, f"/api/streams/{sid}") == 401
        assert looked() == before
        assert await status(locked, {}, "GET", f"/api/streams/{'f' * 32}") == 401
        assert looked() != before


# Sessions


def cookie(response: aiohttp.ClientResponse) -> "Morsel[str]":
    return SimpleCookie(response.headers["Set-Cookie"])[SESSION_COOKIE]


def settings_of(**values: Any) -> Settings:
    return Settings(**values)


async def test_a_session_stands_for_the_key() -> None:
    async with gateway(quick(), api_keys=KEYS) as gw:
        async with gw.session.post(gw.url + "/api/session", headers=AS_ADA) as response:
            morsel = cookie(response)
            assert response.status == 204
        assert morsel["httponly"]
        assert morsel["samesite"] == "strict"
        assert morsel["path"] == "/"
        assert not morsel["domain"]
        assert ADA not in response.headers["Set-Cookie"]
        for sent in (
            f"{SESSION_COOKIE}={morsel.value}",
            f'theirs={{"a":[1,2]}}; {SESSION_COOKIE}={morsel.value}',
            f"{SESSION_COOKIE}={morsel.value};b=\x80é",
            f"x{SESSION_COOKIE}=0; {SESSION_COOKIE}={morsel.value} ; c",
        ):
            assert ending(await gw.read("/api/chat?prompt=x", headers={"Cookie": sent})) == ("complete", None)
        for before, after in (("x", ""), ("a=", ""), ("", "0")):
            sent = f"{before}{SESSION_COOKIE}={morsel.value}{after}"
            async with gw.session.get(gw.url + "/api/models", headers={"Cookie": sent}) as response:
                assert response.status == 401
        # the session is no bearer token, and does not make up for a wrong one
        wrong = {"Authorization": "Bearer " + "x" * 16, "Cookie": f"{SESSION_COOKIE}={morsel.value}"}
        for headers in ({"Authorization": f"Bearer {morsel.value}"}, wrong):
            async with gw.session.post(gw.url + "/api/session", headers=headers) as response:
                assert response.status == 401


async def sign_in(gw: Gateway, headers: dict[str, str] = AS_ADA) -> dict[str, str]:
    """The header of a new session."""
    async with gw.session.post(gw.url + "/api/session", headers=headers) as made:
        return {"Cookie": f"{SESSION_COOKIE}={cookie(made).value}"}


async def sign_out(gw: Gateway, headers: dict[str, str]) -> None:
    async with gw.session.delete(gw.url + "/api/session", headers=headers) as response:
        assert (response.status, cookie(response).value, cookie(response)["max-age"]) == (204, "", "0")


async def status(gw: Gateway, headers: dict[str, str], method: str = "GET", path: str = "/api/models") -> int:
    async with gw.session.request(method, gw.url + path, headers=headers) as response:
        return response.status


async def test_a_logout_ends_the_sessions_of_its_key() -> None:
    """In every browser: the cookie may have been copied. The key itself, and sessions of other keys, remain."""
    async with gateway(quick(), api_keys=KEYS) as gw:
        here, there, bobs = await sign_in(gw), await sign_in(gw), await sign_in(gw, AS_BOB)
        for _ in range(3):  # one right after the other: each new session is a valid one
            assert await status(gw, here) == 200
            await sign_out(gw, here)
            assert [await status(gw, each) for each in (here, there)] == [401, 401]
            here, there = await sign_in(gw), here
        await sign_out(gw, AS_ADA)
        assert [await status(gw, each) for each in (here, AS_ADA, bobs)] == [401, 200, 200]
        await sign_out(gw, {"Cookie": f"{bobs['Cookie']}; {(await sign_in(gw))['Cookie']}"})
        assert await status(gw, bobs) == 401
        await sign_out(gw, {})


async def test_a_logout_with_a_planted_session_ends_both() -> None:
    """Otherwise one that comes first would keep the other alive."""
    async with gateway(quick(), api_keys=KEYS) as gw:
        planted, own = await sign_in(gw, AS_BOB), await sign_in(gw)
        await sign_out(gw, {"Cookie": f"{planted['Cookie']}; {own['Cookie']}"})
        assert [await status(gw, each) for each in (planted, own)] == [401, 401]


async def test_a_session_ends() -> None:
    """After its time, which nobody can change, and which no session renews."""
    async with gateway(quick(), api_keys=KEYS) as gw:
        async with gw.session.post(gw.url + "/api/session", headers=AS_ADA) as made:
            assert int(cookie(made)["max-age"]) == SESSION_SECONDS
        ends = round(time.time() - SESSION_SECONDS) * 1000
        old, older = SessionSigner(ADA).sign(ends + 60_000), SessionSigner(ADA).sign(ends - 1000)
        for value, wanted in ((old, 200), (older, 401), (old[:28] + older[28:], 401)):
            assert await status(gw, {"Cookie": f"{SESSION_COOKIE}={value}"}) == wanted
        assert await status(gw, {"Cookie": f"{SESSION_COOKIE}={old}"}, "POST", "/api/session") == 401


async def test_what_a_session_has_started_goes_on_without_it() -> None:
    """Its id is enough to read and to stop it, as ever."""
    async with upstream(silence) as ollama, gateway(ollama.url, api_keys=KEYS) as gw:
        session = await sign_in(gw)
        async with gw.session.post(gw.url + "/api/streams", json={"chat": {"model": "m"}}, headers=session) as made:
            url = (await made.json())["url"]
        async with gw.open(url) as events:
            await ollama.until(lambda: ollama.open == 1)
            await sign_out(gw, session)
            assert await status(gw, session, "DELETE", url) == 204
            assert ending([event async for event in events]) == ("cancelled", "cancelled")


async def test_a_logout_holds_at_every_replica(redis: Redis) -> None:
    """At those that run at once, at one that starts later, and after Redis has forgotten everything."""
    shared = {"api_keys": KEYS, "redis_url": redis.url}
    async with serve(quick().app) as ollama, gateway(ollama, **shared) as here, gateway(ollama, **shared) as there:
        session, bobs = await sign_in(here), await sign_in(there, AS_BOB)
        assert await status(there, session) == 200
        await sign_out(here, session)
        await until(lambda: "ada" in there.state["keys"].logouts)
        assert [await status(there, each) for each in (session, bobs, await sign_in(here))] == [401, 200, 200]
        redis.run("FLUSHALL")
        await until(lambda: bool(redis.run("HEXISTS", "gateway:logouts", "ada")))
        async with gateway(ollama, **shared) as later:
            assert await status(later, session) == 401
        assert all(left > 0 for left in redis.keys().values())


async def test_a_planted_cookie_shuts_nobody_out() -> None:
    """A page of a sibling domain can set one of the same name, which browsers then send first."""
    async with gateway(quick(), api_keys=KEYS) as gw:
        async with gw.session.post(gw.url + "/api/session", headers=AS_ADA) as made:
            right = f"{SESSION_COOKIE}={cookie(made).value}"
        for planted in ("x", "0" * 92, ""):
            for cookies in (f"{SESSION_COOKIE}={planted}; {right}", f"{right};{SESSION_COOKIE}={planted}"):
                async with gw.session.get(gw.url + "/api/models", headers={"Cookie": cookies}) as response:
                    assert response.status == 200


async def test_a_session_is_secure_where_the_page_is() -> None:
    """Its origin proves TLS in front, whether or not the proxy is trusted; another origin's TLS proves nothing."""
    async with gateway(quick(), api_keys=KEYS) as gw:
        for origin, secure in (
            ("https://localhost", True),
            ("http://localhost", False),
            ("https://127.0.0.1:9", False),
        ):
            headers = AS_ADA | {"Host": "localhost", "Origin": origin}
            async with gw.session.post(gw.url + "/api/session", headers=headers) as response:
                assert bool(cookie(response)["secure"]) is secure


async def test_a_session_dies_with_its_key() -> None:
    """A session is derived from its key: it is void without it, and valid at any gateway that has the key."""
    async with (
        gateway(quick(), api_keys=KEYS) as gw,
        gw.session.post(gw.url + "/api/session", headers=AS_ADA) as made,
    ):
        headers = {"Cookie": f"{SESSION_COOKIE}={cookie(made).value}"}
    for keys, status in ((f"bob:{BOB}", 401), (f"ada:{ADA}x,bob:{BOB}", 401), (f"countess:{ADA}", 200)):
        async with (
            gateway(quick(), api_keys=keys) as gw,
            gw.session.get(gw.url + "/api/models", headers=headers) as response,
        ):
            assert response.status == status


@pytest.mark.parametrize(
    ("proxies", "proto", "secure"),
    [("127.0.0.1", "https", True), ("127.0.0.1", "http", False), ("", "https", False), ("10.0.0.0/8", "https", False)],
)
async def test_a_session_is_secure_behind_a_trusted_proxy_with_tls(proxies: str, proto: str, secure: bool) -> None:
    """A browser on plain HTTP refuses a secure cookie, so an untrusted claim of TLS must not make it secure."""
    async with gateway(quick(), api_keys=KEYS, trusted_proxies=proxies) as gw:
        headers = AS_ADA | {"X-Forwarded-Proto": proto}
        async with gw.session.post(gw.url + "/api/session", headers=headers) as response:
            assert bool(cookie(response)["secure"]) is secure
            assert ("Cross-Origin-Opener-Policy" in response.headers) is secure


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_a_session_is_of_no_use_to_another_site(origin: str) -> None:
    """If a browser sent the cookie all the same, its Origin would be refused first."""
    async with gateway(quick(), api_keys=KEYS) as gw:
        headers = {"Cookie": f"{SESSION_COOKIE}={gw.state['keys'].session('ada')}", "Origin": origin}
        for method, path in (("GET", "/api/chat?prompt=x"), ("POST", "/api/streams"), ("DELETE", "/api/session")):
            async with gw.session.request(method, gw.url + path, headers=headers) as response:
                assert response.status == 403


# Where keys come from


@pytest.mark.parametrize(
    "keys", ["ada", "ada:short", f"ada:{ADA},bob", f":{ADA}", f"a b:{ADA}", f"ada:{ADA},ada:{BOB}", "ada:" + "é" * 16]
)
def test_wrong_keys_are_refused_without_being_shown(keys: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the keys\n{keys}\n")
    for flag, value in (("api-keys", keys), ("api-keys-file", str(file))):
        with pytest.raises(ConfigurationError, match=f"GATEWAY_{flag.upper().replace('-', '_')}") as raised:
            create_app(load([f"--{flag}={value}"]))
        assert not [secret for secret in ("short", ADA, BOB, "é" * 16) if secret in str(raised.value)]


def test_the_command_ends_over_wrong_keys_and_shows_none(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"ada:{ADA},bob\n")
    for flag in (f"--api-keys=ada:{ADA},bob", f"--api-keys-file={file}"):
        command = [sys.executable, "-m", "gateway", "--port=0", flag]
        environment = {"PYTHONPATH": str(INSTALLED)}
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 2
        assert flag[2:].partition("=")[0].upper().replace("-", "_") in run.stderr
        assert ADA not in run.stdout + run.stderr


@pytest.mark.parametrize("content", ["", "\n\n", "# ada:0123456789abcdef\n", ",,"])
def test_a_key_file_without_keys_does_not_leave_the_gateway_open(content: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match="GATEWAY_API_KEYS_FILE"):
        create_app(settings_of(api_keys_file=str(file)))
    with pytest.raises(ConfigurationError, match="GATEWAY_API_KEYS_FILE"):
        create_app(settings_of(api_keys_file=str(tmp_path / "nowhere")))


def test_keys_of_a_file_count_beside_the_others(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# people\n\n bob:{BOB} \n")
    assert settings_of(api_keys=f"ada:{ADA}", api_keys_file=str(file)).keys() == {"ada": ADA, "bob": BOB}


async def test_a_key_file_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# für alle\njörg:{ADA}\n", "utf-8")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    async with (
        process(tmp_path, "--demo", f"--api-keys-file={file}", **locale) as running,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(running.url + "/api/models", headers=AS_ADA) as response:
            assert response.status == 200
        running.terminate()
        await running.ended()
    assert any("key=jörg" in line for line in running.log)


# What is shown


async def test_no_key_and_no_session_is_ever_shown(tmp_path: Path) -> None:
    """Neither the log at its most verbose nor a metric, an error or a header has them; the log has the key's name."""
    flags = ("--demo", "--log-level=debug", "--log-format=json", f"--api-keys={KEYS}", "--hook=hook:shape")
    (tmp_path / "hook.py").write_text("async def shape(request):\n    raise ValueError(request)\n")
    said: list[str] = []
    async with process(tmp_path, *flags) as running, aiohttp.ClientSession() as session:

        async def ask(method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
            async with session.request(method, running.url + path, **options) as response:
                said.append(await response.text())
                said.extend(value for name, value in response.headers.items() if name != "Set-Cookie")
                return response

        made = await ask("POST", "/api/session", headers=AS_ADA)
        secret = cookie(made).value
        by_cookie = {"Cookie": f"{SESSION_COOKIE}={secret}"}
        for headers in (AS_ADA, by_cookie, AS_ADA | by_cookie, {"Authorization": f"Basic {BOB}"}, {"X": BOB}):
            for path in ("chat?prompt=x", "models", "nothing", f"chat?key={BOB}"):
                await ask("GET", f"/api/{path}", headers=headers)
            await ask("GET", "/metrics", headers=headers)
        await ask("POST", "/api/chat", headers=AS_ADA, data=b"{")
        await ask("GET", "/api/chat?prompt=x", headers=AS_ADA | {"Host": "evil.example"})
        as_event_source = AS_ADA | {"Accept": "text/event-stream"}
        async with session.get(running.url + "/api/chat?prompt=x", headers=as_event_source) as stream:
            ending([event async for event in Events(stream)])
        running.terminate()
        await running.ended()
    everything = "\n".join([*running.log, *said])
    for hidden in (ADA, BOB, secret):
        assert hidden not in everything
    lines = [orjson.loads(line) for line in running.log]
    requests = [line for line in lines if line["message"] == "request"]
    assert {line.get("key") for line in requests} == {None, "ada"}
    assert all(line.get("key") != "ada" or line["status"] != 401 for line in requests)


@pytest.mark.parametrize("flag", ["--help", "--no-such-flag", "--port=none", "--max-active=0"])
def test_help_and_errors_show_no_key(
    flag: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_API_KEYS", KEYS)
    with suppress(SystemExit):
        main([flag])
    shown = "".join(capfd.readouterr())
    assert shown
    assert ADA not in shown
