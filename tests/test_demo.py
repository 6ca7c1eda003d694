"""The simulated Ollama, held to the recorded one over raw sockets, and to what its own docstring promises."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pytest

from gateway import demo
from gateway.demo import Simulator, answers
from gateway.demo.faults import FAULTS
from gateway.demo.models import Model, full_name
from gateway.demo.shapes import json_answer
from gateway.demo.wire import dumps, timestamp
from tests import transcripts
from tests.servers import serve
from tests.transcripts import Transcript

NOT_SIMULATED = {
    "copy": "the gateway copies no models",
    "create-from-gguf-stream": "the gateway creates no models",
    "create-missing-blob": "the gateway creates no models",
    "create-nostream": "the gateway creates no models",
    "server-starting-version": "a server that is not ready yet: the simulator has nothing to look for when it starts",
}

RECORDED_MODELS = (
    Model("tiny:latest", native=True, context_length=2048),
    Model("tiny-think:latest", ("completion", "tools", "thinking"), native=True),
    Model("tiny-tools:latest", ("completion", "tools"), native=True),
    Model("tiny-gotools:latest", ("completion", "tools")),
    Model("tiny-gothink:latest", ("completion", "thinking")),
    Model("tiny-embed:latest", ("embedding",)),
    Model("tiny-long:latest", native=True),
    Model("tiny-new:latest"),
)

FAULTY = {
    "chat-empty-answer": "no-tokens",
    "chat-ends-without-done-repeat": "repeat",
    "chat-stream-burst": "burst-300",
    "chat-unicode": "unicode",
    "error-first-event-500": "error",
    "error-invalid-tool-arguments-500": "error",
    "error-invalid-tool-arguments-midstream": "crash",
    "error-load-failed-500": "load-failed",
    "error-load-failed-with-message-500": "load-failed",
    "error-midstream-error-line-chat": "crash",
    "error-nostream-midstream-500": "crash",
    "error-queue-full-chat-503": "error-503",
    "error-queue-full-generate-503": "error-503",
    "error-runner-500": "error",
    "error-runner-crash-midstream-chat": "crash",
    "error-runner-crash-midstream-generate": "crash",
    "error-runner-crash-midstream-with-message": "crash",
    "error-runner-dies-before-first-token-chat-500": "error",
    "error-runner-dies-before-first-token-generate-500": "error",
    "error-runner-dies-with-message-chat-500": "error",
    "error-runner-rejects-400": "error-400",
    "generate-empty-answer": "no-tokens",
    "generate-ends-without-done-repeat": "repeat",
    "generate-nostream-ends-without-done-repeat": "repeat",
    "generate-nostream-runner-error-swallowed": "truncate",
    "generate-runner-error-swallowed": "truncate",
    "generate-unicode": "unicode",
    "pull-failing-digest-mismatch": "digest-mismatch",
    "pull-failing-unreachable": "unreachable",
    "server-sigterm-before-headers": "no-response",
    "server-sigterm-midstream-chat": "bare-eof",
    "server-sigterm-midstream-generate": "bare-eof",
}
"""What a scripted or dying runner did there, a fault does here."""

OTHER_WORDS = {
    "error-first-event-500": "one text for all that a runner may say",
    "error-invalid-tool-arguments-500": "one text for all that a runner may say",
    "error-invalid-tool-arguments-midstream": "one text for all that a runner may say",
    "error-load-failed-with-message-500": "the load fails without a reason",
    "error-midstream-error-line-chat": "one text for all that a runner may say",
    "error-nostream-midstream-500": "one text for all that a runner may say",
    "error-runner-500": "one text for all that a runner may say",
    "error-runner-crash-midstream-with-message": "the runner dies without last words",
    "error-runner-dies-with-message-chat-500": "the runner dies without last words",
    "pull-failing-digest-mismatch": "the digests differ",
    "pull-failing-unreachable": "another registry",
}
"""Where the text of an error differs, and why. Everywhere else it is the recorded one, byte for byte."""

LOAD = ("/api/generate", {"model": "tiny"})
BEFORE: dict[str, tuple[str, dict[str, Any]]] = {
    "ps-loaded": LOAD,
    "ps-keep-alive-forever": ("/api/generate", {"model": "tiny", "keep_alive": -1}),
    "chat-unload-keep-alive-0": LOAD,
    "generate-unload-keep-alive-0": LOAD,
    "pull-already-present-stream": ("/api/pull", {"model": "127.0.0.1:35211/library/tiny-remote"}),
}
"""A request that must come first."""


@dataclass
class Answer:
    """A response as it came over a raw socket, in the terms of a `Transcript`."""

    status: int | None
    headers: dict[str, str]
    framing: str | None
    chunks: list[bytes]
    ended: str

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.split(b"\n") if line]

    @property
    def text(self) -> str:
        return "".join(line["message"]["content"] if "message" in line else line["response"] for line in self.lines)


class Connection:
    """A raw connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        head = {"Host": "127.0.0.1", "Content-Length": str(len(body))} | (headers or {})
        fields = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode() + body)

    async def answer(self) -> Answer:
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except asyncio.IncompleteReadError:
            return Answer(None, {}, None, [], "connection closed before response headers")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
        answer = Answer(int(head[0].split()[1]), headers, "chunked", [], "complete")
        if "content-length" in headers:
            answer.framing = "content-length"
            if length := int(headers["content-length"]):
                answer.chunks.append(await self.reader.readexactly(length))
            return answer
        try:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                answer.chunks.append((await self.reader.readexactly(size + 2))[:-2])
            assert await self.reader.readexactly(2) == b"\r\n"
        except asyncio.IncompleteReadError:
            answer.ended = "connection closed without terminating chunk"
        return answer

    async def ask(self, path: str, body: Any = None, method: str | None = None) -> Answer:
        method = method or ("GET" if body is None else "POST")
        self.send(method, path, b"" if body is None else json.dumps(body).encode())
        return await self.answer()

    def leave(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Connection]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**26)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask(url: str, path: str, body: Any = None, method: str | None = None) -> Answer:
    async with connect(url) as connection:
        return await connection.ask(path, body, method)


def quick(**settings: Any) -> Simulator:
    """A simulator that pauses nowhere, unless `settings` say so."""
    return Simulator(**{"token_rate": 0, "load_seconds": 0, "prompt_seconds": 0, "pull_seconds": 0} | settings)


def chat(model: str = "llama3.2", content: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


def shape(value: Any, key: str = "") -> Any:
    """A JSON value without its particulars: names in their order, and kinds. Whether a text is empty stays."""
    if key in {"arguments", "model_info"}:  # as free as the tool, or as the model's architecture
        return type(value)
    if isinstance(value, dict):
        return [(name, shape(item, name)) for name, item in value.items()]
    if isinstance(value, list):
        kinds: list[Any] = []
        for item in map(shape, value):
            if item not in kinds:
                kinds.append(item)
        return kinds
    if isinstance(value, str):
        return "text" if value else "empty"
    return float if isinstance(value, int | float) and not isinstance(value, bool) else value


def shapes(body: bytes) -> list[Any]:
    """Of each line, with runs of the same shape taken together."""
    return [line for line, _ in groupby(shape(json.loads(line)) for line in body.split(b"\n") if line)]


def asked_again(recorded: Transcript) -> bytes:
    """The recorded request, to the fault that does here what happened there."""
    if recorded.name in FAULTY:
        request = recorded.request_json
        request["model"] = f"fault:{FAULTY[recorded.name]}"
        return json.dumps(request).encode()
    return recorded.request_body


@pytest.mark.parametrize("name", [name for name in transcripts.NAMES if name not in NOT_SIMULATED])
async def test_answers_as_recorded(name: str) -> None:
    """Same status, headers, framing, kinds of lines in the same order, error text, and way to end."""
    recorded = transcripts.load(name)
    simulator = quick()
    simulator.models.clear()
    if name != "tags-empty":
        simulator.models.update({model.name: model for model in RECORDED_MODELS})
    async with serve(simulator.app, server_header=False) as url, connect(url) as connection, connect(url) as other:
        if name in BEFORE:
            await connection.ask(*BEFORE[name])
        if name == "ps-while-loading":
            other.send("POST", "/api/chat", dumps(chat("fault:slow-load")))
            await simulator.until(lambda: simulator.states["loading"] == 1)
        connection.send(recorded.method, recorded.path, asked_again(recorded), recorded.request_headers)
        answer = await connection.answer()
        if recorded.ended == "complete":
            assert (await connection.ask("/api/version")).status == 200  # the connection stays open

    assert (answer.status, answer.ended) == (recorded.status, recorded.ended)
    assert answer.headers.keys() - {"content-length", "transfer-encoding"} == {
        key.lower() for key in recorded.headers.keys() - {"Content-Length", "Transfer-Encoding"}
    }
    for header in ("content-type", "allow", "vary", "access-control-allow-origin"):
        assert answer.headers.get(header) == recorded.headers.get(header.title())
    assert answer.framing == expected_framing(recorded, answer)
    if not answer.headers.get("content-type", "").startswith("application/"):
        assert answer.body == recorded.body
        return
    assert shapes(answer.body) == shapes(recorded.body)
    if answer.framing == "chunked" and answer.status == 200 and "ndjson" in answer.headers["content-type"]:
        assert all(chunk.endswith(b"\n") and chunk.count(b"\n") == 1 for chunk in answer.chunks)
    last, recorded_last = answer.lines[-1], json.loads(recorded.body.splitlines()[-1])
    assert last.get("done_reason") == recorded_last.get("done_reason")
    if name not in OTHER_WORDS:
        assert last.get("error") == recorded_last.get("error")


def expected_framing(recorded: Transcript, answer: Answer) -> str | None:
    """As recorded; but Go decides by the length of a 200 that is not a stream, and lengths differ here."""
    if recorded.status == 200 and recorded.headers.get("Content-Type") == "application/json; charset=utf-8":
        assert recorded.framing == ("chunked" if len(recorded.body) > 2048 else "content-length")
        return "chunked" if len(answer.body) > 2048 else "content-length"
    return recorded.framing


def test_every_exception_names_a_transcript() -> None:
    """An entry that excuses nothing would hide that a transcript was renamed."""
    assert {*NOT_SIMULATED, *FAULTY, *OTHER_WORDS, *BEFORE} <= set(transcripts.NAMES)


@pytest.mark.parametrize("name", ["chat-unicode", "generate-unicode"])
def test_escapes_as_go_does(name: str) -> None:
    """What Python parses from Ollama's lines, the simulator writes back as the same bytes."""
    for line in transcripts.load(name).body.splitlines():
        assert dumps(json.loads(line)) == line


def test_times_have_no_trailing_zeros() -> None:
    """As Go's RFC3339Nano; a whole second has no fraction at all."""
    assert timestamp(1_795_342_219_005_286_790) == "2026-11-22T10:10:19.00528679Z"
    assert timestamp(1_795_342_219_000_000_000) == "2026-11-22T10:10:19Z"


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
        ("someone/model:q4", "someone/model:q4"),
        ("127.0.0.1:5000/library/m", "127.0.0.1:5000/m:latest"),
        ("fault:stall", "fault:stall"),
        ("", None),
        ("a b", None),
        ("a/b/c/d", None),
        ("naïve", None),
    ],
)
def test_model_names(name: str, full: str | None) -> None:
    """Short names are completed, malformed ones refused."""
    assert full_name(name) == full


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ('{"model":"llama3.2","messages":[{"role":', 400, "unexpected EOF"),
        ('{"model":"llama3.2', 400, "unexpected EOF"),
        ('{model:"llama3.2"}', 400, "invalid character 'm' looking for beginning of object key string"),
        ('{"model" "llama3.2"}', 400, "invalid character '\"' after object key"),
        ("[]", 400, "json: cannot unmarshal array into Go value of type api.ChatRequest"),
        ('{"model":7}', 400, "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"),
        (
            '{"model":"llama3.2","messages":["hi"]}',
            400,
            "json: cannot unmarshal string into Go value of type api.Message",
        ),
        (
            '{"model":"llama3.2","messages":[{"content":[1]}]}',
            400,
            "json: cannot unmarshal array into Go struct field Alias.content of type string",
        ),
        ('{"model":"gemma3","messages":[{"images":["?"]}]}', 400, "illegal base64 data at input byte 0"),
        ('{"model":"llama3.2","keep_alive":"5"}', 400, 'time: missing unit in duration "5"'),
        ('{"model":"llama3.2","keep_alive":"soon"}', 400, 'time: invalid duration "soon"'),
        ('{"model":"llama3.2","keep_alive":true}', 400, "Unsupported type: 'bool'"),
        (
            '{"model":"qwen3","think":3}',
            400,
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)',
        ),
        ('{"model":"llama3.2","options":{"stop":[1]}}', 500, 'option "stop" must be of an array of strings'),
        ('{"model":"llama3.2","options":{"top_p":true}}', 500, 'option "top_p" must be of type float32'),
        (
            '{"model":"llama3.2","messages":[{"content":"x"}],"format":{"$ref":"#/none"}}',
            500,
            "failed to parse grammar",
        ),
        ('{"keep_alive":NaN}', 400, "invalid character 'N' looking for beginning of value"),
        ("null", 400, "model is required"),
        ("[" * 100_000, 400, "exceeded max depth"),
        ('{"model":"fault:nothing","messages":[]}', 404, "model 'fault:nothing' not found"),
    ],
)
async def test_refuses_as_ollama_words_it(body: str, status: int, error: str) -> None:
    """Client mistakes beyond the recorded ones."""
    async with serve(quick().app) as url, connect(url) as connection:
        connection.send("POST", "/api/chat", body.encode())
        answer = await connection.answer()
    assert (answer.status, answer.lines) == (status, [{"error": error}])


async def test_reads_json_as_leniently_as_go() -> None:
    """Bytes after the first value are ignored, broken UTF-8 and half characters are replaced."""
    body = json.dumps(chat(content="half \ud83d")).encode() + b" trailing"
    async with serve(quick().app) as url, connect(url) as connection:
        for text in (body, body.replace(b"half", b"\xff")):
            connection.send("POST", "/api/chat", text)
            assert (await connection.answer()).lines[-1]["done"]


async def test_allows_local_hosts_and_origins_only() -> None:
    """By name or address; a page of the server itself needs no permission."""
    async with serve(quick().app) as url, connect(url) as connection:
        for host in ("localhost:11434", "[::1]:1", "ollama.local", "192.168.1.7", "x.localhost"):
            connection.send("GET", "/api/version", headers={"Host": host, "Origin": f"http://{host}"})
            assert (await connection.answer()).status == 200, host
        connection.send("GET", "/api/version", headers={"Origin": "app://page"})
        assert (await connection.answer()).status == 200
        for host in ("example.com", "8.8.8.8", "localhost.example.com"):
            connection.send("GET", "/api/version", headers={"Host": host})
            assert (await connection.answer()).status == 403, host


PHASES: dict[str, dict[str, Any]] = {
    "loading": {"load_seconds": 60},
    "waiting": {"parallel": 0},
    "prompt": {"prompt_seconds": 60},
    "generating": {"token_rate": 0.01},
}
"""Settings that hold a request in one phase."""


@pytest.mark.parametrize("phase", ["loading", "waiting", "prompt"])
async def test_nothing_is_sent_before_the_first_token(phase: str) -> None:
    """Not a byte. `/api/ps` lists the model only once it is loaded."""
    simulator = quick(**PHASES[phase])
    async with serve(simulator.app) as url, connect(url) as connection:
        connection.send("POST", "/api/chat", dumps(chat()))
        await simulator.until(lambda: simulator.states["loading"] == 1)
        await simulator.until(lambda: simulator.requests[0].state == phase)
        ps = (await ask(url, "/api/ps")).lines[0]["models"]
        assert [model["name"] for model in ps] == ([] if phase == "loading" else ["llama3.2:latest"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.reader.read(1)


@pytest.mark.parametrize("half_close", [False, True])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_leaving_client_is_noticed(phase: str, half_close: bool) -> None:
    """In every phase, by RST as by FIN; nothing is left of its request, not even the load."""
    simulator = quick(**PHASES[phase])
    async with serve(simulator.app) as url, connect(url) as connection:
        connection.send("POST", "/api/generate", dumps({"model": "llama3.2", "prompt": "Hello"}))
        await simulator.until(lambda: simulator.states["loading"] == 1)
        await simulator.until(lambda: simulator.requests[0].state == phase)
        assert simulator.running == 1
        if half_close:
            connection.writer.write_eof()
        else:
            connection.leave()
        await simulator.until(lambda: simulator.requests[0].state == "cancelled")
        assert simulator.running == 0
        ps = (await ask(url, "/api/ps")).lines[0]["models"]
        assert len(ps) == (phase != "loading")


async def test_a_load_is_shared_and_aborted_when_its_last_waiter_leaves() -> None:
    """One of two leaves: the load goes on. Both leave: it is aborted, and the next request begins a new one."""
    simulator = quick(load_seconds=60)
    async with serve(simulator.app) as url, connect(url) as first, connect(url) as second:
        for connection in (first, second):
            connection.send("POST", "/api/chat", dumps(chat()))
        await simulator.until(lambda: simulator.states["loading"] == 2)
        first.leave()
        await simulator.until(lambda: simulator.states["cancelled"] == 1)
        simulator.load_seconds = 0  # for a new load, had the old one been aborted
        third = asyncio.ensure_future(ask(url, "/api/chat", chat()))
        await simulator.until(lambda: len(simulator.requests) == 3 and simulator.states["loading"] == 2)
        second.leave()
        third.cancel()
        await simulator.until(lambda: simulator.running == 0)
        assert (await ask(url, "/api/chat", chat())).lines[-1]["done"]


async def test_another_context_length_loads_anew() -> None:
    """As any option of the runner does, once nobody uses it."""
    simulator = quick(load_seconds=0.05)
    async with serve(simulator.app) as url, connect(url) as connection:
        loads = []
        for num_ctx in (4096, 4096, 8192):
            answer = await connection.ask("/api/chat", chat(options={"num_ctx": num_ctx}))
            loads.append(answer.lines[-1]["load_duration"] > 0.04e9)
        ps = (await connection.ask("/api/ps")).lines[0]["models"]
    assert loads == [True, False, True]
    assert [model["context_length"] for model in ps] == [8192]


async def test_a_client_that_leaves_before_its_body_is_whole(caplog: pytest.LogCaptureFixture) -> None:
    """It has asked for nothing yet, and nobody complains."""
    simulator = quick()
    async with serve(simulator.app) as url, connect(url) as connection:
        connection.send("POST", "/api/chat", b'{"model":', {"Content-Length": "1000"})
        connection.writer.write_eof()
        assert await connection.reader.read() == b""
    assert not simulator.requests
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


async def test_a_model_has_so_many_slots() -> None:
    """The others wait in silence; a slot goes on when its client leaves."""
    simulator = quick(parallel=2)
    async with serve(simulator.app) as url, connect(url) as one, connect(url) as two, connect(url) as three:
        for connection in (one, two):
            connection.send("POST", "/api/chat", dumps(chat("fault:stall")))
        await simulator.until(lambda: simulator.states["generating"] == 2)
        three.send("POST", "/api/chat", dumps(chat("fault:stall")))
        await simulator.until(lambda: len(simulator.requests) == 3)
        assert (await ask(url, "/api/chat", chat())).lines[-1]["done"]  # another model has its own slots
        assert [request.state for request in simulator.requests][:3] == ["generating", "generating", "waiting"]
        one.leave()
        await simulator.until(lambda: simulator.requests[2].state == "generating")


async def test_the_queue_is_bounded_while_a_model_loads() -> None:
    """One request is being served, one may wait, the third is refused at once."""
    simulator = quick(max_queue=1)
    async with serve(simulator.app) as url, connect(url) as one, connect(url) as two:
        for connection in (one, two):
            connection.send("POST", "/api/chat", dumps(chat("fault:slow-load")))
        await simulator.until(lambda: simulator.states["loading"] == 2)
        answer = await ask(url, "/api/chat", chat())
        assert answer.status == 503
        assert answer.body == transcripts.load("error-queue-full-chat-503").body


@pytest.mark.parametrize(
    ("keep_alive", "stays"), [(0, False), ("0s", False), ("1ms", False), (-1, True), ("1h30m", True)]
)
async def test_keep_alive(keep_alive: int | str, stays: bool) -> None:
    """A model leaves memory so long after its last request; a negative time is for ever."""
    simulator = quick()
    async with serve(simulator.app) as url:
        await ask(url, "/api/chat", chat(keep_alive=keep_alive))
        async with asyncio.timeout(5):
            while bool((await ask(url, "/api/ps")).lines[0]["models"]) != stays:
                pass


async def test_an_unload_waits_for_who_is_using_the_model() -> None:
    """The answer comes at once; the model goes with its last user."""
    simulator = quick()
    async with serve(simulator.app) as url, connect(url) as user:
        user.send("POST", "/api/chat", dumps(chat("fault:stall")))
        await simulator.until(lambda: simulator.states["generating"] == 1)
        unloaded = await ask(url, "/api/generate", {"model": "fault:stall", "keep_alive": 0})
        assert unloaded.lines[0]["done_reason"] == "unload"
        assert (await ask(url, "/api/ps")).lines[0]["models"]
        user.leave()
        await simulator.until(lambda: simulator.running == 0)
        assert (await ask(url, "/api/ps")).lines == [{"models": []}]


ENDINGS = {
    "stall": None,
    "silent": None,
    "slow-load": None,
    "bare-eof": "connection closed without terminating chunk",
    "no-response": "connection closed before response headers",
}
"""How the faulty answers end; None is never, and the others are complete."""


@pytest.mark.parametrize("kind", ["chat", "generate"])
@pytest.mark.parametrize("name", FAULTS)
async def test_faults(name: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each ends as the table says, leaves no request behind, and nothing in the log."""
    simulator = quick()
    body = chat(f"fault:{name}") if kind == "chat" else {"model": f"fault:{name}", "prompt": "Hello"}
    async with serve(simulator.app) as url, connect(url) as connection:
        connection.send("POST", f"/api/{kind}", dumps(body))
        if ENDINGS.get(name, "complete") is None:
            await simulator.until(lambda: len(simulator.requests) == 1)
            connection.leave()
        else:
            assert (await connection.answer()).ended == ENDINGS.get(name, "complete")
        await simulator.until(lambda: simulator.running == 0)
        assert simulator.requests[0].state == ("cancelled" if name in ENDINGS and not ENDINGS[name] else "done")
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


async def test_what_the_odd_faults_send() -> None:
    """Those whose whole point is in the bytes."""
    async with serve(quick().app) as url, connect(url) as connection:

        async def body(name: str) -> bytes:
            return (await connection.ask("/api/chat", chat(f"fault:{name}"))).body

        assert len((await body("oversized-line-200000")).splitlines(keepends=True)[0]) == 200_000
        assert len((await body("long-line-50000")).splitlines(keepends=True)[0]) == 50_000
        cr = await body("cr")
        assert cr.count(b"\r\n") == 9
        assert cr.count(b',\r"') == 9
        unicode = [line for line in (await body("unicode")).split(b"\n") if line]
        again = await connection.ask("/api/chat", chat("fault:rechunked-5"))
        assert {len(chunk) for chunk in answer_body_chunks(again)} == {5}
        assert [json.loads(line)["message"] for line in unicode] == [line["message"] for line in again.lines]
        assert "👩\u200d👩\u200d👧\u200d👦" in again.text
        assert not (await body("unterminated")).endswith(b"\n")
        assert len((await body("burst")).splitlines()) == 5001
        assert (await connection.ask("/api/chat", chat("fault:error-502"))).status == 502
        assert (await connection.ask("/api/chat", chat("fault:slow-load-0"))).lines[-1]["done"]
        with pytest.raises(json.JSONDecodeError):
            [json.loads(line) for line in (await body("not-json")).splitlines()]


def answer_body_chunks(answer: Answer) -> list[bytes]:
    """All chunks but the last, which may be short."""
    return answer.chunks[:-1]


def test_every_fault_is_in_the_table() -> None:
    """The package's docstring is where one looks them up."""
    documented = re.findall(r"^\| `([\w-]+)` \|", demo.__doc__ or "", re.MULTILINE)
    assert sorted(documented) == sorted(FAULTS)


async def test_faults_are_listed_on_demand() -> None:
    """A newcomer should not choose one by accident, a tester should find them all."""
    async with serve(quick().app) as url:
        names = [model["name"] for model in (await ask(url, "/api/tags")).lines[0]["models"]]
    assert names == ["llama3.2:latest", "qwen3:latest", "gemma3:latest", "nomic-embed-text:latest"]
    async with serve(quick(list_faults=True).app) as url:
        names = [model["name"] for model in (await ask(url, "/api/tags")).lines[0]["models"]]
        shown = await ask(url, "/api/show", {"model": "fault:stall"})
    assert {f"fault:{name}" for name in FAULTS} < set(names)
    assert "completion" in shown.lines[0]["capabilities"]


async def test_requests_are_kept_as_they_came() -> None:
    """Byte for byte, one entry each, also what was refused; and counted for other processes."""
    simulator = quick()
    bodies = [dumps(chat()) + b" \n", b"{", dumps({"model": "llama3.2"})]
    async with serve(simulator.app) as url, connect(url) as connection:
        for path, body in zip(("/api/chat", "/api/chat", "/api/pull"), bodies, strict=True):
            connection.send("POST", path, body, {"X-Trace": "7"})
            await connection.answer()
        assert [request.body for request in simulator.requests] == bodies
        assert [request.path for request in simulator.requests] == ["/api/chat", "/api/chat", "/api/pull"]
        assert {request.headers["x-trace"] for request in simulator.requests} == {"7"}
        counts = (await connection.ask("/simulator")).lines[0]
    assert counts["running"] == 0
    assert counts["states"]["done"] == 3


async def test_answers_vary_and_read_like_answers() -> None:
    """Asking again gives another answer, a word chooses the topic, a greeting is short, a seed repeats itself."""
    async with serve(quick().app) as url, connect(url) as connection:

        async def says(content: str, **fields: Any) -> str:
            return (await connection.ask("/api/chat", chat(content=content, **fields))).text

        assert await says("Is it worth it?") != await says("Is it worth it?")
        seeded = {"options": {"seed": 7}}
        assert await says("Is it worth it?", **seeded) == await says("Is it worth it?", **seeded)
        assert "```python" in await says("Write some Python")
        assert "\n|" in await says("Show me a table")
        assert "です" in await says("これは何ですか")
        assert len(await says("Hi!")) < 120
        assert len(answers.tokens(await says("a very long answer"))) > 2000


async def test_a_conversation_goes_on() -> None:
    """A tool's result is used, a broken answer is continued, images are seen."""
    question = {"role": "user", "content": "Why is the sky blue?"}
    call = {"function": {"name": "f", "arguments": {}}}
    async with serve(quick().app) as url, connect(url) as connection:

        async def says(model: str, *messages: dict[str, Any]) -> str:
            return (await connection.ask("/api/chat", {"model": model, "messages": messages})).text

        whole = await says("llama3.2", question)
        rest = await says("llama3.2", question, {"role": "assistant", "content": whole[:100]})
        assert whole[:100] + rest == whole
        assert await says("llama3.2", question, {"role": "assistant", "content": "Unheard-of"})
        used: list[dict[str, Any]] = [
            question,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "It is 7 °C"},
        ]
        assert "It is 7 °C" in await says("llama3.2", *used)
        assert "2 images" in await says("gemma3", question | {"images": ["aGk=", "aGk="]})


@pytest.mark.parametrize("seed", range(20))
def test_tokens_are_the_text(seed: int) -> None:
    """Joined they are the text again; none is empty, few are long."""
    for prompt in ("markdown", "日本語", "python", "whatever", "a very long answer"):
        text = answers.answer([{"role": "user", "content": prompt}], seed)
        pieces = answers.tokens(text)
        assert "".join(pieces) == text
        assert all(pieces)


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["a", "b"]},
        "size": {"type": "integer", "minimum": 3},
        "share": {"type": "number"},
        "ok": {"type": "boolean"},
        "nothing": {"type": "null"},
        "exact": {"const": 5},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "list": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "node": {"$ref": "#/$defs/node"},
    },
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"$ref": "#/$defs/node"}, "id": {"type": ["integer", "null"]}},
        }
    },
}


@pytest.mark.parametrize("format_", ["json", SCHEMA])
async def test_format_gets_json_that_fits(format_: Any) -> None:
    """In pieces like any answer; a schema that refers to itself comes to an end."""
    async with serve(quick().app) as url:
        answer = await ask(url, "/api/chat", chat(content="Blue sky", format=format_))
    assert len(answer.lines) > 10
    value = json.loads(answer.text)
    if format_ == "json":
        assert isinstance(value, dict)
        return
    node = value.pop("node")
    assert value == {
        "name": "Blue",
        "kind": "a",
        "size": 3,
        "share": 42.0,
        "ok": True,
        "nothing": None,
        "exact": 5,
        "either": "sky",
        "list": ["Blue", "sky"],
    }
    assert node["id"] == node["next"]["id"] == 42


def test_a_schema_cannot_ask_for_too_much() -> None:
    """A tree that doubles at every level, or a huge list, would hang the simulator."""
    node: dict[str, Any] = {"type": "array", "minItems": 10**9, "items": {"$ref": "#"}}
    assert len(json_answer(node, "x")) < 50_000


async def test_options_end_an_answer() -> None:
    """`stop` cuts before its text, `num_predict` after so many tokens, thinking included."""
    async with serve(quick().app) as url, connect(url) as connection:
        options: dict[str, Any] = {"seed": 1, "stop": ["", "scatter"]}
        answer = await connection.ask("/api/chat", chat(content="Why is the sky blue?", options=options))
        assert "scatter" not in answer.text
        assert answer.lines[-1]["done_reason"] == "stop"
        thoughts = answers.tokens(answers.thinking(chat("qwen3")["messages"]))
        options = {"num_predict": len(thoughts) + 2}
        answer = await connection.ask("/api/chat", chat("qwen3", options=options))
        assert answer.lines[-1]["done_reason"] == "length"
        assert answer.lines[-1]["eval_count"] == len(thoughts) + 2 == len(answer.lines) - 1
        assert not any("thinking" in line["message"] for line in answer.lines[len(thoughts) :])


async def test_context_and_counters_add_up() -> None:
    """The context given comes back with the prompt's and the answer's tokens behind it."""
    body = {"model": "llama3.2", "prompt": "Hello", "context": list(range(200_000))}
    async with serve(quick().app) as url:
        answer = await ask(url, "/api/generate", body)
    done = answer.lines[-1]
    assert done["context"][:200_000] == body["context"]
    assert len(done["context"]) == done["prompt_eval_count"] + done["eval_count"]
    assert len(answer.chunks[-1]) > 1_000_000


async def test_tools_are_chosen_and_called() -> None:
    """The function that shares most words with the question, once for each name in it."""
    tools = [
        {"type": "function", "function": {"name": "send_mail", "description": "Send a mail"}},
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Current weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        },
    ]
    body = chat(content="What is the weather in New York and Paris?", tools=tools)
    async with serve(quick().app) as url:
        lines = (await ask(url, "/api/chat", body)).lines
    calls = [call["function"] for line in lines for call in line["message"].get("tool_calls", [])]
    assert calls == [
        {"index": 0, "name": "get_weather", "arguments": {"city": "New York"}},
        {"index": 1, "name": "get_weather", "arguments": {"city": "Paris"}},
    ]


async def test_a_pull_adds_a_model() -> None:
    """Several digests, each to its full size; afterwards it can be asked, and deleted again."""
    simulator = quick(pull_seconds=0.2)
    async with serve(simulator.app) as url, connect(url) as connection:
        lines = (await connection.ask("/api/pull", {"model": "phi4:14b"})).lines
        digests = [line["digest"] for line in lines if "digest" in line]
        last = {line["digest"]: line for line in lines if "digest" in line}
        assert len(last) == 5
        assert all(line["completed"] == line["total"] for line in last.values())
        assert digests == sorted(digests, key=list(last).index)  # one after the other
        assert [line["status"] for line in lines[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
        assert (await connection.ask("/api/chat", chat("phi4:14b"))).lines[-1]["done"]
        assert (await connection.ask("/api/delete", {"model": "phi4:14b"}, "DELETE")).status == 200
        assert (await connection.ask("/api/chat", chat("phi4:14b"))).status == 404
        single = await connection.ask("/api/pull", {"model": "phi4:14b", "stream": False})
        assert single.lines == [{"status": "success"}]


async def test_a_pull_is_shared_and_resumes() -> None:
    """Bytes arrive once for all who wait, stop when the last one leaves, and are still there later."""
    simulator = quick(pull_seconds=60)

    async def completed(connection: Connection) -> int:
        """What the next line with bytes says."""
        while True:
            line = json.loads((await connection.reader.readuntil(b"}\n")).splitlines()[-1])
            if "completed" in line:
                return int(line["completed"])

    async with serve(simulator.app) as url, connect(url) as one, connect(url) as two, connect(url) as three:
        one.send("POST", "/api/pull", b'{"model":"m"}')
        await completed(one)
        before = await completed(one)
        two.send("POST", "/api/pull", b'{"model":"m"}')
        assert await completed(two) >= before
        one.leave()
        two.leave()
        await simulator.until(lambda: simulator.running == 0)
        three.send("POST", "/api/pull", b'{"model":"m"}')
        assert await completed(three) >= before


@pytest.mark.parametrize("name", ["stall", "truncate", "bare-eof"])
async def test_pulls_that_fail_midway(name: str) -> None:
    """None of them says `success`, and none leaves a model."""
    simulator = quick(pull_seconds=0.3)
    async with serve(simulator.app) as url, connect(url) as connection:
        connection.send("POST", "/api/pull", dumps({"model": f"fault:{name}"}))
        if name == "stall":
            await connection.reader.readuntil(b'"completed"')
            connection.leave()
        else:
            answer = await connection.answer()
            assert (answer.ended == "complete") is (name == "truncate")
            assert "completed" in answer.lines[-1]
        await simulator.until(lambda: simulator.running == 0)
        assert f"fault:{name}" not in simulator.models


async def test_a_server_stops_with_streams_open(caplog: pytest.LogCaptureFixture) -> None:
    """`serve` cuts them; no task and no complaint is left."""
    simulator = quick()
    async with asyncio.timeout(5), serve(simulator.app) as url, connect(url) as one, connect(url) as two:
        one.send("POST", "/api/chat", dumps(chat("fault:stall")))
        two.send("POST", "/api/chat", dumps(chat("fault:silent")))
        await simulator.until(lambda: simulator.running == 2)
    assert simulator.running == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []
