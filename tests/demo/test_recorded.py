"""The simulator answers recorded requests as Ollama did."""

import json
from itertools import groupby
from typing import Any

import pytest

from gateway.demo.models import Model
from gateway.demo.wire import dumps, timestamp
from tests import transcripts
from tests.asks import quick
from tests.demo.connection import Answer, chat, connect
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
