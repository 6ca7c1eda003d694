"""With keys set, nobody without one asks anything; and no key is ever shown."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import orjson
import pytest
from starlette.datastructures import Headers
from starlette.routing import Mount, Route

from gateway.app import ROUTES, create_app
from gateway.demo import Simulator
from gateway.events import new_sid
from gateway.security import SESSION_COOKIE, Keys
from gateway.server import config
from gateway.settings import ConfigurationError, Settings
from tests.gateways import Gateway, gateway
from tests.processes import INSTALLED, process
from tests.servers import serve
from tests.sse import Events, ending
from tests.upstreams import Upstream, silence, upstream

ADA, BOB = "ada-0123456789abcdef", "bob-0123456789abcdef"
KEYS = f"ada:{ADA},bob:{BOB}"
AS_ADA = {"Authorization": f"Bearer {ADA}"}
OPEN = {"/", "/static", "/healthz", "/readyz", "/openapi.json", "/client.js", "/client.d.ts", "/api/session"}
"""What a stranger may ask; all else in the route table, also what is added to it later, needs a key."""


def simulator() -> Simulator:
    return Simulator(load_seconds=0, prompt_seconds=0, token_rate=0, pull_seconds=0)


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
    """401 whatever is wrong besides, also for `EventSource`, and with nothing asked of Ollama."""
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
            {"Cookie": f"{SESSION_COOKIE}={'0' * 64}"},
            {"X-Api-Key": ADA},
        ):
            async with gw.session.request(method, gw.url + path, headers=headers, data=b"{") as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"
                if method != "HEAD":
                    assert (await response.json())["code"] == "unauthorized"
        async with gw.session.request(method, f"{gw.url}{path}?key={ADA}&api_key={ADA}") as response:
            assert response.status == 401  # in no URL
        assert ollama.requests == []


@pytest.mark.parametrize(("method", "path"), asks(closed=True))
async def test_every_route_takes_a_key(method: str, path: str) -> None:
    async with gateway(simulator(), api_keys=KEYS) as gw:
        for key in (ADA, BOB):
            headers = {"Authorization": f"bearer  {key}"}
            async with gw.session.request(method, gw.url + path, headers=headers, data=b"{}") as response:
                assert response.status != 401


@pytest.mark.parametrize(("method", "path"), asks(closed=False))
async def test_what_the_page_needs_to_ask_for_the_key_is_open(method: str, path: str) -> None:
    async with (
        gateway(simulator(), api_keys=KEYS) as gw,
        gw.session.request(method, gw.url + path) as response,
    ):
        wanted = {"GET": 200, "HEAD": 200, "DELETE": 204, "POST": 401}  # the one POST is that of a key
        assert response.status == wanted[method]


async def test_without_keys_nobody_needs_one() -> None:
    async with gateway(simulator()) as gw:
        assert ending(await gw.read("/api/chat?prompt=x")) == ("complete", None)
        async with gw.session.post(gw.url + "/api/session") as response:
            assert response.status == 204
            assert "Set-Cookie" not in response.headers


async def test_readiness_gives_its_reason_to_key_holders_only(closed_port: str) -> None:
    """The reason tells of what is behind the gateway."""
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
    """`EventSource` can send no key: the id is one, for this stream only."""
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
    """The same answer to each, byte for byte, as to an unknown path: there is nothing to probe."""
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
    async with gateway(simulator(), api_keys=KEYS, retain_seconds=0, allow_pull=True) as gw:
        async with gw.session.post(gw.url + "/api/streams", json={"pull": {"model": "x"}}, headers=AS_ADA) as made:
            url = (await made.json())["url"]
        ending(await gw.read(url))
        while gw.state["streams"].held:
            async with gw.session.get(gw.url + "/healthz"):
                pass
        async with gw.session.get(gw.url + url) as response:
            assert response.status == 401


def test_ids_cannot_be_guessed() -> None:
    """128 bits of the system's own generator, and never the same."""
    sids = {new_sid() for _ in range(10_000)}
    assert len(sids) == 10_000
    assert all(re.fullmatch(r"[0-9a-f]{32}", sid) for sid in sids)
    ones = sum(int(sid, 16).bit_count() for sid in sids)
    assert abs(ones / (10_000 * 128) - 0.5) < 0.005  # eleven standard deviations


# Timing


def test_the_work_is_the_same_whichever_key_is_right() -> None:
    """No clock is precise enough to show it in a test. What is called is: a comparison in constant time for each
    key, also after the right one, of digests, whose length tells nothing."""
    keys = Keys({"ada": ADA, "bob": BOB, "eve": "e" * 90})
    session = keys.session("bob")
    called: list[str] = []

    def watch(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            called.append(function.__name__)

    works: dict[str, set[tuple[str, ...]]] = {}
    for header, value, name in (
        ("Authorization", f"Bearer {ADA}", "ada"),
        ("Authorization", f"Bearer {BOB}", "bob"),
        ("Authorization", "Bearer " + "e" * 90, "eve"),
        ("Authorization", "Bearer x", None),
        ("Authorization", "Bearer ", None),
        ("Cookie", f"{SESSION_COOKIE}={session}", "bob"),
        ("Cookie", f"{SESSION_COOKIE}=0", None),
    ):
        headers = Headers({header: value})
        called.clear()
        sys.setprofile(watch)
        found = keys.holder(headers)
        sys.setprofile(None)
        assert found == name
        assert called.count("compare_digest") == 3, called
        assert called.count("digest") == 1
        works.setdefault(header, set()).add(tuple(called))
    assert [len(calls) for calls in works.values()] == [1, 1]


# Sessions


def cookie(response: aiohttp.ClientResponse) -> "Morsel[str]":
    return SimpleCookie(response.headers["Set-Cookie"])[SESSION_COOKIE]


def settings_of(**values: Any) -> Settings:
    return Settings(**values)


@asynccontextmanager
async def as_served(**values: Any) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """With uvicorn as the command line configures it, trusted proxies included."""
    settings = await asyncio.to_thread(settings_of, **values)  # it reads files
    made = config(
        create_app(settings),
        max_url_bytes=settings.max_url_bytes,
        max_head_bytes=settings.max_head_bytes,
        request_timeout=settings.request_timeout,
        trusted_proxies=settings.trusted_proxies,
    )
    options = {"http": made.http, "proxy_headers": made.proxy_headers, "forwarded_allow_ips": made.forwarded_allow_ips}
    async with (
        serve(made.app, lifespan="on", ws="none", **options) as url,  # type: ignore[arg-type]
        aiohttp.ClientSession() as session,
    ):
        yield url, session


async def test_a_session_stands_for_the_key() -> None:
    async with gateway(simulator(), api_keys=KEYS) as gw:
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
        # neither is the key, nor does a wrong key hide behind it
        wrong = {"Authorization": "Bearer " + "x" * 16, "Cookie": f"{SESSION_COOKIE}={morsel.value}"}
        for headers in ({"Authorization": f"Bearer {morsel.value}"}, wrong):
            async with gw.session.post(gw.url + "/api/session", headers=headers) as response:
                assert response.status == 401


async def test_a_session_can_be_forgotten() -> None:
    async with (
        gateway(simulator(), api_keys=KEYS) as gw,
        gw.session.delete(gw.url + "/api/session") as response,
    ):
        assert (cookie(response).value, cookie(response)["max-age"]) == ("", "0")


async def test_a_session_dies_with_its_key() -> None:
    """It needs no list of sessions: what it is made of is gone. Another gateway with the key knows it."""
    async with (
        gateway(simulator(), api_keys=KEYS) as gw,
        gw.session.post(gw.url + "/api/session", headers=AS_ADA) as made,
    ):
        headers = {"Cookie": f"{SESSION_COOKIE}={cookie(made).value}"}
    for keys, status in ((f"bob:{BOB}", 401), (f"ada:{ADA}x,bob:{BOB}", 401), (f"countess:{ADA}", 200)):
        async with (
            gateway(simulator(), api_keys=keys) as gw,
            gw.session.get(gw.url + "/api/models", headers=headers) as response,
        ):
            assert response.status == status


@pytest.mark.parametrize(
    ("proxies", "proto", "secure"),
    [("127.0.0.1", "https", True), ("127.0.0.1", "http", False), ("", "https", False), ("10.0.0.0/8", "https", False)],
)
async def test_a_session_is_secure_behind_a_trusted_proxy_with_tls(proxies: str, proto: str, secure: bool) -> None:
    """The cookie would be refused by a browser on plain HTTP, so an untrusted word of TLS must not make it secure."""
    async with as_served(api_keys=KEYS, trusted_proxies=proxies) as (url, session):
        headers = AS_ADA | {"X-Forwarded-Proto": proto}
        async with session.post(url + "/api/session", headers=headers) as response:
            assert bool(cookie(response)["secure"]) is secure
            assert ("Cross-Origin-Opener-Policy" in response.headers) is secure


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_a_session_is_of_no_use_to_another_site(origin: str) -> None:
    """Should a browser send the cookie after all, the Origin is refused before it is looked at."""
    async with gateway(simulator(), api_keys=KEYS) as gw:
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
        run = command(tmp_path, "--port=0", f"--{flag}={value}")
        assert run.returncode == 2
        assert f"GATEWAY_{flag.upper().replace('-', '_')}" in run.stderr
        assert not [secret for secret in ("short", ADA, BOB, "é" * 16) if secret in run.stdout + run.stderr]


def command(directory: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *flags],
        cwd=directory,
        env={"PYTHONPATH": str(INSTALLED), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


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


# What is shown


async def test_no_key_and_no_session_is_ever_shown(tmp_path: Path) -> None:
    """Not in the log at its most talkative, a metric, an error or a header; the log names the key instead."""
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


def test_help_and_errors_show_no_key(tmp_path: Path) -> None:
    for flag in ("--help", "--no-such-flag", "--port=none", "--max-active=0"):
        run = command(tmp_path, flag, GATEWAY_API_KEYS=KEYS)
        assert run.stdout + run.stderr
        assert ADA not in run.stdout + run.stderr
