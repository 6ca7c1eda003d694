"""Requests for something wrong get an error that names it, Ollama never sees them, and the process lives on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from gateway.demo import Simulator
from tests.asks import CHAT
from tests.gateways import Gateway, gateway
from tests.sse import ending, messages
from tests.upstreams import ONCE_DONE, Upstream, says, streams, token, upstream, whole

EVENTS = {"Accept": "text/event-stream"}
ROUTES = ["/api/chat", "/api/generate"]
ANSWER = streams(token("fine"), ONCE_DONE)


@asynccontextmanager
async def surviving(**settings: object) -> AsyncIterator[tuple[Gateway, Upstream]]:
    """A gateway in front of a scripted Ollama, which must still answer at the end."""
    async with upstream(ANSWER) as ollama, gateway(ollama.url, **settings) as gw:
        yield gw, ollama
        assert ending(await gw.read(CHAT)) == ("complete", None)


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
    """curl gets a real status; `EventSource`, which can read only a 200, gets a terminal event and then a 204."""
    async with surviving() as (gw, ollama):
        url = URL(f"{gw.url}{route}?model=m&{query}", encoded=True)
        async with gw.session.get(url) as response:
            error = await response.json()
            assert response.status == 422
        assert error.pop("error").startswith(BAD_QUERIES[query])
        assert error == {"code": "invalid_request", "status": 422, "phase": "request", "retryable": False}
        assert await refused_like_event_source(gw, url) == "invalid_request"
        assert ollama.requests == []


async def refused_like_event_source(gw: Gateway, url: URL, **headers: str) -> str | None:
    """The code that an `EventSource` gets, after checking that its reconnect is told to stop."""
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
            assert error["error"].startswith("model: is missing, and Ollama has no model installed")
        assert await refused_like_event_source(gw, URL(f"{gw.url}{route}?prompt=x")) == "invalid_request"
        assert ollama.asked(route) == []


async def test_no_model_and_no_ollama() -> None:
    """Ollama must first be asked for a model, so an Ollama that is down is the error."""
    async with gateway("http://127.0.0.1:9") as gw, gw.session.get(f"{gw.url}/api/chat?prompt=x") as response:
        assert (response.status, (await response.json())["code"]) == (502, "ollama_unreachable")


@pytest.mark.parametrize(
    "tags",
    [b'{"models":[1]}', b'{"models":{"a":1}}', b'{"models":[{}]}', b'{"models":[{"name":1}]}', b"[]", b"no", b"\xff"],
)
@pytest.mark.parametrize("path", ["/api/chat?prompt=x", "/api/models"])
async def test_model_list_of_another_server(tags: bytes, path: str) -> None:
    """Whatever answers in Ollama's place is reported as `bad_upstream` and crashes nothing."""
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
    b"\xef\xbb\xbf{}": "The body is not valid JSON",
    b'{"prompt":"\xff"': "The body is not valid JSON",
    b'{"prompt":"\\ud800",}': "The body is not valid JSON",
    b'{"prompt":"\\ud800\0"}': "The body is not valid JSON",
    b'{"options":{"temperature":1e999}}': "The body is not valid JSON",
    b'{"options":{"temperature":NaN}}': "The body is not valid JSON",
    b"[" * 50_000: "The body is not valid JSON",
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
    async with surviving() as (gw, ollama):
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
    async with surviving() as (gw, ollama):
        async with gw.session.post(gw.url + route, json=body) as response:
            error = await response.json()
            assert (response.status, error["code"]) == (422, "invalid_request")
            assert error["error"].startswith(field)
        assert ollama.requests == []


async def test_nesting_is_bounded() -> None:
    """JSON that is too deep to be written again is refused on arrival, and does not fail on its way to Ollama."""
    deep = b'{"model":"m","messages":[],"x":' + b'{"a":' * 300 + b"1" + b"}" * 301
    async with surviving() as (gw, ollama):
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
    """A request with nothing to answer loads the model, and Ollama answers with one JSON object without an LF."""
    async with gateway(Simulator(load_seconds=0)) as gw:
        events = await gw.read(route, json=body)
        assert ending(events) == ("complete", None)
        assert messages(events)[-1].json["done_reason"] == "load"


MALFORMED_IDS = [
    "x",
    "0",
    "-",
    "-1",
    "%s",
    "%s-",
    "%s-00",
    "%s-01",
    "%s--1",
    "%s-1.0",
    "%s-99999999999999999999",
    "%s-1 2",
]
MALFORMED_IDS += ["%s-1\u00e9", "x" * 7000, "'; DROP TABLE", "\u20ac-1"]


@pytest.mark.parametrize("template", MALFORMED_IDS, ids=lambda template: template[:20])
async def test_malformed_last_event_id(template: str) -> None:
    """It is an error and starts nothing, because the client meant to resume."""
    last_event_id = template.replace("%s", "0" * 32)
    async with surviving() as (gw, ollama):
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
    """The id of a stream that is not held stops the client; a future id, or another stream's, is an error."""
    async with surviving() as (gw, ollama):
        first, second = [await gw.read("/api/chat?model=m&prompt=x") for _ in range(2)]
        sids = [events[0].json["id"] for events in (first, second)]
        seen = len(ollama.requests)

        async def status(path: str, last_event_id: str) -> int:
            async with gw.session.get(gw.url + path, headers={"Last-Event-ID": last_event_id}) as response:
                return response.status

        chat = "/api/chat?model=m&prompt=x"
        assert await status(chat, "f" * 32 + "-1") == 204  # of another gateway, or no longer retained
        assert await status(f"/api/streams/{'f' * 32}", "f" * 32 + "-1") == 204
        assert await status(chat, f"{sids[0]}-3") == 204  # the end was seen
        assert await status(chat, f"{sids[0]}-4") == 422
        assert await status(chat, f"{sids[0]}-{10**17}") == 422
        assert await status(f"/api/streams/{sids[0]}", f"{sids[1]}-1") == 422
        assert await status(chat, f"{sids[0]}-2") == 200
        assert len(ollama.requests) == seen
