"""Shaping as a whole: defaults, presets-only deployments, preview, and that nobody is shown a system prompt."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.routing import Mount, Route

from gateway.app import create_app
from gateway.asks.presets import OVERRIDABLE
from gateway.demo.faults import FAULTS
from gateway.hooks import HookRequest
from gateway.settings import ConfigurationError, load
from gateway.web.routes.table import ROUTES
from tests import transcripts
from tests.asks import quick, with_text
from tests.gateways import Gateway, gateway
from tests.sse import ending, messages, text
from tests.upstreams import says, streams, upstream, whole

TABLE = "Show me a table"
CHAT = {"messages": [{"role": "user", "content": TABLE}]}


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


async def error(gw: Gateway, path: str, json: object) -> tuple[int, dict[str, Any]]:
    async with gw.session.post(gw.url + path, json=json) as response:
        return response.status, await response.json()


async def test_a_prompt_alone_is_enough() -> None:
    """The first installed model that can answer, else the one that is set."""
    simulator = quick()
    async with gateway(simulator) as gw:
        assert ending(await gw.read("/api/chat?prompt=Hi")) == ("complete", None)
    async with gateway(simulator, default_model="qwen3") as gw:
        assert ending(await gw.read("/api/chat?prompt=Hi")) == ("complete", None)
        assert ending(await gw.read("/api/chat?prompt=Hi&model=gemma3")) == ("complete", None)
    models = [orjson.loads(request.body)["model"] for request in simulator.requests]
    assert models == ["llama3.2:latest", "qwen3", "gemma3"]


@pytest.mark.parametrize("name", ["gemma3", "Gemma3:latest", "registry.ollama.ai/library/gemma3", "absent"])
async def test_a_model_is_the_same_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    """In the list, which has it under one, and against a preset that sets it."""
    config = write(tmp_path / "g.toml", f"[presets.one]\nmodel = '{name}'")
    async with gateway(quick(), default_model=name, config=config) as gw:
        async with gw.session.get(gw.url + "/api/models") as response:
            listed = await response.json()
        assert listed["default"] == ("absent" if name == "absent" else "gemma3:latest")
        if name != "absent":
            for given in ("gemma3:latest", "GEMMA3"):
                events = await gw.read("/api/chat?preset=one", json=CHAT | {"model": given})
                assert ending(events) == ("complete", None)
            async with gw.session.get(gw.url + "/api/models") as response:
                loaded = [model["name"] for model in (await response.json())["models"] if model["loaded"]]
            assert loaded == ["gemma3:latest"]


async def test_no_model_at_all_is_said() -> None:
    async with (
        upstream(says(), tags=says(whole(200, transcripts.load("tags-empty").body))) as server,
        gateway(server.url) as gw,
    ):
        status, body = await error(gw, "/api/chat", CHAT)
        assert (status, body["code"]) == (422, "invalid_request")
        assert body["error"].startswith("model: is missing, and Ollama has no model")
        assert not server.asked("/api/chat")


TWO = "[presets.one]\nsystem = 'One.'\n[presets.two]\nsystem = 'Two.'\nmodel = 'qwen3'\n"


async def test_presets_only(tmp_path: Path) -> None:
    """Without a preset, no way of asking reaches Ollama."""
    simulator = quick()
    async with gateway(simulator, config=write(tmp_path / "g.toml", TWO), presets_only=True) as gw:
        for path, body in [
            ("/api/chat", CHAT),
            ("/api/generate", {"prompt": "Hi"}),
            ("/api/streams", {"chat": CHAT}),
            ("/api/streams", {"generate": {"prompt": "Hi"}, "preset": ""}),
        ]:
            status, answer = await error(gw, path, body)
            assert (status, answer["code"]) == (422, "invalid_request")
            assert answer["error"].startswith("preset: is missing")
        assert not simulator.requests
        assert ending(await gw.read("/api/chat?prompt=Hi&preset=one")) == ("complete", None)
        async with gw.session.get(gw.url + "/api/presets") as response:
            assert (await response.json())["only"] is True


async def test_the_default_preset_is_for_a_request_that_names_none(tmp_path: Path) -> None:
    simulator = quick()
    config = write(tmp_path / "g.toml", TWO)
    async with gateway(simulator, config=config, default_preset="two", presets_only=True) as gw:
        await gw.read("/api/chat?prompt=Hi")
        await gw.read("/api/chat?prompt=Hi&preset=one")
        async with gw.session.get(gw.url + "/api/presets") as response:
            assert (await response.json())["default"] == "two"
    bodies = [orjson.loads(request.body) for request in simulator.requests]
    assert [body["messages"][0]["content"] for body in bodies] == ["Two.", "One."]
    assert [body["model"] for body in bodies] == ["qwen3", "llama3.2:latest"]


def test_a_default_preset_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'^GATEWAY_DEFAULT_PRESET: there is no preset "three"\.$'):
        create_app(load(["--config", write(tmp_path / "g.toml", TWO), "--default-preset", "three"]))


# What counts against GATEWAY_MAX_PROMPT_CHARS

LIMIT = 100
LONG = f"""
[presets.long]
model = "llama3.2"
system = "{"x" * LIMIT} {{lang}}"
prompt = "{{prompt}} {"y" * LIMIT} {{lang}}"
variables = {{ lang = "{"z" * LIMIT}" }}
format = {{ description = "{"x" * LIMIT}" }}
"""


async def test_every_text_counts(tmp_path: Path) -> None:
    async with gateway(quick(), max_prompt_chars=LIMIT) as gw:
        numbers = {"messages": [], "tools": [{"x": [12345] * 50}]}
        tokens = {"prompt": "Hi", "context": [1] * LIMIT}  # and two characters
        for place, kind, body in [
            *with_text("x" * (LIMIT + 1)),
            ("numbers", "chat", numbers),
            ("tokens", "generate", tokens),
        ]:
            status, answer = await error(gw, f"/api/{kind}", body)
            assert (status, answer["code"]) == (413, "too_large"), place
            assert "GATEWAY_MAX_PROMPT_CHARS" in answer["error"]


async def test_what_a_preset_says_of_itself_does_not_count(tmp_path: Path) -> None:
    """What a client writes counts where the preset puts it, a variable as often as it stands there."""
    simulator = quick()
    config = write(tmp_path / "g.toml", LONG)
    async with gateway(simulator, config=config, max_prompt_chars=LIMIT) as gw:
        fits, longer = "p" * LIMIT, "p" * (LIMIT + 1)
        for variables in ({}, {"lang": "p" * LIMIT}):
            sid = await gw.start(generate={"prompt": fits}, preset="long", variables=variables)
            assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)
        for asked in (
            {"generate": {"prompt": longer}},
            {"chat": {"messages": [{"role": "user", "content": longer}]}},
            {"chat": CHAT, "variables": {"lang": "v" * 10_000}},
            {"generate": {"prompt": "Hi"}, "variables": {"lang": "v" * (2 * LIMIT)}},
        ):
            status, answer = await error(gw, "/api/streams", asked | {"preset": "long"})
            assert (status, answer["code"]) == (413, "too_large")
        assert answer["error"].startswith("The request has 202 prompt characters where its preset puts them, and 100 ")
    assert len(simulator.requests) == 2


async def test_what_a_hook_adds_counts(caplog: pytest.LogCaptureFixture) -> None:
    simulator = quick()
    async with gateway(simulator, max_prompt_chars=LIMIT, hook="tests.test_shaping:adds_notes") as gw:
        assert ending(await gw.read("/api/generate", json={"prompt": "x" * 49})) == ("complete", None)
        status, answer = await error(gw, "/api/generate", {"prompt": "x" * 52})
        assert (status, answer["code"]) == (500, "shape_failed")
    assert len(simulator.requests) == 1
    (told,) = [each.getMessage() for each in caplog.records if each.name == "gateway.asks.shaping"]
    assert told.endswith("The request has 102 prompt characters, and 100 are allowed (GATEWAY_MAX_PROMPT_CHARS).")


async def adds_notes(request: HookRequest) -> dict[str, Any]:
    return request.body | {"system": "n" * 50}


@pytest.mark.parametrize("asked", [None, True, False])
async def test_truncate_false_is_sent_unless_the_client_decides(asked: bool | None) -> None:
    simulator = quick()
    async with gateway(simulator, truncate=False) as gw:
        for kind, body in (("chat", CHAT), ("generate", {"prompt": "Hi"})):
            await gw.read(f"/api/{kind}", json=body | {"model": "llama3.2", "truncate": asked})
            expected = {"model": "llama3.2", **body, "truncate": asked is True}
            assert simulator.requests[-1].body == orjson.dumps(expected)


TOO_LONG = [
    transcripts.load("error-runner-rejects-400").body,
    b'{"error":"the input length exceeds the context length"}',
    b'{"error":"the prompt is longer than the context length currently available on this machine"}',
]


@pytest.mark.parametrize("refusal", TOO_LONG)
async def test_a_conversation_too_long_is_an_invalid_request(refusal: bytes) -> None:
    async with upstream(says(whole(400, refusal))) as server, gateway(server.url, truncate=False) as gw:
        events = await gw.read("/api/chat", json=CHAT | {"model": "m"})
        assert ending(events) == ("error", "invalid_request")
        payload = events[-2].json
        assert payload["error"].startswith("The conversation is too long for the model: ")
        assert payload["retryable"] is False
        assert orjson.loads(server.asked("/api/chat")[0].body)["truncate"] is False


async def test_other_refusals_stay_ollamas_errors() -> None:
    refusal = whole(400, b'{"error":"m does not support tools"}')
    async with upstream(says(refusal)) as server, gateway(server.url) as gw:
        assert ending(await gw.read("/api/chat", json=CHAT | {"model": "m"})) == ("error", "ollama_error")


async def test_the_preview_is_off_unless_it_is_set(tmp_path: Path) -> None:
    config = write(tmp_path / "g.toml", TWO)
    async with gateway(quick(), config=config) as gw:
        status, body = await error(gw, "/api/preview", {"chat": CHAT, "preset": "one"})
        assert (status, body["code"]) == (404, "not_found")


async def test_the_preview_is_what_ollama_is_sent(tmp_path: Path) -> None:
    simulator = quick()
    config = write(tmp_path / "g.toml", TWO)
    async with gateway(simulator, config=config, allow_preview=True, truncate=False) as gw:
        for body in ({"chat": CHAT, "preset": "one"}, {"generate": {"prompt": TABLE}, "preset": "two"}):
            async with gw.session.post(gw.url + "/api/preview", json=body) as response:
                assert response.status == 200
                assert response.headers["Content-Type"] == "application/json"
                assert response.headers["Cache-Control"] == "no-store"
                preview = await response.read()
            assert not simulator.running
            await gw.read(f"/api/streams/{await gw.start(**body)}")
            assert simulator.requests[-1].body == preview
        assert len(simulator.requests) == 2
        assert (await error(gw, "/api/preview", {"chat": CHAT, "preset": "x"}))[1]["code"] == "invalid_request"


@pytest.mark.parametrize("depth", [200, 255, 300, 1000, 5000])
async def test_deep_nesting_is_the_clients_mistake(depth: int) -> None:
    """Never a crash, whichever of reading and writing gives up first."""
    nested = b"[" * depth + b"]" * depth
    asks = [
        ("/api/chat", b'{"model":"llama3.2","messages":[],"x":%b}' % nested, 200),
        ("/api/streams", b'{"generate":{"model":"llama3.2","x":%b}}' % nested, 201),
    ]
    async with gateway(quick(), hook="tests.test_shaping:unchanged") as gw:
        for path, body, success in asks:
            async with gw.session.post(gw.url + path, data=body) as response:
                assert response.status == (success if depth <= 200 else 422)
                response.close()


async def unchanged(request: HookRequest) -> dict[str, Any]:
    return request.body


# Nobody is shown a system prompt

CANARY = "xantippe"
SECRETS = f"""
[presets.secret]
description = "About cats"
system = "The {CANARY} is {{mood}}."
prompt = "Mind the {CANARY}: {{prompt}}"
variables = {{ mood = "calm" }}
overrides = ["model"]

[presets.sealed]
model = "llama3.2"
system = "The {CANARY}."
"""


class Everything(logging.Handler):
    """All that any logger says at any level, with its arguments and tracebacks."""

    def __init__(self) -> None:
        super().__init__(0)
        self.lines: list[str] = []
        self.loggers: set[str] = set()
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.loggers.add(record.name.partition(".")[0])
        self.lines.append(f"{self.format(record)} {record.__dict__!r}")


@pytest.fixture
def logged() -> Iterator[Everything]:
    handler = Everything()
    names = [*logging.root.manager.loggerDict, "sse_starlette.sse", "uvicorn.error", "aiohttp.client", "asyncio", None]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(1)
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


class Recorder:
    """A client that keeps every byte of every answer."""

    def __init__(self, gw: Gateway) -> None:
        self.gw = gw
        self.answers: list[str] = []
        self.codes: set[str] = set()

    async def ask(self, method: str, path: str, **request: Any) -> bytes:
        async with self.gw.session.request(method, self.gw.url + path, **request) as response:
            body = await response.read()
        self.answers.append(f"{method} {path} {response.status} {response.headers!r} {body!r}")
        for line in body.splitlines():
            text = line.removeprefix(b"data: ")
            if text.startswith(b"{") and b'"code"' in text:
                self.codes.add(orjson.loads(text).get("code"))
        return body


async def test_no_response_log_line_metric_or_error_shows_a_system_prompt(logged: Everything, tmp_path: Path) -> None:
    """It makes every mistake at every route, with every fault of Ollama; then all of it is searched."""
    simulator = quick()
    config = write(tmp_path / "g.toml", SECRETS)
    limits = {"connect_timeout": 60, "status_interval": 0.1, "max_line_bytes": 200_000, "max_body_bytes": 100_000}
    async with gateway(simulator, config=config, connect_timeout=60, first_token_timeout=2, idle_timeout=0.3) as gw:
        recorder = Recorder(gw)
        await ask_all(recorder, SILENT)
        answers, codes = recorder.answers, recorder.codes
    async with gateway(simulator, config=config, **limits) as gw:
        recorder = Recorder(gw)
        await ask_all(recorder, ["llama3.2", "nope", *(name for name in FAULTY if name not in SILENT)])
        await every_mistake(recorder)
        await every_route(recorder)
        sid = await gw.start(chat=CHAT | {"model": "fault:stall"}, preset="secret")
        await recorder.ask("DELETE", f"/api/streams/{sid}")
        await recorder.ask("GET", f"/api/streams/{sid}")
        (tmp_path / "g.toml").write_text(SECRETS + f"sytem = '{CANARY}'")
        gw.state["shaper"].reload()
        (tmp_path / "g.toml").write_text(SECRETS + f"broken = \"{CANARY}\n'''{CANARY}")
        gw.state["shaper"].reload()
        assert gw.state["shaper"].presets.keys() == {"secret", "sealed"}
        write(tmp_path / "g.toml", SECRETS + "[presets.more]")
        gw.state["shaper"].reload()
        assert "more" in gw.state["shaper"].presets
        await gw.state["streams"].drain(0)
        await recorder.ask("POST", "/api/chat?preset=secret", json=CHAT)
        answers, codes = answers + recorder.answers, codes | recorder.codes
    async with gateway(simulator, config=config, max_active=1, max_queued=0) as gw:
        recorder = Recorder(gw)
        await gw.start(chat=CHAT | {"model": "fault:silent"}, preset="secret")
        await recorder.ask("POST", "/api/chat?preset=secret", json=CHAT)
        answers, codes = answers + recorder.answers, codes | recorder.codes
    async with gateway("http://127.0.0.1:9", config=config, hook="tests.test_shaping:fail") as gw:
        recorder = Recorder(gw)
        await recorder.ask("POST", "/api/chat?preset=sealed", json=CHAT)
        await recorder.ask("POST", "/api/chat?preset=secret&variables.mood=x", json=CHAT | {"model": "m"})
        await every_route(recorder)
        answers, codes = answers + recorder.answers, codes | recorder.codes

    shaped = [request for request in simulator.requests if CANARY.encode() in request.body]
    assert len(shaped) > 3 * len(FAULTS)
    assert codes >= {
        *("invalid_request", "too_large", "not_found", "method_not_allowed", "forbidden_origin", "model_not_found"),
        *("busy", "shutting_down", "shape_failed", "cancelled", "ollama_unreachable", "ollama_error", "bad_upstream"),
        *("truncated", "first_token_timeout", "idle_timeout"),
    }
    assert logged.loggers >= {"gateway", "uvicorn", "asyncio"}
    assert not [line for line in answers + logged.lines if CANARY in line]


async def fail(request: HookRequest) -> dict[str, Any]:
    if request.variables:
        return request.body
    raise RuntimeError("no")


SIZES = {"burst": 100, "oversized-line": 300_000, "long-line": 50_000}
FAULTY = [f"fault:{name}-{SIZES[name]}" if name in SIZES else f"fault:{name}" for name in FAULTS]
SILENT = ["fault:stall", "fault:silent", "fault:slow-load"]


async def ask_all(recorder: Recorder, models: list[str]) -> None:
    for name in models:
        body = {"model": name}
        await asyncio.gather(
            recorder.ask("GET", f"/api/chat?preset=secret&model={name}&prompt={TABLE}"),
            recorder.ask("POST", "/api/chat?preset=secret", json=body | CHAT),
            recorder.ask("POST", "/api/generate?preset=secret", json=body | {"prompt": TABLE}),
        )


async def every_mistake(recorder: Recorder) -> None:
    for field in OVERRIDABLE - {"model"}:
        values: tuple[object, ...] = ("x", True, {"seed": 1})
        for value in values:
            await recorder.ask("POST", "/api/generate?preset=sealed", json={"prompt": "Hi", field: value})
            await recorder.ask("POST", "/api/streams", json={"chat": CHAT | {field: value}, "preset": "sealed"})
    for path in (
        "/api/chat?preset=secret&variables.x=1&prompt=Hi",
        "/api/chat?preset=secret&system=x&prompt=Hi",
        "/api/chat?preset=secret&nonsense=x&prompt=Hi",
        "/api/chat?preset=secret",
        "/api/chat?preset=nope&prompt=Hi",
        "/api/generate?preset=secret&options.temperature=hot&prompt=Hi",
    ):
        await recorder.ask("GET", path)
        await recorder.ask("GET", path, headers={"Accept": "text/event-stream"})
    for body in (b"", b"{", b"[]", b'{"messages":5}', b'{"x":' + b"[" * 500 + b"]" * 500 + b"}", b" " * 200_000):
        await recorder.ask("POST", "/api/chat?preset=secret", data=body)
    await recorder.ask("POST", "/api/chat?preset=secret", json=CHAT, headers={"Origin": "https://evil.example"})
    await recorder.ask("POST", "/api/streams", json={"pull": {"model": "x"}, "preset": "secret"})
    await recorder.ask("GET", "/api/streams/nope?last_event_id=nope")
    await recorder.ask("PUT", "/api/chat?preset=secret&prompt=Hi")
    await recorder.ask("HEAD", "/api/chat?preset=secret&prompt=Hi")


async def every_route(recorder: Recorder) -> None:
    for route in ROUTES:
        assert isinstance(route, Route | Mount)
        path = route.path.replace("{sid}", "0" * 32)
        for method in (isinstance(route, Route) and route.methods) or ["GET"]:
            await recorder.ask(method, path)
    await recorder.ask("POST", "/api/preview", json={"chat": CHAT, "preset": "secret"})
    await recorder.ask("GET", "/metrics")


async def adds_a_system_prompt(request: HookRequest) -> dict[str, Any]:
    if request.kind == "generate":
        return request.body | {"system": CANARY}
    return request.body | {"messages": [{"role": "system", "content": CANARY}, *request.body["messages"]]}


TELLING = {"context": [1, 2], "_debug_info": {"rendered_template": CANARY}, "prompt": CANARY, "made_up": CANARY}


@pytest.mark.parametrize("shaped", ["preset", "hook"])
async def test_no_answer_tells_the_shaped_prompt(tmp_path: Path, shaped: str) -> None:
    """A real Ollama puts all of the prompt into `context`, and shows it instead of running when asked to debug."""
    simulator = quick()
    settings: dict[str, Any] = {"hook": "tests.test_shaping:adds_a_system_prompt"}
    ask: dict[str, Any] = {"prompt": TABLE}
    path = "/api/generate"
    if shaped == "preset":
        settings = {"config": write(tmp_path / "g.toml", f"[presets.secret]\nsystem = '{CANARY}'")}
        path += "?preset=secret"
    else:
        ask |= {"_debug_render_only": True}
    async with gateway(simulator) as gw:
        plain = await gw.read("/api/generate", json={"prompt": TABLE})
        assert messages(plain)[-1].json["context"]
    async with gateway(simulator, **settings) as gw:
        events = await gw.read(path, json=ask)
        assert ending(events) == ("complete", None)
        assert text(events)
        assert messages(events)[-1].json.keys() == messages(plain)[-1].json.keys() - {"context"}
        if shaped == "preset":
            status, refused = await error(gw, path, ask | {"_debug_render_only": True})
            assert (status, refused["code"]) == (422, "invalid_request")

    said = {"role": "assistant", "content": "on ", "rendered": CANARY}
    lines = [b"%b\n" % orjson.dumps({"message": said, "done": done, **TELLING}) for done in (False, True)]
    async with upstream(streams(*lines)) as server, gateway(server.url, default_model="m", **settings) as gw:
        events = await gw.read(path.replace("generate", "chat"), json=CHAT)
        shown = [{"message": {"role": "assistant", "content": "on "}, "done": done} for done in (False, True)]
        assert [event.json for event in messages(events)] == shown
