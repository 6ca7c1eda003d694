"""The door for Ollama's own clients: which requests go through it, what holds behind it, and what it never tells."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from gateway.demo import Simulator
from gateway.demo.models import Model
from gateway.hooks import HookRequest, Rejected, texts
from tests.asks import STORY, chat, quick
from tests.gateways import Gateway, gateway
from tests.servers import serve
from tests.sse import ending, messages
from tests.test_cancel import at_rest, settled
from tests.upstreams import (
    JSON,
    NDJSON,
    ONCE_DONE,
    Answer,
    Peer,
    silence,
    streams,
    token,
    upstream,
    whole,
)

ANSWER = streams(token("a"), ONCE_DONE)
LINES = token("a") + ONCE_DONE
EVENTS = "text/event-stream"
HERE = "tests.test_ollama_door"
CHAT = "/ollama/api/chat"
HI = chat("Hi")


@dataclass
class Told:
    """An answer; `headers` have lower-case names."""

    status: int
    type: str
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> str:
        """What Ollama's clients are told; there is nothing else in the body."""
        assert self.type == JSON
        assert self.json.keys() == {"error"}
        return str(self.json["error"])


async def ask(gw: Gateway, path: str, body: Any = None, method: str = "", **headers: str) -> Told:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes | None) else orjson.dumps(body)
    method = method or ("GET" if body is None else "POST")
    async with gw.session.request(method, gw.url + path, data=data, headers=named) as response:
        fields = {name.lower(): value for name, value in response.headers.items()}
        return Told(response.status, fields.get("content-type", ""), await response.read(), fields)


# Which dialect


@pytest.mark.parametrize(
    ("accept", "type_"),
    [
        (None, EVENTS),  # the library sends */*
        ("*/*", EVENTS),
        ("", EVENTS),
        ("text/event-stream", EVENTS),
        ("application/json, text/event-stream", EVENTS),
        ("application/json, text/plain, */*", EVENTS),  # axios
        ("text/html", EVENTS),
        ("application/json", NDJSON),  # ollama-python, ollama-js
        ("application/x-ndjson", NDJSON),  # Ollama's command line
        ("Application/X-NDJSON;q=0.9, text/plain", NDJSON),
    ],
)
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_by_what_is_accepted(path: str, accept: str | None, type_: str) -> None:
    body = {"model": "m", "messages": HI["messages"]} if path == "/api/chat" else {"model": "m", "prompt": "x"}
    headers = {} if accept is None else {"Accept": accept}
    async with upstream(ANSWER) as ollama, gateway(ollama.url) as gw:
        told = await ask(gw, path, body, **headers)
        assert (told.status, told.type) == (200, type_)
        assert (told.body == LINES) is (type_ == NDJSON)
        below = await ask(gw, "/ollama" + path, body, **headers)
        assert (below.status, below.type, below.body) == (200, NDJSON, LINES)
        refused = await ask(gw, path, b"{", **headers)
        assert (refused.status, "code" in refused.json) == ((400, False) if type_ == NDJSON else (422, True))


async def test_what_is_accepted_matters_where_streams_are_read_only() -> None:
    async with gateway(quick()) as gw:
        for path in ("/api/models", "/api/presets", "/healthz"):
            assert (await ask(gw, path, Accept="application/json")).type == "application/json"
        assert "code" in (await ask(gw, "/api/nothing", Accept="application/json")).json


@pytest.mark.parametrize(
    ("query", "accept", "type_"),
    [
        ("", "*/*", EVENTS),
        ("?as=ollama", "*/*", NDJSON),
        ("?as=ollama", EVENTS, NDJSON),
        ("?as=events", "application/x-ndjson", EVENTS),
        ("", "application/x-ndjson", NDJSON),
    ],
)
async def test_each_reader_of_a_stream_has_its_dialect(query: str, accept: str, type_: str) -> None:
    """While it runs and when it is kept; and another reader does not see that it is there."""
    go_on = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.start()
        await peer.lines(token("a"))
        await go_on.wait()
        await peer.lines(ONCE_DONE)
        await peer.end()

    async with upstream(answer) as ollama, gateway(ollama.url) as gw:
        path = f"/api/streams/{await gw.start(chat={'model': 'm', 'messages': HI['messages']})}"
        async with (
            gw.open(path) as events,
            gw.session.get(gw.url + path + query, headers={"Accept": accept}) as response,
        ):
            await events.next()
            assert response.headers["Content-Type"] == type_
            first = await response.content.readany()
            go_on.set()
            rest = await response.content.read()
            assert ending([event async for event in events]) == ("complete", None)
        kept = await ask(gw, path + query, Accept=accept)
        assert kept.type == type_
        if type_ == NDJSON:
            assert first + rest == kept.body == LINES
            assert kept.headers["content-location"] == path
        else:
            assert kept.body.count(b"event: end\n") == 1


async def test_a_stream_is_resumed_after_any_of_its_lines() -> None:
    lines = [token(str(number)) for number in range(50)] + [ONCE_DONE]
    async with upstream(streams(*lines)) as ollama, gateway(ollama.url) as gw:
        sid = await gw.start(chat={"model": "m", "messages": HI["messages"]})
        path = f"/api/streams/{sid}?as=ollama"
        assert (await ask(gw, path)).body == b"".join(lines)
        for seen in (0, 1, 17, 50):
            resumed = await ask(gw, f"{path}&last_event_id={sid}-{seen}")
            assert (resumed.status, resumed.body) == (200, b"".join(lines[seen:]))
            resumed = await ask(gw, path, Last_Event_ID=f"{sid}-{seen}")
            assert resumed.body == b"".join(lines[seen:])
        assert (await ask(gw, path, Last_Event_ID=f"{sid}-51")).body == b""  # all lines have been read
        assert (await ask(gw, path, Last_Event_ID=f"{sid}-52")).status == 204  # and the end
        wrong = await ask(gw, path, Last_Event_ID=f"{sid}-53")
        assert (wrong.status, wrong.error) == (400, "Last-Event-ID: is not the id of an event of this stream.")
        gone = await ask(gw, f"/api/streams/{'f' * 32}?as=ollama")
        assert (gone.status, gone.error) == (404, "There is no such stream, or it is no longer held.")
        unknown = await ask(gw, f"/api/streams/{sid}?as=xml")
        assert (unknown.status, unknown.json["error"]) == (422, "as: must be events or ollama.")


async def test_head_starts_nothing() -> None:
    async with upstream(silence) as ollama, gateway(ollama.url) as gw:
        assert (await ask(gw, CHAT, method="HEAD")).status == 405
        told = await ask(gw, "/ollama/", method="HEAD")
        assert (told.status, told.type) == (200, "text/plain; charset=utf-8")
        told = await ask(gw, "/api/chat?prompt=x", method="HEAD", Accept=NDJSON)
        assert (told.status, told.type) == (200, NDJSON)
        assert ollama.requests == []


# Silence


def after(count: int, gate: asyncio.Event, *rest: bytes, error: bytes = b"") -> Answer:
    """The first `count` lines; when the gate opens, the rest, or a refusal with status 500."""

    async def answer(peer: Peer) -> None:
        if count:
            await peer.start()
            await peer.lines(*rest[:count])
        await gate.wait()
        if error:
            await peer.send(whole(500, error))
            return
        if not count:
            await peer.start()
        await peer.lines(*rest[count:])
        await peer.end()

    return answer


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("stream", [True, False])
async def test_spaces_keep_a_silent_connection_open(stream: bool, count: int) -> None:
    """They come before an object, never within a line or as one, and only where nothing else is sent."""
    gate = asyncio.Event()
    lines = token("a"), token("b"), ONCE_DONE
    async with upstream(after(count, gate, *lines)) as ollama, gateway(ollama.url, ping_interval=0.05) as gw:
        body = orjson.dumps({"model": "m", "messages": HI["messages"], "stream": stream})
        async with gw.session.post(gw.url + CHAT, data=body) as response:
            read = b""
            while read.count(b" ") < 3:
                read += await response.content.readany()
            gate.set()
            read += await response.content.read()
        assert response.headers["Content-Type"] == (NDJSON if stream else JSON)
        if stream:
            assert read.count(b"\n") == 3
            assert b"".join(line.lstrip(b" ") + b"\n" for line in read.splitlines()) == b"".join(lines)
        else:
            assert read.lstrip(b" ").startswith(b"{")
            assert orjson.loads(read)["message"]["content"] == "ab"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_has_its_status_until_a_space_was_sent(stream: bool) -> None:
    gate = asyncio.Event()
    answer = after(0, gate, error=b'{"error":"no memory"}')
    body = {"model": "m", "messages": HI["messages"], "stream": stream}
    async with upstream(answer) as ollama, gateway(ollama.url, ping_interval=0.05) as gw:
        async with gw.session.post(gw.url + CHAT, json=body) as response:
            assert await response.content.readexactly(1) == b" "
            gate.set()
            rest = await response.content.read()
        assert (response.status, rest.lstrip(b" ")) == (200, b'{"error":"no memory"}' + b"\n" * stream)
        told = await ask(gw, CHAT, body)
        assert (told.status, told.error) == (500, "no memory")
        assert "content-location" not in told.headers


async def test_no_space_is_sent_while_lines_come() -> None:
    """They would change an answer that has no pause."""
    sent = [token(str(number)) for number in range(90)]

    async def answer(peer: Peer) -> None:
        await peer.start()
        for line in sent:
            await peer.lines(line)
            await asyncio.sleep(0.02)
        await peer.lines(ONCE_DONE)
        await peer.end()

    async with upstream(answer) as ollama, gateway(ollama.url, ping_interval=1.5) as gw:
        assert (await ask(gw, CHAT, {"model": "m", "messages": HI["messages"]})).body == b"".join(sent) + ONCE_DONE


# Errors


@pytest.mark.parametrize(
    ("path", "method", "status", "error"),
    [
        ("/ollama/nothing", "GET", 404, "There is nothing at this path."),
        ("/ollama/api/nothing", "POST", 404, "There is nothing at this path."),
        ("/ollama/v1/chat/completions", "POST", 404, "There is nothing at this path."),
        ("/ollama/static/index.html", "GET", 404, "There is nothing at this path."),
        (CHAT, "GET", 405, "This path allows POST."),
        ("/ollama/api/tags", "POST", 405, "This path allows GET, HEAD."),
        ("/ollama/api/delete", "DELETE", 403, "The gateway does not manage models: ask Ollama itself."),
        ("/ollama/api/create", "POST", 403, "The gateway does not manage models: ask Ollama itself."),
        ("/ollama/api/copy", "POST", 403, "The gateway does not manage models: ask Ollama itself."),
        ("/ollama/api/push", "POST", 403, "The gateway does not manage models: ask Ollama itself."),
        ("/ollama/api/blobs/sha256:abc", "POST", 403, "The gateway does not manage models: ask Ollama itself."),
        ("/ollama/api/pull", "POST", 403, "Clients may not ask for a pull here (GATEWAY_ALLOW_PULL)."),
    ],
)
async def test_every_refusal_has_ollamas_form(path: str, method: str, status: int, error: str) -> None:
    async with upstream(silence) as ollama, gateway(ollama.url) as gw:
        told = await ask(gw, path, b'{"model":"m"}' if method == "POST" else None, method)
        assert (told.status, told.error) == (status, error)
        assert ("allow" in told.headers) is (status == 405)
        assert ollama.requests == []


async def test_every_refusal_before_a_route_has_ollamas_form() -> None:
    async with upstream(silence) as ollama, gateway(ollama.url, api_keys="ada:" + "k" * 16, max_body_bytes=1000) as gw:
        for path in (CHAT, "/ollama/nothing"):
            refused = await ask(gw, path, HI)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert refused.error.startswith("This gateway requires an API key")
            refused = await ask(gw, path, HI, Origin="https://evil.example")
            assert (refused.status, refused.error[:27]) == (403, "Pages of this origin may no")
            refused = await ask(gw, path, HI, Host="evil.example")
            assert (refused.status, refused.error[:27]) == (403, "The gateway does not answer")
        large = await ask(gw, CHAT, b" " * 1001, Authorization="Bearer " + "k" * 16)
        assert (large.status, large.error[:29]) == (413, "The request body is larger th")
        assert ollama.requests == []


@pytest.mark.parametrize("path", [CHAT, "/ollama/api/generate", "/ollama/api/embed", "/ollama/api/embeddings"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model":5}', b'{"model":"m","options":[]}', b"\xff"])
async def test_malformed_bodies_are_400(path: str, body: bytes) -> None:
    async with upstream(ANSWER) as ollama, gateway(ollama.url) as gw:
        refused = await ask(gw, path, body, "POST")
        assert (refused.status, bool(refused.error)) == (400, True)
        assert ollama.asked(path.removeprefix("/ollama")) == []


async def test_a_full_gateway_says_when_to_come_again() -> None:
    async with upstream(silence) as ollama, gateway(ollama.url, max_active=1, max_queued=0) as gw:
        await gw.start(chat={"model": "m", "messages": HI["messages"]})
        for path, body in ((CHAT, HI), ("/ollama/api/embed", {"model": "m", "input": "a"})):
            busy = await ask(gw, path, body)
            assert (busy.status, busy.headers["retry-after"]) == (503, "5")
            assert busy.error == "1 generations run and 0 wait already. Try again in a moment."


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example", "Content-Type": "text/plain"}, 403),  # a form's or a script's
        ({"Origin": "null", "Content-Type": "text/plain"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
async def test_pages_of_other_sites_cannot_ask(headers: dict[str, str], status: int) -> None:
    """Neither by a POST that needs no preflight, nor by a picture or a link that leads to a list."""
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    async with gateway(simulator := quick()) as gw:
        assert (await ask(gw, CHAT, HI, **named)).status == status
        assert (await ask(gw, "/ollama/api/tags", **named)).status == status
        assert len(simulator.requests) == (status == 200)


async def test_pages_that_may_ask_can_use_ollamas_own_client() -> None:
    """It sends a `User-Agent` of its own, of which browsers ask first."""
    origin = "https://chat.example.com"
    async with gateway(quick(), cors_origins=origin) as gw:
        asked = {"Access_Control_Request_Method": "POST", "Origin": origin}
        told = await ask(gw, CHAT, method="OPTIONS", Access_Control_Request_Headers="content-type,user-agent", **asked)
        assert (told.status, told.headers["access-control-allow-origin"]) == (200, origin)
        told = await ask(gw, CHAT, HI, Origin=origin)
        assert "Content-Location" in told.headers["access-control-expose-headers"]


# Models


async def test_models_that_are_asked_for_by_many_are_asked_for_once() -> None:
    """However a model's name is spelled."""

    async def once(peer: Peer) -> None:
        await asyncio.sleep(0.05)
        await peer.send(whole(200, b'{"models":[]}'))

    names = ["m", "M", "m:latest", "registry.ollama.ai/library/m"]
    async with upstream(silence, tags=once, ps=once, show=once) as ollama, gateway(ollama.url) as gw:
        for path, bodies in (
            ("/ollama/api/tags", [None]),
            ("/ollama/api/ps", [None]),
            ("/ollama/api/show", [{"model": name} for name in names]),
        ):
            told = await asyncio.gather(*(ask(gw, path, body) for body in bodies for _ in range(20)))
            assert {each.body for each in told} == {b'{"models":[]}'}
            assert len(ollama.asked(path.removeprefix("/ollama"))) == 1


async def test_several_servers_look_like_one() -> None:
    """A model is listed once; each request goes to the server that has its model, embeddings included."""
    one, two = quick(), quick()
    del one.models["nomic-embed-text:latest"], two.models["qwen3:latest"]
    two.models["own:latest"] = Model("own:latest")
    async with (
        serve(one.app) as first,
        serve(two.app) as second,
        gateway(first, ollama_urls=f"{first},{second}") as gw,
    ):
        listed = [model["name"] for model in (await ask(gw, "/ollama/api/tags")).json["models"]]
        assert sorted(listed) == sorted({*one.models, *two.models})
        assert (await ask(gw, "/ollama/api/show", {"model": "own"})).status == 200
        assert (await ask(gw, "/ollama/api/show", {"model": "nope"})).status == 404
        assert (await ask(gw, "/ollama/api/embed", {"model": "nomic-embed-text", "input": "a"})).status == 200
        assert [request.path for request in two.requests] == ["/api/embed"]
        assert [each["name"] for each in (await ask(gw, "/ollama/api/ps")).json["models"]] == [
            "nomic-embed-text:latest"
        ]
        assert (await ask(gw, "/ollama/api/version")).json == {"version": "0.33.0-demo"}


async def test_an_ollama_that_is_down(closed_port: str) -> None:
    async with gateway(closed_port) as gw:
        for path in ("/ollama/api/tags", "/ollama/api/ps", "/ollama/api/version"):
            told = await ask(gw, path)
            assert (told.status, told.error[:23]) == (502, "Ollama is not reachable")
        for path, body in ((CHAT, HI), ("/ollama/api/show", {"model": "m"})):
            assert (await ask(gw, path, body)).status == 502
        assert (await ask(gw, "/ollama/")).body == b"Ollama is running"  # the gateway is, in its place


async def test_a_modelfile_does_not_tell_where_files_are() -> None:
    async with gateway(quick()) as gw:
        shown = (await ask(gw, "/ollama/api/show", {"name": "llama3.2"})).json
        assert "\nFROM sha256-" in shown["modelfile"]
        assert "/root/" not in str(shown)


# Shaping

PRESETS = """
[presets.translate]
description = "Translates"
model = "qwen3"
system = "SECRET system into {lang}"
prompt = "SECRET template «{prompt}»"
options = { temperature = 0.25 }
variables = { lang = "French" }

[presets.any]

[presets.gone]
model = "missing-model"

[presets.vectors]
model = "nomic-embed-text"
system = "SECRET"
options = { num_ctx = 512 }
keep_alive = "9m"
variables = { needed = {} }
"""


@asynccontextmanager
async def shaping(path: Path, **settings: Any) -> AsyncIterator[tuple[Gateway, Simulator]]:
    config = path / "g.toml"
    config.write_text(PRESETS)
    async with gateway(simulator := quick(), config=str(config), **settings) as gw:
        yield gw, simulator


def sent(simulator: Simulator) -> Any:
    """The last body that Ollama was sent."""
    return orjson.loads(simulator.requests[-1].body)


@pytest.mark.parametrize("name", ["preset/translate", "preset/translate:latest"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_preset_is_a_model(tmp_path: Path, name: str, stream: bool) -> None:
    async with shaping(tmp_path) as (gw, simulator):
        told = await ask(gw, CHAT, HI | {"model": name, "stream": stream})
        assert (told.status, told.type) == (200, NDJSON if stream else JSON)
        assert sent(simulator) == {
            "model": "qwen3",
            "messages": [
                {"role": "system", "content": "SECRET system into French"},
                {"role": "user", "content": "SECRET template «Hi»"},
            ],
            "options": {"temperature": 0.25},
        }
        body = {"model": name, "prompt": "Hi", "stream": stream}
        told = await ask(gw, "/ollama/api/generate?variables.lang=Dutch", body)
        assert sent(simulator)["system"] == "SECRET system into Dutch"
        assert b'"context"' not in told.body  # its tokens would tell the rendered prompt
        assert b"SECRET system" not in told.body


async def test_a_name_that_is_no_preset(tmp_path: Path) -> None:
    async with shaping(tmp_path) as (gw, simulator):
        for path, error in (
            (CHAT, "preset: there is no preset called nope."),
            (CHAT + "?preset=any", "preset: the model names another one."),
        ):
            refused = await ask(gw, path, HI | {"model": "preset/nope"})
            assert (refused.status, refused.error) == (400, error)
        assert (await ask(gw, "/ollama/api/show", {"model": "preset/nope"})).status == 404
        told = await ask(gw, "/api/chat", HI | {"model": "preset/translate"})  # the other dialect has `preset`
        assert b"model_not_found" in told.body
        assert len(simulator.requests) == 1


async def test_presets_are_listed_and_shown_without_what_they_set(tmp_path: Path) -> None:
    async with shaping(tmp_path, default_model="llama3.2") as (gw, simulator):
        listed = {model["name"]: model for model in (await ask(gw, "/ollama/api/tags")).json["models"]}
        assert listed.keys() == {*simulator.models, *(f"preset/{n}" for n in ("translate", "any", "gone", "vectors"))}
        own = {"name": "preset/translate", "model": "preset/translate"}
        assert listed["preset/translate"] == listed["qwen3:latest"] | own
        assert listed["preset/any"]["digest"] == listed["llama3.2:latest"]["digest"]
        assert (listed["preset/gone"]["size"], len(listed["preset/gone"]["digest"])) == (0, 64)
        shown = await ask(gw, "/ollama/api/show", {"model": "preset/translate", "verbose": True})
        assert shown.json.keys() == {"details", "model_info", "capabilities", "modified_at"}
        assert shown.json["capabilities"] == ["completion", "tools", "thinking"]
        assert (await ask(gw, "/ollama/api/show", {"model": "preset/any"})).json["details"]["family"] == "llama"
        assert (await ask(gw, "/ollama/api/show", {"model": "preset/gone"})).status == 404
        assert b"SECRET" not in shown.body + orjson.dumps(listed)


async def test_with_presets_only_there_are_no_other_models(tmp_path: Path) -> None:
    async with shaping(tmp_path, presets_only=True) as (gw, simulator):
        listed = (await ask(gw, "/ollama/api/tags")).json["models"]
        assert [model["name"] for model in listed] == [f"preset/{n}" for n in ("translate", "any", "gone", "vectors")]
        assert (await ask(gw, "/ollama/api/show", {"model": "llama3.2"})).status == 404
        for path, body in ((CHAT, HI), ("/ollama/api/embed", {"model": "nomic-embed-text", "input": "a"})):
            refused = await ask(gw, path, body)
            assert (refused.status, refused.error[:19]) == (400, "preset: is missing.")
        assert not simulator.requests
        assert (await ask(gw, CHAT, HI | {"model": "preset/translate"})).status == 200


async def test_of_a_preset_embeddings_have_the_model_and_its_options(tmp_path: Path) -> None:
    async with shaping(tmp_path, default_preset="vectors") as (gw, simulator):
        for body in (
            {"model": "preset/vectors", "input": ["a", "b"], "dimensions": 3, "truncate": True},
            {"model": "nomic-embed-text", "input": ["a", "b"], "dimensions": 3, "truncate": True},
        ):
            told = await ask(gw, "/ollama/api/embed", body)
            assert [len(vector) for vector in told.json["embeddings"]] == [3, 3]
            own = {"model": "nomic-embed-text", "options": {"num_ctx": 512}, "keep_alive": "9m"}
            assert sent(simulator) == body | own
        told = await ask(gw, "/ollama/api/embeddings", {"model": "preset/vectors", "prompt": "a"})
        assert len(told.json["embedding"]) == 768
        assert sent(simulator)["prompt"] == "a"
        for field, value in (("model", "llama3.2"), ("options", {"num_ctx": 1}), ("keep_alive", 0), ("x", 1)):
            refused = await ask(gw, "/ollama/api/embed", {"input": "a", field: value})
            assert (refused.status, "the preset decides this" in refused.error) == (400, True)


async def check(request: HookRequest) -> dict[str, Any]:
    if any("forbidden" in text for text in texts(request.body)):
        raise Rejected(f"Not as {request.kind}.", "no")
    return request.body


async def test_a_hook_has_the_last_word() -> None:
    async with gateway(simulator := quick(), hook=f"{HERE}:check") as gw:
        for kind, body in (
            ("chat", {"messages": [{"role": "user", "content": "forbidden"}]}),
            ("generate", {"prompt": "forbidden"}),
            ("embed", {"input": ["a", "forbidden"]}),
            ("embed", {"input": "forbidden"}),
            ("embeddings", {"prompt": "forbidden"}),
        ):
            refused = await ask(gw, f"/ollama/api/{kind}", body | {"model": "llama3.2"})
            assert (refused.status, refused.error) == (400, f"Not as {kind}.")
        assert not simulator.requests
        fields = {"model": "nomic-embed-text", "input": "a"}
        assert (await ask(gw, "/ollama/api/embed", fields | {"_debug": True})).status == 200
        assert sent(simulator) == fields  # what was checked is what is sent, and a field of the client's alone is not


# The same streams


async def test_embeddings_wait_for_a_slot_and_count() -> None:
    """Beside a generation, in one queue with it, by the same quotas."""
    simulator = quick(token_rate=100)
    async with gateway(simulator, max_active=1, client_max_streams=2) as gw:
        sid = await gw.start(chat=STORY)
        async with gw.open(f"/api/streams/{sid}"):
            await simulator.until(lambda: simulator.states["generating"] == 1)
            body = {"model": "nomic-embed-text", "input": "a"}
            embedding = asyncio.create_task(ask(gw, "/ollama/api/embed", body))
            await settled(gw, lambda: gw.state["streams"].queue.waiting == 1)
            refused = await ask(gw, "/ollama/api/embed", body)
            assert (refused.status, refused.error[:18]) == (429, "You have 2 streams")
            assert len(simulator.requests) == 1
        assert (await embedding).status == 200
        async with gw.session.get(gw.url + "/metrics") as response:
            metrics = await response.text()
        assert 'gateway_streams_total{kind="embed",model="nomic-embed-text:latest",outcome="complete"} 1.0' in metrics
        for dialect in ("events", "ollama"):
            assert f'gateway_readers_total{{dialect="{dialect}"}} 1.0' in metrics


async def test_one_key_is_one_question_in_any_dialect() -> None:
    async with upstream(ANSWER) as ollama, gateway(ollama.url) as gw:
        body = {"model": "m", "messages": HI["messages"]}
        first = await ask(gw, CHAT, body, Idempotency_Key="k")
        again = await ask(gw, CHAT, body | {"stream": False}, Idempotency_Key="k")
        events = await ask(gw, "/api/chat", body, Idempotency_Key="k")
        assert first.headers["content-location"] == again.headers["content-location"]
        assert (first.body, again.json["message"]["content"], EVENTS) == (LINES, "a", events.type)
        other = await ask(gw, CHAT, body | {"think": True}, Idempotency_Key="k")
        assert (other.status, other.error) == (409, "Idempotency-Key: has been used for another request.")
        assert len(ollama.asked("/api/chat")) == 1


async def test_a_pull_is_shared() -> None:
    async with gateway(simulator := quick(), allow_pull=True) as gw:
        told = await ask(gw, "/ollama/api/pull", {"name": "llama3.2", "stream": False})
        assert (told.status, told.body) == (200, b'{"status":"success"}')
        told = await ask(gw, "/ollama/api/pull", {"model": "llama3.2"})
        assert (told.type, told.body.splitlines()[-1]) == (NDJSON, b'{"status":"success"}')
        refused = await ask(gw, "/ollama/api/pull", {"model": "evil.example/a/b"})
        assert (refused.status, "GATEWAY_PULL_HOSTS" in refused.error) == (403, True)
        assert len(simulator.requests) == 2


async def test_a_stream_that_is_stopped_ends_with_an_error() -> None:
    async with upstream(silence) as ollama, gateway(ollama.url) as gw:
        sid = await gw.start(chat={"model": "m", "messages": HI["messages"]})
        reading = asyncio.create_task(ask(gw, f"/api/streams/{sid}?as=ollama"))
        await settled(gw, lambda: gw.state["streams"].running.viewers == 1)
        await ask(gw, f"/api/streams/{sid}", method="DELETE")
        told = await reading
        assert (told.status, told.error) == (499, "Stopped on request.")


@pytest.mark.slow
async def test_two_hundred_aborts_leave_nothing() -> None:
    """At any moment: while the body is sent, while the model loads, within the answer, or right before its end."""
    rng = random.Random(21)
    simulator = quick(token_rate=300, load_seconds=0.1, parallel=1000)
    bodies = [orjson.dumps(STORY | {"stream": stream}) for stream in (True, False)]
    bodies.append(orjson.dumps({"model": "nomic-embed-text", "input": "a"}))

    async def client(gw: Gateway) -> None:
        await asyncio.sleep(2 * rng.random())
        address = urlsplit(gw.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        body = rng.choice(bodies)
        path = b"embed" if b"input" in body else b"chat"
        head = b"POST /ollama/api/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
        writer.write(head + body[: rng.choice([5, len(body), len(body)])])
        reading = asyncio.create_task(reader.read(rng.randrange(1, 20_000)))
        await asyncio.wait([reading], timeout=rng.random())
        reading.cancel()
        writer.close()

    async with gateway(simulator, retain_seconds=0, ping_interval=0.03) as gw:
        assert (await ask(gw, CHAT, HI)).status == 200  # the library starts a task of its own with the first stream
        await settled(gw, lambda: at_rest(gw))
        before = asyncio.all_tasks()
        await asyncio.gather(*(client(gw) for _ in range(200)))
        await simulator.until(lambda: simulator.running == 0)
        await settled(gw, lambda: at_rest(gw))
        await settled(gw, lambda: asyncio.all_tasks() <= before)
        assert simulator.states["cancelled"] > 10


async def test_an_error_in_the_middle_is_the_last_line_and_the_events_say_the_same() -> None:
    async with upstream(streams(token("a"), b'{"error":"out of <memory>"}\n')) as ollama, gateway(ollama.url) as gw:
        body = {"model": "m", "messages": HI["messages"]}
        told = await ask(gw, CHAT, body)
        assert told.body == token("a") + rb'{"error":"out of \u003cmemory\u003e"}' + b"\n"
        refused = await ask(gw, CHAT, body | {"stream": False})
        assert (refused.status, refused.error) == (500, "out of <memory>")
        events = await gw.read(told.headers["content-location"])
        assert messages(events)[-1].json["error"] == "out of <memory>"
