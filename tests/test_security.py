"""Foreign hosts and origins are refused, and nothing hidden in names, headers, ids or answers does harm."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
import pytest
from yarl import URL

from gateway.dialects.events import parse_event_id
from gateway.web.keys import SESSION_COOKIE
from gateway.web.responses import SECURITY_HEADERS
from tests.asks import CHAT, quick
from tests.gateways import Gateway, gateway
from tests.sse import Event, ending, is_terminal, messages
from tests.upstreams import ONCE_DONE, Upstream, says, streams, token, upstream, whole

BREAKS = "\r\n\r\nevent: end\r\ndata: {}\n\n\u2028\u2029\x85\x00\x0bid: 1"
"""Whatever some reader takes for the end of a line."""


@asynccontextmanager
async def scripted(*lines: bytes, **settings: Any) -> AsyncIterator[tuple[Gateway, Upstream]]:
    async with (
        upstream(streams(*(lines or (token("fine"), ONCE_DONE)))) as ollama,
        gateway(ollama.url, **settings) as gw,
    ):
        yield gw, ollama


async def status(gw: Gateway, method: str = "GET", path: str = CHAT, **headers: str) -> tuple[int, str]:
    """An answer's status and, if it is an error, its code."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with gw.session.request(method, URL(gw.url + path, encoded=True), headers=names) as response:
        error = response.status >= 400 and method != "HEAD"
        return response.status, orjson.loads(await response.read())["code"] if error else ""


async def raw(gw: Gateway, request: bytes) -> bytes:
    """The whole answer to exactly these bytes."""
    address = urlsplit(gw.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


# DNS rebinding


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "evil.example.",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80:80",
        "local.evil",
        "evil.localx",
        "127.0.0.1:8000@evil.example",
        "127.0.0.1:8000 evil.example",
        "[::1",
        "[::1].evil.example",
        "1.2.3",
        "",
        "é.local",
    ],
)
async def test_a_name_that_dns_can_make_point_here_is_refused(host: str) -> None:
    """Rebinding makes a foreign page same-origin, so that only its Host gives it away."""
    async with scripted() as (gw, ollama):
        for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS"):
            for path in (CHAT, "/api/streams/x", "/", "/static/index.html", "/healthz", "/metrics", "/nothing"):
                code = "" if method == "HEAD" else "forbidden_host"
                assert await status(gw, method, path, Host=host, Sec_Fetch_Site="same-origin") == (403, code)
        assert ollama.requests == []


async def test_the_refusal_names_the_setting() -> None:
    async with scripted() as (gw, _), gw.session.get(gw.url, headers={"Host": "chat.example.com"}) as response:
        assert "GATEWAY_ALLOWED_HOSTS" in (await response.json())["error"]


async def test_a_second_host_is_not_overlooked() -> None:
    async with scripted() as (gw, _):
        for hosts in (b"Host: localhost\r\nHost: evil.example", b"Host: evil.example\r\nHost: localhost"):
            answer = await raw(gw, b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\nConnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:3000",
        "localhost.",
        "127.0.0.1:8000",
        "192.168.1.5",
        "[::1]:8000",
        "[fd00::1]",
        "gateway",
        "my_nas",
        "nas.local",
        "gateway.default.svc.cluster.local",
        "gateway.internal:80",
        "app.localhost",
        "Chat.Example.com",
        "chat.example.com:8443",
    ],
)
async def test_a_name_that_is_local_or_listed_is_answered(host: str) -> None:
    async with scripted(allowed_hosts="CHAT.example.com,other.example") as (gw, _):
        assert await status(gw, path="/healthz", Host=host) == (200, "")


async def test_any_host_can_be_allowed() -> None:
    async with scripted(allowed_hosts="*") as (gw, _):
        assert await status(gw, path="/healthz", Host="evil.example") == (200, "")


# Other sites


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_browser_that_names_no_origin_starts_nothing_for_another_site(site: str) -> None:
    """An image, a link, a prefetch or a form's GET has no Origin."""
    async with scripted() as (gw, ollama):
        for path in (CHAT, "/api/generate?model=m&prompt=x", "/%61pi/chat?model=m&prompt=x", "/api/models"):
            assert await status(gw, path=path, Sec_Fetch_Site=site) == (403, "forbidden_origin")
        assert await status(gw, path="/", Sec_Fetch_Site=site) == (200, "")  # a link to the page
        assert ollama.requests == []


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_the_own_page_and_a_typed_address_are_answered(site: str) -> None:
    async with scripted() as (gw, _):
        assert await status(gw, Sec_Fetch_Site=site) == (200, "")


BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"


@pytest.mark.parametrize(
    ("referer", "expected"),
    [
        (None, 403),
        ("", 403),
        ("http://evil.example/", 403),
        ("http://evil.example/192.168.1.5:8000/", 403),
        ("http://192.168.1.5:8000.evil.example/", 403),
        ("http://192.168.1.5:8000", 200),
        ("http://192.168.1.5:8000/my/frontend?a=http://evil.example", 200),
        ("http://localhost:3000/", 200),
    ],
)
async def test_on_plain_http_a_browser_must_tell_its_page(referer: str | None, expected: int) -> None:
    """There it sends no Sec-Fetch-Site, and another site's page can hide its Referer: so none is refused, too."""
    lan = {"Host": "192.168.1.5:8000", "User_Agent": BROWSER}
    if referer is not None:
        lan["Referer"] = referer
    async with scripted() as (gw, ollama):
        for path in (CHAT, "/api/generate?model=m&prompt=x"):
            assert (await status(gw, path=path, **lan))[0] == expected
        assert bool(ollama.requests) is (expected == 200)
        for path in ("/", "/api/presets", "/healthz"):
            assert (await status(gw, path=path, **lan))[1] != "forbidden_origin"  # these paths start nothing
        assert await status(gw, Host="192.168.1.5:8000", User_Agent="curl/8.5.0") == (200, "")


async def test_listed_origins_are_compared_as_browsers_write_them() -> None:
    async with (
        scripted(cors_origins="https://Chat.Example.com") as (gw, _),
        gw.session.get(gw.url + CHAT, headers={"Origin": "https://chat.example.com"}) as response,
    ):
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == "https://chat.example.com"


async def test_any_origin_can_be_allowed() -> None:
    async with (
        scripted(cors_origins="*") as (gw, _),
        gw.session.get(gw.url + CHAT, headers={"Origin": "https://any.example", "Cookie": "a=b"}) as response,
    ):
        assert response.headers["Access-Control-Allow-Origin"] == "https://any.example"


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,last-event-id",
}


async def test_a_preflight_allows_what_clients_need_and_starts_nothing() -> None:
    async with scripted(api_keys="ada:0123456789abcdef") as (gw, ollama):  # no preflight can send a key
        for path in (CHAT, "/api/streams", "/api/streams/x"):
            for method in ("GET", "POST", "DELETE"):
                headers = PREFLIGHT | {"Origin": "http://localhost:3000", "Access-Control-Request-Method": method}
                async with gw.session.options(gw.url + path, headers=headers) as response:
                    assert response.status == 200
                    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
                    assert response.headers["Access-Control-Allow-Credentials"] == "true"
                    assert method in response.headers["Access-Control-Allow-Methods"]
                    allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
                    assert {"authorization", "content-type", "last-event-id"} <= set(allowed)
        assert ollama.requests == []


async def test_a_foreign_preflight_is_allowed_nothing() -> None:
    async with (
        scripted() as (gw, _),
        gw.session.options(gw.url + CHAT, headers=PREFLIGHT | {"Origin": "https://evil.example"}) as response,
    ):
        assert response.status == 403
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


# Response headers


async def test_everything_has_the_security_headers() -> None:
    key = {"Authorization": "Bearer 0123456789abcdef"}
    async with scripted(api_keys="ada:0123456789abcdef", max_head_bytes=10_000) as (gw, _):
        sid = await start(gw, key)
        async with gw.session.get(gw.url + "/static/js/main.js") as response:
            etag = response.headers["ETag"]
        seen = set()
        for method, path, headers in (
            ("GET", "/", {}),
            ("GET", "/static/js/main.js", {}),
            ("GET", "/static/js/main.js", {"If-None-Match": etag}),
            ("GET", "/static/nothing", {}),
            ("GET", "/static/index.html", {"Range": "bytes=0-9"}),
            ("GET", "/openapi.json", {}),
            ("GET", "/healthz", {}),
            ("GET", "/readyz", {}),
            ("GET", "/metrics", key),
            ("POST", "/api/session", key),
            ("DELETE", "/api/session", {}),
            ("GET", CHAT, key),
            ("HEAD", CHAT, key),
            ("GET", CHAT, {}),
            ("GET", "/api/chat", key),
            ("GET", "/api/chat", key | {"Accept": "text/event-stream"}),
            ("GET", f"/api/streams/{sid}", {}),
            ("DELETE", f"/api/streams/{sid}", {}),
            ("POST", "/api/chat?x=1", key),
            ("PUT", "/api/chat", key),
            ("GET", "/nothing", key),
            ("GET", "/", {"Origin": "https://evil.example"}),
            ("GET", "/", {"Host": "evil.example"}),
            ("GET", "/", {"X": "x" * 10_000}),
            ("OPTIONS", CHAT, PREFLIGHT | {"Origin": "http://localhost"}),
        ):
            async with gw.session.request(method, gw.url + path, headers=headers, allow_redirects=False) as response:
                seen.add(response.status)
                for name, value in SECURITY_HEADERS.items():
                    if name == "Cache-Control":
                        assert response.headers[name] in (value, "no-cache", "no-store, no-transform")
                    else:
                        assert response.headers.getall(name) == [value], (method, path)
        assert seen == {200, 204, 206, 304, 401, 403, 404, 405, 422, 431, 503}


async def start(gw: Gateway, headers: dict[str, str]) -> str:
    async with gw.session.post(gw.url + "/api/streams", json={"chat": {"model": "m"}}, headers=headers) as response:
        return str((await response.json())["id"])


# Injection


async def read_strictly(gw: Gateway, path: str, body: object = None) -> list[Event]:
    """Read a stream by the strict reader, which objects to every byte that is out of place."""
    return await gw.read(path, json=body, headers={"Accept": "text/event-stream"})


@pytest.mark.parametrize("route", ["chat", "generate"])
async def test_what_a_client_says_forges_no_event(route: str) -> None:
    """The model's name comes back in events, and the prompt does when a model repeats it."""
    echo = orjson.dumps({"model": BREAKS, "message": {"content": BREAKS}, "response": BREAKS, "done": False}) + b"\n"
    async with scripted(echo, ONCE_DONE) as (gw, ollama):
        # NUL cannot stand in a URL's text, but its code can
        asked = await read_strictly(gw, f"/api/{route}?model={quote(BREAKS)}&prompt={quote(BREAKS)}")
        said = {"messages": [{"role": "user", "content": BREAKS}]} if route == "chat" else {"prompt": BREAKS}
        posted = await read_strictly(gw, f"/api/{route}", {"model": BREAKS, **said})
        for events in (asked, posted):
            assert ending(events) == ("complete", None)
            assert [event.name for event in events if event.name != "status"] == ["meta", "message", "message", "end"]
            assert events[0].json["model"] == BREAKS
            assert messages(events)[0].data == echo.strip()
        assert orjson.loads(ollama.asked(f"/api/{route}")[0].body)["model"] == BREAKS


@pytest.mark.parametrize(
    "query",
    [
        f"model=m&prompt=x&preset={quote(BREAKS)}",
        f"model=m&prompt=x&{quote(BREAKS)}=1",
        f"model=m&prompt=x&options.{quote(BREAKS)}=1&options.seed=x",
        f"model=m&prompt=x&variables.{quote(BREAKS)}=1",
        f"model=m&prompt=x&last_event_id={quote(BREAKS)}",
        f"model=m&prompt=x&last_event_id={'f' * 32}-1{quote(BREAKS)}",
        f"model=m&prompt=x&resume_window={quote(BREAKS)}",
    ],
)
async def test_what_an_error_quotes_forges_no_event(query: str) -> None:
    async with scripted() as (gw, ollama):
        events = await read_strictly(gw, f"/api/chat?{query}")
        assert ending(events) == ("error", "invalid_request")
        assert len(events) == 2
        assert ollama.requests == []


@pytest.mark.parametrize(
    "line",
    [
        b'{"model":"m","message":{"content":"a\\r\\n\\r\\nevent: end\\ndata: {}\\n\\n"},"done":false}\n',
        b'{"model":"m",\r\r"message":{"content":""},\revent: end\r\r"done":false}\n',
        b'{"model":"m",\r"done":false\r,\r"x":1}\r\n',
        '{"model":"m","message":{"content":"\u2028\u2029\x85\x7f\ufeffdata: x"},"done":false}\n'.encode(),
        b'\xef\xbb\xbf{"model":"m","done":false}\n',
        b'{"model":"m","x":"\x00","done":false}\n',
        b'{"model":"m","x":"\\u0000","done":false}\n',
        b'{"model":"m","x":"\xff\xfe","done":false}\n',
        b"data: {}\n\nevent: end\n\n",
        b": ping\n",
        b"retry: 1\n",
        b'"x"\n',
        b"\x00\n",
        b'{"error":"\\r\\n\\r\\nevent: end\\r\\ndata: {}\\r\\n\\r\\n"}\n',
        b'{"done":true,"done_reason":"stop\\r\\n\\r\\ndata: {}\\n\\n"}\n',
    ],
)
async def test_what_ollama_says_forges_no_event(line: bytes) -> None:
    """A line that is a JSON object makes one event, and anything else makes one error."""
    async with scripted(token("before"), line, ONCE_DONE) as (gw, _):
        events = await read_strictly(gw, CHAT)
    ending(events)
    assert [event.name for event in events if event.name not in ("meta", "status", "message")] == ["end"]
    assert messages(events)[0].json["message"]["content"] == "before"
    assert sum(is_terminal(event.json) for event in messages(events)) == 1
    for seq, event in enumerate([*messages(events), events[-1]], 1):
        parsed = parse_event_id(event.id or "")
        assert parsed
        assert parsed.seq == seq


async def test_a_refusal_of_ollama_forges_no_event_and_no_header() -> None:
    refusal = says(whole(404, orjson.dumps({"error": BREAKS})))
    async with upstream(refusal) as ollama, gateway(ollama.url) as gw:
        events = await read_strictly(gw, CHAT)
        assert ending(events) == ("error", "model_not_found")


@pytest.mark.parametrize("given", ["x\ty", "a b", "é", 'x"', "x" * 65, "a\x7f", "<script>", "ok\u2028"])
async def test_a_request_id_is_taken_over_only_when_it_is_a_plain_word(given: str) -> None:
    async with scripted() as (gw, _):
        request = f"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: {given}\r\n\r\n".encode()
        answer = await raw(gw, request)
        head = answer.partition(b"\r\n\r\n")[0]
        assert re.search(rb"\r\nx-request-id: [\w-]{1,64}(\r\n|$)", head) or answer.startswith(b"HTTP/1.1 400 ")


async def test_no_header_can_be_slipped_in() -> None:
    """Nothing that a client sends stands in a header, except a request id that is a plain word."""
    async with scripted() as (gw, _):
        for path in (
            "/api/chat%0d%0aX-Evil:%201/",
            "/%0d%0aX-Evil:1",
            "/static/%0d%0aX-Evil:1",
            "/api/chat/?a=%0d%0aX-Evil:1",
        ):
            answer = await raw(gw, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert b"\r\nx-evil" not in answer.lower()


@pytest.mark.parametrize(
    "path",
    [
        "../gateway/app.py",
        "%2e%2e/gateway/app.py",
        "..%2fgateway/app.py",
        "..%5cgateway%5capp.py",
        "js/../../gateway/app.py",
        "js/..%2f..%2fpyproject.toml",
        "....//gateway/app.py",
        "/etc/passwd",
        "//etc/passwd",
        "%2fetc/passwd",
        "%00",
        "index.html%00",
        "js/main.js/..",
        ".",
        "",
        "js",
        "a" * 5000,
        "%ff%fe",
        "%c0%ae%c0%ae/gateway/app.py",
    ],
)
async def test_no_path_leads_out_of_the_static_files(path: str) -> None:
    async with scripted() as (gw, _):
        answer = await raw(gw, f"GET /static/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404 ")


# What costs much to refuse


HUGE = 120_000


@pytest.mark.parametrize(
    "cookie",
    [
        f'{SESSION_COOKIE}="' + "\\" * HUGE + '"',
        "a=b; " * (HUGE // 5),
        "; " * (HUGE // 2),
        f"{SESSION_COOKIE}=" + "f" * HUGE,
        f"{SESSION_COOKIE}=0; " * (HUGE // 20),
        ";" + " " * HUGE,
        "{}[]\x80,,,=" * (HUGE // 20),
    ],
)
@pytest.mark.timeout(20)
async def test_no_cookie_holds_the_loop(cookie: str) -> None:
    """The standard library's parser took half a minute for the first."""
    async with scripted(api_keys="ada:0123456789abcdef") as (gw, _):
        assert await status(gw, Cookie=cookie) == (401, "unauthorized")


# Limits of one request

PICTURE = "iVBORw0KGgo="


@pytest.mark.parametrize(
    ("setting", "limit", "route", "fits", "is_more"),
    [
        ("max_messages", 2, "chat", {"messages": [{"role": "user"}] * 2}, {"messages": [{"role": "user"}] * 3}),
        (
            "max_images",
            2,
            "chat",
            {"messages": [{"role": "user", "images": [PICTURE]}] * 2},
            {"messages": [{"role": "user", "images": [PICTURE] * 2}, {"role": "user", "images": [PICTURE]}]},
        ),
        ("max_images", 1, "generate", {"images": [PICTURE]}, {"images": [PICTURE] * 2}),
        ("max_prompt_chars", 4, "generate", {"prompt": "äöü", "system": "ß"}, {"prompt": "äöü", "system": "ss"}),
        (
            "max_prompt_chars",
            4,
            "chat",
            {"messages": [{"role": "user", "content": "ab"}, {"role": "user", "content": "cd"}]},
            {"messages": [{"role": "user", "content": "abc"}, {"role": "user", "thinking": "cd"}]},
        ),
    ],
)
async def test_limits_of_a_request(
    setting: str, limit: int, route: str, fits: dict[str, Any], is_more: dict[str, Any]
) -> None:
    """A request at a limit passes; one more is refused by an error that names the setting."""
    async with scripted(**{setting: limit}) as (gw, ollama):
        assert ending(await gw.read(f"/api/{route}", json={"model": "m"} | fits)) == ("complete", None)
        seen = len(ollama.asked(f"/api/{route}"))
        is_more |= {"model": "m"}
        for path, body in ((f"/api/{route}", is_more), ("/api/streams", {route: is_more})):
            async with gw.session.post(gw.url + path, json=body) as response:
                error = await response.json()
                assert (response.status, error["code"]) == (413, "too_large")
                assert f"GATEWAY_{setting.upper()}" in error["error"]
        assert len(ollama.asked(f"/api/{route}")) == seen


async def test_limits_hold_for_what_event_source_asks() -> None:
    async with scripted(max_prompt_chars=4) as (gw, _):
        assert ending(await gw.read("/api/chat?model=m&prompt=abc&system=d")) == ("complete", None)
        events = await gw.read("/api/chat?model=m&prompt=abc&system=de", headers={"Accept": "text/event-stream"})
        assert ending(events) == ("error", "too_large")


async def test_a_simulated_conversation_is_far_below_every_limit() -> None:
    """People never come near the default limits."""
    async with gateway(quick()) as gw:
        turn = [{"role": "user", "content": "word " * 500}, {"role": "assistant", "content": "word " * 500}]
        body = {
            "model": "gemma3",
            "messages": [*turn * 100, {"role": "user", "content": "Hi", "images": [PICTURE] * 8}],
        }
        assert ending(await gw.read("/api/chat", json=body)) == ("complete", None)


# The threat model

TESTS = Path(__file__).parent
THREATS = [
    line for line in (TESTS.parent / "docs/security.md").read_text().splitlines() if re.match(r"\| [^|]+ \| .*::", line)
]


def test_the_threat_model_is_found() -> None:
    assert len(THREATS) > 30


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row[2:50])
def test_every_threat_has_its_test(row: str) -> None:
    who, tries, stops, shown = [cell.strip() for cell in row.strip("|").split("|")]
    assert all([who, tries, stops])
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", shown)
    assert "".join(f"`{file}::{test}`" for file, test in named) == shown.replace(" ", "")
    for file, test in named:
        assert f"def {test}(" in (TESTS / file).read_text(), test
