"""The log has a line for each request and stream, but no prompt and no answer, and no line can be forged."""

import json
import logging
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.demo.faults import FAULTS
from gateway.ops.journal import Access
from gateway.web.responses import HANDLERS
from tests.asks import chat, quick
from tests.processes import Process, process
from tests.servers import serve
from tests.sse import Event, Events, messages, text

SECRET = "xyzzy"
"""A part of everything that a client or the operator's presets say."""

CONFIG = f"""
[presets.pirate]
system = "You are a {SECRET} pirate called {{name}}."
variables = {{ name = "{SECRET} Jack" }}
"""
HOOK = """
import logging
import warnings

logging.error("%d is no number", "many")
warnings.warn("hooks may warn")

async def shape(request):
    prompt = str(request.body)
    if "break" in prompt:
        raise ValueError("out of order")
    if "spoil" in prompt:
        return {"model": "llama3.2", "messages": prompt}
    return request.body
"""
LINE = re.compile(r"\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR) +\S.*|    .*")


class Client:
    """A client that remembers what the log must not hold, and what it must."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.sids: list[str] = []
        self.texts: list[str] = []
        self.requests: dict[str, str] = {}  # by stream id
        self._number = 0

    async def read(
        self, path: str, body: object = None, *, stop_after: int = 0, last_event_id: str = ""
    ) -> list[Event]:
        """Read a stream to its end, or leave it after `stop_after` messages."""
        self._number += 1
        method = "GET" if body is None else "POST"
        headers = {"Accept": "text/event-stream", "X-Request-Id": f"test-{self._number}"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        async with self.session.request(method, self.url + path, json=body, headers=headers) as response:
            assert response.headers["X-Request-Id"] == f"test-{self._number}"
            seen: list[Event] = []
            async for event in Events(response):
                seen.append(event)
                if event.name == "meta":
                    self.sids.append(event.json["id"])
                    self.requests.setdefault(event.json["id"], f"test-{self._number}")
                if stop_after and len(messages(seen)) == stop_after:
                    response.close()
                    break
        self.texts.append(text([event for event in seen if "error" not in event.json]))
        return seen

    async def ask(self, method: str, path: str, **options: Any) -> None:
        async with self.session.request(method, self.url + path, **options) as response:
            await response.read()


async def say_everything(client: Client) -> None:
    """Everything that a client can do, right and wrong, each time with the secret in it."""
    prompt = f"Tell me about {SECRET}"
    chat = {"model": "llama3.2", "messages": [{"role": "user", "content": prompt, "images": []}]}
    whole = await client.read(f"/api/chat?model=llama3.2&prompt={quote(prompt)}&system={SECRET}")
    await client.read(f"/api/generate?model=qwen3&prompt={quote(prompt)}&think=true")
    await client.read("/api/chat", chat | {"tools": [{"type": "function", "function": {"name": SECRET}}]})
    await client.read("/api/generate", {"model": "llama3.2", "prompt": prompt, "system": SECRET, "suffix": SECRET})
    await client.read(f"/api/chat?model=llama3.2&preset=pirate&variables.name={SECRET}&prompt=Hi+{SECRET}")
    await client.read(f"/api/chat?model=llama3.2&prompt={SECRET}+again", stop_after=2)
    for fault in FAULTS.keys() - {"silent", "slow-load", "oversized-line", "stall"}:
        await client.read(f"/api/chat?model=fault:{fault}&prompt={SECRET}")
    await client.read(f"/api/chat?model=fault:stall&prompt={SECRET}", stop_after=3)

    middle = messages(whole)[1].id or ""
    await client.read("/api/chat", last_event_id=middle)
    await client.read(f"/api/streams/{client.sids[0]}?last_event_id={middle}")
    for refused in ("break", "spoil", "&preset=none", "&options.num_ctx=many", "&format={"):
        await client.read(f"/api/chat?model=llama3.2&prompt={SECRET}+{refused}")
    await client.ask("POST", "/api/chat", data=f'{{"messages": "{SECRET}" broken')
    await client.ask("POST", "/api/chat", json={"model": "llama3.2", SECRET: SECRET, "messages": SECRET})
    await client.ask("POST", "/api/preview", json={"chat": chat, "preset": "pirate"})
    await client.ask("POST", "/api/streams", json={"chat": chat})
    await client.ask("POST", "/api/streams", json={"pull": {"model": "smollm2"}})
    for path in ("/", "/static/js/main.js", "/healthz", "/metrics", "/api/models", "/api/presets", "/nothing"):
        await client.ask("GET", f"{path}?prompt={SECRET}")
    await client.ask("HEAD", f"/api/chat?prompt={SECRET}")
    await client.ask("DELETE", f"/api/streams/{client.sids[0]}?why={SECRET}")


async def everything(directory: Path, form: str) -> tuple[Client, Process]:
    """A process that has logged at DEBUG, was sent everything, and has ended."""
    (directory / "gateway.toml").write_text(CONFIG)
    (directory / "hook.py").write_text(HOOK)
    simulator = quick()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(simulator.app))
        gateway = await stack.enter_async_context(
            process(
                directory,
                *(
                    f"--ollama-url={url}",
                    f"--log-format={form}",
                    "--log-level=debug",
                    "--allow-pull",
                    "--allow-preview",
                ),
                *("--hook=hook:shape", "--attach-timeout=0.1"),
            )
        )
        client = Client(await stack.enter_async_context(aiohttp.ClientSession()), gateway.url)
        await say_everything(client)
        gateway.terminate()
        assert await gateway.ended() == 0
    return client, gateway


@pytest.mark.parametrize("form", ["console", "json"])
async def test_no_log_line_holds_what_was_said(tmp_path: Path, form: str) -> None:
    client, gateway = await everything(tmp_path, form)
    log = "\n".join(gateway.log)
    assert SECRET not in log
    assert "?" not in re.sub(r'File ".*', "", log)  # no query string
    said = {sentence for text in client.texts for line in text.splitlines() if len(sentence := line.strip()) >= 12}
    assert len(said) > 20
    assert [sentence for sentence in said if sentence in log or json.dumps(sentence)[1:-1] in log] == []
    assert len(client.sids) > 20
    assert [sid for sid in client.sids if sid[:17] in log] == []  # half of an id opens nothing


async def test_one_json_line_for_each_stream_and_request(tmp_path: Path) -> None:
    client, gateway = await everything(tmp_path, "json")
    lines = [json.loads(line) for line in gateway.log]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    said = [line["message"] for line in lines]
    assert sum("hook.py cannot be logged" in message for message in said) == 1
    assert sum("UserWarning: hooks may warn" in message for message in said) == 1
    ended = [line for line in lines if line["message"] == "stream"]
    assert all(
        line.keys() - {"code", "phase"}
        == {
            *("time", "level", "logger", "message", "stream", "request_id", "kind", "model", "outcome"),
            *("queue_ms", "first_token_ms", "elapsed_ms", "events"),
        }
        for line in ended
    )
    by_request = {line["request_id"]: line for line in ended}
    assert len(by_request) == len(ended)
    for sid, request_id in client.requests.items():
        assert by_request[request_id]["stream"] == sid[:8]
    whole, *_ = ended
    assert (whole["kind"], whole["model"], whole["outcome"]) == ("chat", "llama3.2", "complete")
    assert 0 <= whole["queue_ms"] <= whole["first_token_ms"] <= whole["elapsed_ms"]
    codes = {line["model"]: (line["code"], line["phase"]) for line in ended if "code" in line}
    assert codes["fault:truncate"] == ("truncated", "generating")
    assert codes["fault:error-401"] == ("ollama_error", "starting")
    assert codes["fault:stall"] == ("cancelled", "generating")

    answered = [line for line in lines if line["message"] == "request"]
    assert {line["request_id"] for line in answered} >= set(client.requests.values())
    assert ("debug", "/healthz") in {(line["level"], line["path"]) for line in answered}
    assert {(line["method"], line["path"], line["status"]) for line in answered} >= {
        ("GET", "/api/chat", 200),
        ("POST", "/api/chat", 422),
        ("HEAD", "/api/chat", 200),
        ("GET", "/nothing", 404),
        ("DELETE", f"/api/streams/{client.sids[0][:8]}…", 204),
    }


async def test_no_line_can_be_forged(tmp_path: Path) -> None:
    """Every name from a client holds all that breaks a line or controls a terminal."""
    evil = "\n\r\u2028\x85\x1b[2J\x9b2J12:00:00 INFO    forged \u202e"
    simulator = quick()
    async with (
        serve(simulator.app) as url,
        process(tmp_path, f"--ollama-url={url}") as gateway,
        aiohttp.ClientSession() as session,
    ):
        client = Client(session, gateway.url)
        await client.ask("GET", f"/{quote(evil)}")
        await client.ask("POST", "/api/chat", json=chat("Hi", model=evil))
        await client.ask("GET", f"/api/chat?prompt=Hi&model={quote(evil)}")
        await client.ask("GET", "/healthz/nothing", headers={"X-Request-Id": "forged id", "X-Forwarded-For": "forged"})
        gateway.terminate()
        await gateway.ended()
    assert sum("forged" in line for line in gateway.log) >= 3
    assert [line for line in gateway.log if not LINE.fullmatch(line)] == []
    assert not re.search("[^\x20-\x7e…]", "".join(gateway.log))


async def test_a_request_id_goes_in_and_out_or_is_made(tmp_path: Path) -> None:
    async with process(tmp_path, "--demo") as gateway, aiohttp.ClientSession() as session:
        for given, kept in {"abc-123": True, "a" * 65: False, "a b": False, "": False}.items():
            async with session.get(gateway.url + "/nothing", headers={"X-Request-Id": given}) as response:
                assert (response.headers["X-Request-Id"] == given) is kept
                if not kept:
                    assert re.fullmatch("[0-9a-f]{16}", response.headers["X-Request-Id"])
        gateway.terminate()
        await gateway.ended()
    assert sum("request_id=abc-123" in line for line in gateway.log) == 1


async def test_a_crash_is_logged_as_a_500_and_its_answer_has_the_request_id(caplog: pytest.LogCaptureFixture) -> None:
    """Starlette sends this response outside of the middleware that does both for all others."""

    async def crash(request: Request) -> Response:
        raise RuntimeError("a fault of ours")

    app = Starlette(routes=[Route("/crash", crash)], middleware=[Middleware(Access)], exception_handlers=HANDLERS)
    caplog.set_level(logging.INFO)
    async with (
        serve(app) as url,
        aiohttp.ClientSession() as session,
        session.get(url + "/crash", headers={"X-Request-Id": "mine"}) as response,
    ):
        assert response.status == 500
        assert response.headers["X-Request-Id"] == "mine"
        assert (await response.json())["code"] == "internal_error"
    [line] = [vars(record)["fields"] for record in caplog.records if record.message == "request"]
    assert (line["request_id"], line["status"]) == ("mine", 500)
    assert sum("a fault of ours" in (record.exc_text or "") for record in caplog.records) == 1
