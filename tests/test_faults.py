"""Whatever Ollama does wrong, its reader gets exactly one terminal message, with the code and phase that fit."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.demo.faults import FAULTS
from gateway.jobs import Job, Kind, Limits
from gateway.streams.generation import Generation, Observer
from gateway.streams.ledger import Ledger
from gateway.streams.memory import MemoryLog, MemoryLogs
from gateway.streams.places import Rules
from gateway.streams.pulse import Pulse
from gateway.streams.queue import LocalQueue
from gateway.streams.quotas import Quota, Quotas
from gateway.streams.registry import Streams
from gateway.streams.running import Running
from gateway.streams.shelf import Shelf
from gateway.upstream.client import OllamaClient
from gateway.upstream.servers import Upstreams
from tests.asks import CHAT, quick
from tests.gateways import gateway
from tests.sse import ending, messages, text
from tests.upstreams import (
    NDJSON,
    ONCE_DONE,
    Answer,
    Peer,
    chunk,
    head,
    says,
    silence,
    streams,
    token,
    upstream,
    whole,
)

STREAM = head(200, {"Content-Type": NDJSON, "Transfer-Encoding": "chunked"})
LIMITS = {"first_token_timeout": 60, "idle_timeout": 60}


async def close_at_once(peer: Peer) -> None:
    peer.close()


async def reset_at_once(peer: Peer) -> None:
    peer.reset()


async def close_mid_stream(peer: Peer) -> None:
    await peer.send(STREAM, chunk(token("a")), chunk(token("b")))
    peer.close()


async def close_mid_line(peer: Peer) -> None:
    await peer.send(STREAM, chunk(token("a")), chunk(token("b")[:-9]))
    peer.close()


async def close_mid_refusal(peer: Peer) -> None:
    await peer.send(whole(500, b'{"error":"it broke"}')[:-4])
    peer.close()


async def reset_mid_stream(peer: Peer) -> None:
    await peer.send(STREAM, chunk(token("a")))
    peer.reset()


async def stall(peer: Peer) -> None:
    await peer.send(STREAM, chunk(token("a")))
    await silence(peer)


async def headers_only(peer: Peer) -> None:
    await peer.send(STREAM)
    await silence(peer)


async def stalled_refusal(peer: Peer) -> None:
    await peer.send(head(500, {"Content-Length": "100"}))
    await silence(peer)


async def never_done(peer: Peer) -> None:
    await peer.send(STREAM)
    while True:
        await peer.lines(token("on "))
        await asyncio.sleep(0.01)


@dataclass
class Case:
    """`said` is the text that came through before the error."""

    answer: Answer
    code: str
    phase: str = "starting"
    said: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "400": Case(says(whole(400, b'{"error":"no"}')), "ollama_error"),
    "404": Case(says(whole(404, b'{"error":"model \'m\' not found"}')), "model_not_found"),
    "404 of another server": Case(says(whole(404, b"404 page not found", "text/plain")), "bad_upstream"),
    "401": Case(says(whole(401, b'{"error":"unauthorized","signin_url":"https://x"}')), "ollama_error"),
    "403": Case(says(whole(403, b"")), "ollama_error"),
    "500": Case(says(whole(500, b'{"error":"no"}')), "ollama_error"),
    "500 with an empty body": Case(says(whole(500, b"")), "bad_upstream"),
    "500 that is JSON of another kind": Case(says(whole(500, b'["error"]')), "bad_upstream"),
    "502 of a proxy": Case(says(whole(502, b"<h1>Bad gateway</h1>", "text/html")), "bad_upstream"),
    "503": Case(says(whole(503, b'{"error":"server busy"}')), "busy"),
    "redirect": Case(says(head(302, {"Location": "/elsewhere", "Content-Length": "0"})), "bad_upstream"),
    "redirect with an error": Case(
        says(head(302, {"Location": "/elsewhere", "Content-Length": "13"}) + b'{"error":"x"}'), "bad_upstream"
    ),
    "error cut in the middle": Case(close_mid_refusal, "bad_upstream"),
    "error that never comes": Case(stalled_refusal, "first_token_timeout", settings={"first_token_timeout": 0.1}),
    "error line first": Case(streams(b'{"error":"no"}\n'), "ollama_error"),
    "error line": Case(streams(token("a"), b'{"error":"no"}\n'), "ollama_error", "generating", "a"),
    "error line of no known form": Case(streams(token("a"), b'{"error":{}}\n'), "ollama_error", "generating", "a"),
    "close before an answer": Case(close_at_once, "ollama_unreachable"),
    "reset before an answer": Case(reset_at_once, "ollama_unreachable"),
    "bare EOF": Case(close_mid_stream, "truncated", "generating", "ab"),
    "bare EOF in a line": Case(close_mid_line, "truncated", "generating", "a"),
    "reset": Case(reset_mid_stream, "truncated", "generating", "a"),
    # aiohttp closes the connection and tells nobody: then it is the idle limit that notices
    "malformed chunk": Case(
        says(STREAM, chunk(token("a")), b"xyz\r\n"), "idle_timeout", "generating", "a", {"idle_timeout": 0.1}
    ),
    "EOF without done": Case(streams(token("a")), "truncated", "generating", "a"),
    "200 with an empty body": Case(says(whole(200, b"")), "truncated"),
    "200 with no chunk": Case(streams(), "truncated"),
    "blank lines only": Case(streams(b"\n", b" \n"), "truncated"),
    "silent": Case(silence, "first_token_timeout", settings={"first_token_timeout": 0.1}),
    "silent after the headers": Case(headers_only, "first_token_timeout", settings={"first_token_timeout": 0.1}),
    "stall": Case(stall, "idle_timeout", "generating", "a", {"idle_timeout": 0.1}),
    "silent, total": Case(silence, "total_timeout", settings={"total_timeout": 0.1}),
    "silent, total only": Case(silence, "total_timeout", settings={"total_timeout": 0.1, "first_token_timeout": 0}),
    "oversized line": Case(
        streams(token("a"), token("b" * 1000)), "bad_upstream", "generating", "a", {"max_line_bytes": 1000}
    ),
    "oversized line that does not end": Case(
        streams(token("a"), *[b"b" * 100] * 20), "bad_upstream", "generating", "a", {"max_line_bytes": 1000}
    ),
    "line that is not JSON": Case(streams(token("a"), b"no\n"), "bad_upstream", "generating", "a"),
    "line that is not an object": Case(streams(token("a"), b'["no"]\n'), "bad_upstream", "generating", "a"),
    "line that is not UTF-8": Case(
        streams(token("a"), token("b").replace(b"b", b"\xff")), "bad_upstream", "generating", "a"
    ),
    "HTML": Case(says(whole(200, b"<!doctype html>\n<p>Sign in", "text/html")), "bad_upstream"),
    "HTML and no HTTP": Case(says(b"<!doctype html>\n<p>Sign in\n\n"), "bad_upstream"),
    "binary and no HTTP": Case(says(bytes(range(256)) * 8), "bad_upstream"),
    "oversized header": Case(says(head(200, {"X": "x" * 100_000})), "bad_upstream"),
    "answer over the bound of a stream": Case(
        streams(token("a"), token("b" * 1000), ONCE_DONE), "too_large", "generating", "a", {"max_stream_bytes": 1000}
    ),
    "answer over the bound of all streams": Case(
        streams(token("a"), token("b" * 1000), ONCE_DONE), "busy", "generating", "a", {"max_log_bytes": 1000}
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_fault(name: str) -> None:
    """One terminal message; the connection to Ollama, the slot and the log are given back."""
    case = CASES[name]
    async with (
        upstream(case.answer) as ollama,
        gateway(ollama.url, max_active=1, max_queued=0, retain_seconds=0, **LIMITS | case.settings) as gw,
    ):
        events = await gw.read(CHAT)
        assert ending(events) == ("error", case.code)
        error = messages(events)[-1].json
        assert error["phase"] == case.phase
        assert error.keys() == {"error", "code", "status", "phase", "retryable"}
        assert text(events[:-2]) == case.said
        await ollama.until(lambda: ollama.open == 0)
        assert len(gw.state["streams"].running) == 0
        async with gw.session.get(f"{gw.url}/api/streams/{events[0].json['id']}") as response:
            assert response.status == 404
        assert ending(await gw.read(CHAT)) == ("error", case.code)  # the slot is free, or the error would be `busy`


@pytest.mark.parametrize("junk", [b"", chunk(b"x" * 2000)], ids=["reset", "oversized line"])
async def test_fault_after_the_last_line(junk: bytes) -> None:
    """An answer that is complete has one end, though its HTTP body goes wrong after it."""
    ended = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.send(STREAM, chunk(token("a")), chunk(ONCE_DONE))
        await ended.wait()
        if junk:
            await peer.send(junk)
        else:
            peer.reset()

    async with upstream(answer) as ollama, gateway(ollama.url, max_active=1, max_line_bytes=1000) as gw:
        sid = (await gw.read(CHAT))[0].json["id"]
        ended.set()
        await gw.read(CHAT)  # it has its turn once the first one has given back its slot
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)


async def test_total_limit_mid_stream() -> None:
    async with upstream(never_done) as ollama, gateway(ollama.url, total_timeout=1) as gw:
        events = await gw.read(CHAT)
        assert ending(events) == ("error", "total_timeout")
        assert messages(events)[-1].json["phase"] == "generating"
        assert text(events).startswith("on on ")
        await ollama.until(lambda: ollama.open == 0)


async def test_connection_refused(closed_port: str) -> None:
    async with gateway(closed_port) as gw:
        events = await gw.read(CHAT)
    assert ending(events) == ("error", "ollama_unreachable")
    assert messages(events)[-1].json["phase"] == "starting"


async def test_unknown_host() -> None:
    async with gateway("http://nowhere.invalid:11434") as gw:
        assert ending(await gw.read(CHAT)) == ("error", "ollama_unreachable")


async def test_connect_timeout(full_backlog: str) -> None:
    """The message names both the limit and the address as settings."""
    async with gateway(full_backlog, connect_timeout=0.2) as gw:
        events = await gw.read(CHAT)
    assert ending(events) == ("error", "connect_timeout")
    error = messages(events)[-1].json
    assert error["phase"] == "starting"
    assert "GATEWAY_CONNECT_TIMEOUT" in error["error"]


async def test_raw_cr_forges_nothing() -> None:
    """JSON allows CR as white space and SSE ends a line at it: it reaches the reader as a space."""
    line = b'{"model":"m",\r"message":{"content":"a"},\rdata: x\r\r"done":false}\r\n'.replace(b"data: x", b'"x":1,')
    async with upstream(streams(line, b'{"done":\rtrue}\r\n')) as ollama, gateway(ollama.url) as gw:
        events = await gw.read(CHAT)
    assert ending(events) == ("complete", None)
    assert [event.data for event in messages(events)] == [
        line.rstrip(b"\n").replace(b"\r", b" "),
        b'{"done": true} ',
    ]


async def test_lines_after_the_end_are_dropped() -> None:
    """`done` ends the answer, whatever else comes: a second terminal message would break every client."""
    answer = streams(token("a"), ONCE_DONE + token("b") + ONCE_DONE, token("c"), b'{"error":"late"}\n')
    async with upstream(answer) as ollama, gateway(ollama.url) as gw:
        events = await gw.read(CHAT)
        assert ending(events) == ("complete", None)
        assert text(events) == "a"


async def test_finished_answer_frees_its_connection() -> None:
    """An answer is over at `done`; if the HTTP body then does not end, the connection is closed all the same."""

    async def answer(peer: Peer) -> None:
        await peer.send(STREAM, chunk(ONCE_DONE))
        await silence(peer)

    async with upstream(answer) as ollama, gateway(ollama.url) as gw:
        assert ending(await gw.read(CHAT)) == ("complete", None)
        await ollama.until(lambda: ollama.open == 0)


async def test_finished_connection_is_used_again() -> None:
    """After a whole answer the next request goes over the same connection, as it would with Ollama."""
    connections: set[int] = set()

    async def answer(peer: Peer) -> None:
        connections.add(peer.connection)
        await streams(token("a"), ONCE_DONE)(peer)

    async with upstream(answer) as ollama, gateway(ollama.url, max_active=1) as gw:
        for _ in range(3):
            assert ending(await gw.read(CHAT)) == ("complete", None)
    assert len(connections) == 1


async def test_fault_of_our_own(caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen error ends the stream, too, with the traceback in the log and nothing of it in the answer."""
    ollama = OllamaClient("http://127.0.0.1:9", connect_timeout=1, query_timeout=1, max_line=1000)
    ledger = Ledger(10**6)
    shelf = Shelf[MemoryLog](ledger, max_stream_bytes=10**6, retain_seconds=60)
    running, queue = Running(), LocalQueue(Rules(1), 0)
    started: list[Generation] = []

    class Seen(Observer):
        def started(self, generation: Generation) -> None:
            started.append(generation)

    registry = Streams(
        upstreams=Upstreams([ollama]),  # they are never opened
        logs=MemoryLogs(shelf),
        queue=queue,
        running=running,
        ledger=ledger,
        quotas=Quotas(Quota(), running, queue),
        limits=Limits(0, 0, 0),
        attach_timeout=10,
        max_resume_window=0,
        observers=[Pulse(1), Seen()],
    )

    async def job() -> Job:
        return Job(Kind.CHAT, "m", b"{}")

    for _ in range(2):
        _, log = await registry.start("", job, None)
        await started.pop().finished()
        text = b"".join([chunk async for chunk in log.read(0)])
        assert (text.count(b'"code":"internal_error"'), text.count(b"event: end")) == (1, 1)
        assert b"AttributeError" not in text
        assert "AttributeError" in caplog.text
    assert len(registry.running) == 0
    shelf.close()


@pytest.mark.parametrize("broken", ["ps", "show"])
async def test_model_list_with_a_question_unanswered(broken: str) -> None:
    """A list without the details of one model, or without marks of the loaded ones, is better than none."""
    answers = {
        "tags": says(whole(200, b'{"models":[{"name":"m:latest"},{"name":"n:latest","digest":"d"}]}')),
        "ps": says(whole(200, b'{"models":[{"name":"m:latest","context_length":4096}]}')),
        "show": says(whole(200, b'{"capabilities":["completion"]}')),
        broken: says(whole(500, b'{"error":"no"}')),
    }
    async with upstream(silence, **answers) as ollama, gateway(ollama.url) as gw:
        for _ in range(2):
            async with gw.session.get(gw.url + "/api/models") as response:
                models = (await response.json())["models"]
            assert [model["name"] for model in models] == ["m:latest", "n:latest"]
            assert [model["loaded"] for model in models] == [broken != "ps", False]
            assert models[0]["capabilities"] == ([] if broken == "show" else ["completion"])
            gw.state["streams"].upstreams.answers.forget()
        assert len(ollama.asked("/api/show")) == (4 if broken == "show" else 2)  # asked again only where it failed


COMPLETE = ("complete", None, "")
SIMULATED = {
    "bare-eof": ("error", "truncated", "generating"),
    "burst": COMPLETE,
    "cr": COMPLETE,
    "crash": ("error", "ollama_error", "generating"),
    "empty": ("error", "truncated", "starting"),
    "error": ("error", "ollama_error", "starting"),
    "error-400": ("error", "invalid_request", "starting"),  # the runner says that the prompt is too long
    "error-401": ("error", "ollama_error", "starting"),
    "error-503": ("error", "busy", "starting"),
    "html": ("error", "bad_upstream", "starting"),
    "load-failed": ("error", "ollama_error", "starting"),
    "long-line": COMPLETE,
    "no-response": ("error", "ollama_unreachable", "starting"),
    "no-tokens": COMPLETE,
    "not-json": ("error", "bad_upstream", "generating"),
    "oversized-line": ("error", "bad_upstream", "starting"),
    "rechunked": COMPLETE,
    "repeat": ("error", "truncated", "generating"),
    "silent": ("error", "first_token_timeout", "prompt"),
    "slow-load": ("error", "first_token_timeout", "loading"),
    "stall": ("error", "idle_timeout", "generating"),
    "truncate": ("error", "truncated", "generating"),
    "unicode": COMPLETE,
    "unterminated": COMPLETE,
}


def test_every_simulated_fault_is_here() -> None:
    assert sorted(SIMULATED) == sorted(FAULTS)


@pytest.mark.parametrize("route", ["chat", "generate"])
@pytest.mark.parametrize("name", SIMULATED)
async def test_simulated_fault(name: str, route: str) -> None:
    """The faults that a newcomer can try with `--demo` end as the scripted ones do."""
    simulator = quick()
    outcome, code, phase = SIMULATED[name]
    limits = {
        "silent": {"first_token_timeout": 0.5},
        "slow-load": {"first_token_timeout": 0.5},
        "stall": {"idle_timeout": 0.2},
    }
    async with gateway(simulator, max_active=1, **limits.get(name, {})) as gw:
        events = await gw.read(f"/api/{route}?model=fault:{name}&prompt=Hi")
        assert ending(events) == (outcome, code)
        if outcome != "complete":
            shown = messages(events)[-1].json["phase"]
            assert shown == phase or "starting" in (shown, phase) or {shown, phase} == {"loading", "prompt"}
        await simulator.until(lambda: simulator.running == 0)
