"""Bad input gets its named error, Ollama never sees it, and the process lives on."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from urllib.parse import quote_from_bytes, urlencode

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from yarl import URL

from gateway.demo import Simulator
from gateway.demo.asks import Ask
from tests.gateways import Gateway, gateway
from tests.sse import ending, messages, text
from tests.upstreams import ONCE_DONE, Upstream, says, streams, token, upstream, whole

EVENTS = {"Accept": "text/event-stream"}
ROUTES = ["/api/chat", "/api/generate"]
ANSWER = streams(token("fine"), ONCE_DONE)


@asynccontextmanager
async def in_front_of_scripted(**settings: object) -> AsyncIterator[tuple[Gateway, Upstream]]:
    async with upstream(ANSWER) as ollama, gateway(ollama.url, **settings) as gw:
        yield gw, ollama
        assert ending(await gw.read("/api/chat?model=m&prompt=Hi")) == ("complete", None)  # still alive


BAD_QUERIES = {
    "": "prompt: is missing",
    "prompt=": "prompt: is missing",
    "prompt=%20%0a": "prompt: is missing",
    "prompt=x&prompt=y": "prompt: is given more than once",
    "prompt=x&temperature=1": "temperature: is not a query parameter",
    "prompt=x&stream=false": "stream: is not a query parameter",
    "prompt=x&options=1": "options: is not a query parameter",
    "prompt=x&" + "n" * 200 + "=": "n" * 100 + "…: is not",
    "prompt=x&options.temperature=hot": "options.temperature: must be a number",
    "prompt=x&options.temperature=": "options.temperature: must be a number",
    "prompt=x&options.num_ctx=true": "options.num_ctx: must be a number",
    "prompt=x&options.use_mmap=1": "options.use_mmap: ",
    "prompt=x&options.stop=[1]": "options.stop: must be a list of strings",
    "prompt=x&think=maybe": "think: must be true, false",
    "prompt=x&format=xml": "format: must be",
    "prompt=x&keep_alive=[]": "keep_alive: must be seconds",
    "prompt=x&resume_window=soon": "resume_window: must be a number of seconds",
    "prompt=x&resume_window=-1": "resume_window: must be a number of seconds",
    "prompt=x&resume_window=nan": "resume_window: must be a number of seconds",
    "prompt=x&resume_window=inf": "resume_window: must be a number of seconds",
    "prompt=x&resume_window=": "resume_window: must be a number of seconds",
    "prompt=%ff": "The query is not valid UTF-8",
    "prompt=%ed%a0%80": "The query is not valid UTF-8",
    "prompt=x" + "&a=" * 100: "The query has more than 100 fields",
    "prompt=x&last_event_id=nonsense": "Last-Event-ID: is not",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_bad_query(route: str, query: str) -> None:
    """A real status for curl; for `EventSource`, which sees only a 200, a terminal event, and 204 if it comes back."""
    async with in_front_of_scripted() as (gw, ollama):
        url = URL(f"{gw.url}{route}?model=m&{query}", encoded=True)
        async with gw.session.get(url) as response:
            error = await response.json()
            assert response.status == 422
        assert error.pop("error").startswith(BAD_QUERIES[query])
        assert error == {"code": "invalid_request", "phase": "request", "retryable": False}
        assert await refused_like_event_source(gw, url) == "invalid_request"
        assert ollama.requests == []


async def refused_like_event_source(gw: Gateway, url: URL, **headers: str) -> str | None:
    """The code that an `EventSource` is told, after checking that its reconnect would be its last."""
    events = await gw.read(str(url).removeprefix(gw.url), headers=EVENTS | headers)
    outcome, code = ending(events)
    assert outcome == "error"
    assert len(events) == 2
    assert events[-1].id
    async with gw.session.get(url, headers=EVENTS | {"Last-Event-ID": events[-1].id}) as response:
        assert response.status == 204
    return code


@pytest.mark.parametrize("route", ROUTES)
async def test_no_model_and_none_installed(route: str) -> None:
    async with upstream(ANSWER, tags=says(whole(200, b'{"models":[]}'))) as ollama, gateway(ollama.url) as gw:
        async with gw.session.get(f"{gw.url}{route}?prompt=x") as response:
            error = await response.json()
            assert (response.status, error["code"]) == (422, "invalid_request")
            assert error["error"].startswith("model: is missing, and Ollama has none installed")
        assert await refused_like_event_source(gw, URL(f"{gw.url}{route}?prompt=x")) == "invalid_request"
        assert ollama.asked(route) == []


async def test_no_model_and_no_ollama() -> None:
    """Without a model Ollama must be asked for one first; when it is away, that is the error."""
    async with gateway("http://127.0.0.1:9") as gw, gw.session.get(f"{gw.url}/api/chat?prompt=x") as response:
        assert (response.status, (await response.json())["code"]) == (502, "ollama_unreachable")


@pytest.mark.parametrize(
    "tags",
    [b'{"models":[1]}', b'{"models":{"a":1}}', b'{"models":[{}]}', b'{"models":[{"name":1}]}', b"[]", b"no", b"\xff"],
)
@pytest.mark.parametrize("path", ["/api/chat?prompt=x", "/api/models"])
async def test_model_list_of_another_server(tags: bytes, path: str) -> None:
    """Whatever answers in Ollama's place, it is an error of its own and not a crash of the gateway."""
    async with (
        upstream(ANSWER, tags=says(whole(200, tags))) as ollama,
        gateway(ollama.url) as gw,
        gw.session.get(gw.url + path) as response,
    ):
        assert (response.status, (await response.json())["code"]) == (502, "bad_upstream")


BAD_BODIES = {
    b"": "The body is not valid JSON",
    b"{": "The body is not valid JSON",
    b"model=m": "The body is not valid JSON",
    b'{"prompt":"\xff"}': "The body is not valid JSON",
    b'{"prompt":"\\ud800"}': "The body is not valid JSON",
    b'{"options":{"temperature":1e999}}': "The body is not valid JSON",
    b'{"options":{"temperature":NaN}}': "The body is not valid JSON",
    b"[" * 100_000: "The body is not valid JSON",
    b"[]": "The body must be a JSON object",
    b"null": "The body must be a JSON object",
    b'"x"': "The body must be a JSON object",
    b'{"model":1}': "model: ",
    b'{"model":["m"]}': "model: ",
    b'{"model":"m","options":[]}': "options: ",
    b'{"model":"m","options":{"temperature":"hot"}}': "options.temperature: must be a number",
    b'{"model":"m","options":{"seed":true}}': "options.seed: must be a number",
    b'{"model":"m","options":{"stop":"x"}}': "options.stop: must be a list of strings",
    b'{"model":"m","keep_alive":true}': "keep_alive: must be seconds",
    b'{"model":"m","format":"xml"}': "format: must be",
    b'{"model":"m","think":1}': "think: must be true, false",
    b'{"model":"m","logprobs":1}': "logprobs: ",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: body[:40].decode(errors="replace"))
async def test_bad_body(route: str, body: bytes) -> None:
    async with in_front_of_scripted() as (gw, ollama):
        async with gw.session.post(gw.url + route, data=body) as response:
            error = await response.json()
            assert (response.status, error["code"]) == (422, "invalid_request")
            assert error["error"].startswith(BAD_BODIES[body])
        assert ollama.requests == []


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/api/chat", {"messages": "hi"}, "messages: "),
        ("/api/chat", {"messages": ["hi"]}, "messages.0: "),
        ("/api/chat", {"messages": [{"content": "hi"}]}, "messages.0.role: "),
        ("/api/chat", {"messages": [{"role": "user", "images": "x"}]}, "messages.0.images: "),
        ("/api/chat", {"tools": {}}, "tools: "),
        ("/api/generate", {"prompt": ["hi"]}, "prompt: "),
        ("/api/generate", {"context": "x"}, "context: "),
        ("/api/streams", {}, "The body must have exactly one of chat, generate and pull"),
        ("/api/streams", {"chat": {}, "generate": {}}, "The body must have exactly one of chat, generate and pull"),
        ("/api/streams", {"chat": {"messages": 1}}, "chat.messages: "),
        ("/api/streams", {"chat": {"model": "m"}, "resume_windows": 1}, "resume_windows: "),
        ("/api/streams", {"chat": {"model": "m"}, "resume_window": "1"}, "resume_window"),
        ("/api/streams", {"chat": {"model": "m"}, "resume_window": -1}, "resume_window: "),
        ("/api/streams", {"pull": {}}, "pull.model: "),
        ("/api/chat?prompt=hi", {"model": "m"}, "prompt: is not a query parameter of a POST"),
    ],
)
async def test_field_named(route: str, body: object, field: str) -> None:
    """The message begins with the path of the field at fault."""
    async with in_front_of_scripted() as (gw, ollama):
        async with gw.session.post(gw.url + route, json=body) as response:
            error = await response.json()
            assert (response.status, error["code"]) == (422, "invalid_request")
            assert error["error"].startswith(field)
        assert ollama.requests == []


async def test_nesting_is_bounded() -> None:
    """JSON too deep to be written again: it must be refused when it comes in, not fail when it goes out."""
    deep = b'{"model":"m","messages":[],"x":' + b'{"a":' * 300 + b"1" + b"}" * 301
    async with in_front_of_scripted() as (gw, ollama):
        async with gw.session.post(gw.url + "/api/chat", data=deep) as response:
            assert (response.status, (await response.json())["code"]) == (422, "invalid_request")
        assert ollama.requests == []


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/api/chat", {"model": "llama3.2", "messages": []}),
        ("/api/chat", {"model": "llama3.2"}),
        ("/api/generate", {"model": "llama3.2", "prompt": ""}),
        ("/api/generate", {"model": "llama3.2"}),
    ],
)
async def test_load_passes(route: str, body: object) -> None:
    """Nothing to answer is Ollama's way to load a model, and one JSON object without LF its answer."""
    async with gateway(Simulator(load_seconds=0)) as gw:
        events = await gw.read(route, json=body)
        assert ending(events) == ("complete", None)
        assert messages(events)[-1].json["done_reason"] == "load"


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_limit(chunked: bool) -> None:
    """Counted as it comes when no Content-Length announces it; a body of just the limit is fine."""
    body = b'{"model":"m","prompt":"%b"}' % (b"x" * 975)
    assert len(body) == 1000

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for _ in range(0, size, 100):
            yield b"x" * 100

    async with in_front_of_scripted(max_body_bytes=1000) as (gw, ollama):
        async with gw.session.post(gw.url + "/api/generate", data=body) as response:
            assert b"event: end" in await response.read()
        seen = len(ollama.requests)
        data = pieces(1100) if chunked else BytesIO(body + b" ")
        async with gw.session.post(gw.url + "/api/generate", data=data) as response:
            error = await response.json()
            assert (response.status, error["code"]) == (413, "too_large")
            assert "GATEWAY_MAX_BODY_BYTES" in error["error"]
        assert len(ollama.requests) == seen


async def test_announced_size_is_refused_unread() -> None:
    """Nobody has to send 30 MB to be told that it is too much."""
    async with in_front_of_scripted() as (gw, ollama):
        head = await raw(gw, b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert ollama.requests == []


async def test_whole_large_body_is_answered() -> None:
    """A client that sends all of its 30 MB before it reads gets the 413 too, and no reset connection."""
    async with (
        in_front_of_scripted() as (gw, _),
        gw.session.post(gw.url + "/api/chat", data=BytesIO(b"x" * 2**25)) as response,
    ):
        assert response.status == 413


async def test_base64_images_of_10_mb_pass() -> None:
    image = "A" * 10_000_000
    async with in_front_of_scripted() as (gw, ollama):
        body = {"model": "m", "messages": [{"role": "user", "content": "x", "images": [image]}]}
        async with gw.session.post(gw.url + "/api/chat", data=BytesIO(orjson.dumps(body))) as response:
            assert (await response.read()).count(b"event: end") == 1
        assert orjson.loads(ollama.asked("/api/chat")[0].body) == body
        assert ollama.asked("/api/chat")[0].headers["content-length"] == str(len(ollama.asked("/api/chat")[0].body))


async def raw(gw: Gateway, request: bytes) -> bytes:
    """The head of the answer to these very bytes."""
    url = URL(gw.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(request)
        return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


async def test_query_of_60_kb() -> None:
    prompt = "🦙 long?" * (60_000 // len(b"%F0%9F%A6%99+long%3F"))
    async with in_front_of_scripted() as (gw, ollama):
        query = urlencode({"model": "m", "prompt": prompt})
        assert len(query) > 59_000
        assert text(await gw.read(f"/api/chat?{query}")) == "fine"
        assert orjson.loads(ollama.asked("/api/chat")[0].body)["messages"][0]["content"] == prompt


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /api/chat?model=m&prompt=%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 70_000),
        b"GET /api/chat?model=m&prompt=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/chat?model=m&prompt=x y HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    ],
    ids=["over 64 KB", "raw bytes", "space in the query", "negative length", "two lengths", "TLS"],
)
async def test_malformed_http(request_bytes: bytes) -> None:
    async with in_front_of_scripted() as (gw, ollama):
        assert (await raw(gw, request_bytes)).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 422 "))
        assert ollama.requests == []


async def test_half_a_body_and_gone() -> None:
    """A client that leaves while it sends is not a crash, and nothing runs for it."""
    async with in_front_of_scripted() as (gw, ollama):
        url = URL(gw.url)
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b'POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"model":"m"')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert ending(await gw.read("/api/chat?model=m&prompt=Hi")) == ("complete", None)
        assert len(ollama.asked("/api/chat")) == 1


async def test_head_starts_nothing() -> None:
    """A link preview or a health check by HEAD must not cost GPU time."""
    async with in_front_of_scripted() as (gw, ollama):
        for path in ("/api/chat?model=m&prompt=x", "/api/generate?model=m&prompt=x", "/api/chat"):
            async with gw.session.head(gw.url + path) as response:
                assert response.status == 200
                assert response.headers["Content-Type"] == "text/event-stream"
        assert ollama.requests == []
        assert len(gw.state["streams"]) == 0


async def test_head_stops_nothing() -> None:
    """HEAD on a running stream is no viewer that comes, and so none that leaves."""
    simulator = Simulator(load_seconds=0, prompt_seconds=0, token_rate=200)
    async with gateway(simulator) as gw:
        sid = await gw.start(chat={"model": "llama3.2", "messages": [{"role": "user", "content": "Hi"}]})
        path = f"{gw.url}/api/streams/{sid}"
        for headers in ({}, {"Last-Event-ID": f"{sid}-1"}):
            await simulator.until(lambda: simulator.states["generating"] == 1)
            async with gw.session.head(path, headers=headers) as response:
                assert response.status in (200, 422)  # the first event may not be there yet
        async with gw.session.head(f"{gw.url}/api/streams/{'0' * 32}") as response:
            assert response.status == 404
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/api/chat", {"GET", "HEAD", "POST"}),
        ("DELETE", "/api/generate", {"GET", "HEAD", "POST"}),
        ("GET", "/api/streams", {"POST"}),
        ("PUT", f"/api/streams/{'0' * 32}", {"DELETE", "GET", "HEAD"}),
        ("GET", "/api/session", {"DELETE", "POST"}),
        ("HEAD", "/api/streams", {"POST"}),
        ("POST", "/api/models", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
        ("POST", "/static/index.html", {"GET", "HEAD"}),
    ],
)
async def test_method_not_allowed(method: str, path: str, allow: set[str]) -> None:
    async with in_front_of_scripted() as (gw, ollama):
        async with gw.session.request(method, gw.url + path) as response:
            assert response.status == 405
            assert set(response.headers["Allow"].split(", ")) == allow
            if method != "HEAD":
                assert (await response.json())["code"] == "method_not_allowed"
        assert ollama.requests == []


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/chat/", "/static/nothing", "/api/tags"])
async def test_nothing_here(path: str) -> None:
    """Also Ollama's own paths: the gateway is not a proxy."""
    async with in_front_of_scripted() as (gw, ollama):
        async with gw.session.get(gw.url + path, allow_redirects=False) as response:
            assert (response.status, (await response.json())["code"]) == (404, "not_found")
        assert ollama.requests == []


MALFORMED_IDS = [
    "x",
    "0",
    "-",
    "-1",
    "%s",
    "%s-",
    "%s-0",
    "%s-01",
    "%s--1",
    "%s-1.0",
    "%s-99999999999999999999",
    "%s-1 2",
]
MALFORMED_IDS += ["%s-1\u00e9", "x" * 7000, "'; DROP TABLE", "\u20ac-1"]


@pytest.mark.parametrize("template", MALFORMED_IDS, ids=lambda template: template[:20])
async def test_malformed_last_event_id(template: str) -> None:
    """It is an error and never a fresh start: the client meant to go on with something."""
    last_event_id = template.replace("%s", "0" * 32)
    async with in_front_of_scripted() as (gw, ollama):
        sid = (await gw.read("/api/chat?model=m&prompt=x"))[0].json["id"]
        seen = len(ollama.requests)
        for path in ("/api/chat?model=m&prompt=x", f"/api/streams/{sid}"):
            # EventSource sends UTF-8
            headers = {"Last-Event-ID": last_event_id.encode().decode("utf-8", "surrogateescape")}
            async with gw.session.get(gw.url + path, headers=headers) as response:
                assert (response.status, (await response.json())["code"]) == (422, "invalid_request")
            assert await refused_like_event_source(gw, URL(gw.url + path), **headers) == "invalid_request"
        assert len(ollama.requests) == seen


async def test_foreign_and_forged_last_event_id() -> None:
    """An id of a stream that is not held ends the reader; one from the future, or of another stream, is an error."""
    async with in_front_of_scripted() as (gw, ollama):
        first, second = [await gw.read("/api/chat?model=m&prompt=x") for _ in range(2)]
        sids = [events[0].json["id"] for events in (first, second)]
        seen = len(ollama.requests)

        async def status(path: str, last_event_id: str) -> int:
            async with gw.session.get(gw.url + path, headers={"Last-Event-ID": last_event_id}) as response:
                return response.status

        chat = "/api/chat?model=m&prompt=x"
        assert await status(chat, "f" * 32 + "-1") == 204  # of another gateway, or retained no more
        assert await status(f"/api/streams/{'f' * 32}", "f" * 32 + "-1") == 204
        assert await status(chat, f"{sids[0]}-3") == 204  # the end was seen
        assert await status(chat, f"{sids[0]}-4") == 422
        assert await status(chat, f"{sids[0]}-{10**17}") == 422
        assert await status(f"/api/streams/{sids[0]}", f"{sids[1]}-1") == 422
        assert await status(chat, f"{sids[0]}-2") == 200
        assert len(ollama.requests) == seen


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example:8000",
        "http://localhost:8000.evil.example",
        "null",
        "",
        "file://",
        "http://",
        "http://[::1",
        "http://a]b",
        "127.0.0.1",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
async def test_foreign_origin(origin: str, method: str) -> None:
    """403 whatever the client accepts, since who may not ask is told nothing more; and nothing is started."""
    async with in_front_of_scripted() as (gw, ollama):
        for path in ("/api/chat?model=m&prompt=x", "/api/models", "/"):
            async with gw.session.request(method, gw.url + path, headers=EVENTS | {"Origin": origin}) as response:
                assert response.status == 403
                assert "Access-Control-Allow-Origin" not in response.headers
                if method != "HEAD":
                    assert (await response.json())["code"] == "forbidden_origin"
        assert ollama.requests == []


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080", "https://a.example"]
)
async def test_allowed_origin(origin: str) -> None:
    async with (
        in_front_of_scripted(cors_origins="https://a.example") as (gw, _),
        gw.session.get(f"{gw.url}/api/chat?model=m&prompt=x", headers={"Origin": origin}) as response,
    ):
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == origin


async def test_own_origin_behind_tls() -> None:
    """The page's own origin, whatever name and scheme a proxy has given it."""
    headers = {"Host": "chat.example.com", "Origin": "https://chat.example.com"}
    async with (
        in_front_of_scripted(allowed_hosts="chat.example.com") as (gw, _),
        gw.session.get(f"{gw.url}/api/models", headers=headers) as response,
    ):
        assert response.status == 200


# Fuzzing

WORDS = st.one_of(
    st.sampled_from(
        ["m", "", "true", "1", "-1", "1.5", "json", "{}", "[]", '{"a":1}', "null", "5m", "\x00", "Ünï", "🦙"]
    ),
    st.text(max_size=20),
)
NAMES = st.one_of(
    st.sampled_from(
        ["model", "prompt", "system", "think", "format", "keep_alive", "preset", "resume_window", "last_event_id"]
    ),
    st.sampled_from(
        ["options.temperature", "options.stop", "options.num_ctx", "options.", "variables.a", "variables."]
    ),
    st.text(max_size=8),
)
QUERIES = st.one_of(
    st.lists(st.tuples(NAMES, WORDS), max_size=6).map(urlencode),
    st.lists(st.tuples(NAMES, WORDS), max_size=6).map(
        lambda pairs: urlencode([("prompt", "x"), ("model", "m"), *pairs])
    ),
    st.binary(max_size=50).map(quote_from_bytes),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "suffix",
        "system",
        "template",
        "context",
        "raw",
        "images",
        "format",
        "keep_alive",
        "options",
        "think",
        "truncate",
        "shift",
        "logprobs",
        "top_logprobs",
        "tools",
        "stream",
        "chat",
        "generate",
        "pull",
        "preset",
        "variables",
        "resume_window",
    ]
)
MESSAGES = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "images", "tool_calls", "thinking"]), VALUES, max_size=3),
    max_size=2,
)
BODIES = st.one_of(
    st.binary(max_size=50),
    st.dictionaries(st.one_of(KNOWN, st.text(max_size=5)), st.one_of(VALUES, MESSAGES), max_size=5).map(
        lambda body: json.dumps({"model": "m"} | body).encode("utf-8", "surrogatepass")
    ),
)
FUZZ = hypothesis_settings(
    deadline=None, max_examples=300, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
REFUSALS = {403, 413, 422}


def test_fuzz() -> None:
    """Whatever is asked: never a 500, every stream ends once, and Ollama sees only what it can understand."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        ollama, gw = runner.run(_start(stack))

        @FUZZ
        @given(st.sampled_from(ROUTES), QUERIES, st.sampled_from([{}, EVENTS]))
        def get(route: str, query: str, headers: dict[str, str]) -> None:
            runner.run(_ask(gw, "GET", f"{route}?{query}", headers=headers))

        @FUZZ
        @given(st.sampled_from([*ROUTES, "/api/streams"]), BODIES)
        def post(route: str, body: bytes) -> None:
            runner.run(_ask(gw, "POST", route, data=body))

        @FUZZ
        @given(st.text(st.characters(codec="latin-1", exclude_characters="\x7f", min_codepoint=32), max_size=50))
        def resume(last_event_id: str) -> None:
            runner.run(_ask(gw, "GET", "/api/chat?model=m&prompt=x", headers={"Last-Event-ID": last_event_id.strip()}))

        try:
            get()
            post()
            resume()
            assert len(ollama.requests) > 50
            for request in ollama.requests:
                if request.method == "POST":
                    Ask.parse("chat" if request.path == "/api/chat" else "generate", request.body)
        finally:
            runner.run(stack.aclose())


async def _start(stack: AsyncExitStack) -> tuple[Upstream, Gateway]:
    ollama = await stack.enter_async_context(upstream(ANSWER))
    return ollama, await stack.enter_async_context(gateway(ollama.url, retain_seconds=0))


async def _ask(
    gw: Gateway, method: str, path: str, *, headers: dict[str, str] | None = None, data: bytes | None = None
) -> None:
    url = URL(gw.url + path, encoded=True)
    async with gw.session.request(method, url, headers=headers, data=data) as response:
        body = await response.read()
    if response.status == 200:
        assert body.count(b"event: end\n") == 1
        return
    if response.status not in (201, 204):
        assert response.status in REFUSALS, (response.status, body)
        assert orjson.loads(body).keys() == {"error", "code", "phase", "retryable"}


async def test_errors_carry_the_security_headers() -> None:
    async with in_front_of_scripted() as (gw, _):
        for path, headers in {"/api/chat": {}, "/nothing": {}, "/": {"Origin": "https://evil.example"}}.items():
            async with gw.session.get(gw.url + path, headers=headers) as response:
                assert response.status >= 400
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert "default-src 'self'" in response.headers["Content-Security-Policy"]
