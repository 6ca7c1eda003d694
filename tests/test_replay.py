"""Every recorded answer of Ollama, replayed byte for byte through the gateway."""

import random
from collections.abc import Iterator
from itertools import pairwise

import orjson
import pytest

from gateway.errors import BadUpstream, Busy, GatewayError, InvalidRequest, ModelNotFound, OllamaError
from gateway.upstream.client import OllamaClient
from tests.gateways import Gateway, gateway
from tests.sse import Event, ending, messages
from tests.transcripts import NAMES, Transcript, load
from tests.upstreams import Peer, chunk, head, upstream

COMPLETE = ("complete", None)
PULLS = {"allow_pull": True, "pull_hosts": "127.0.0.1:35211,127.0.0.1:9"}
ENDINGS = {
    "chat-done-reason-length": COMPLETE,
    "chat-empty-answer": COMPLETE,
    "chat-ends-without-done-repeat": ("error", "truncated"),
    "chat-load-empty-messages": COMPLETE,
    "chat-logprobs": COMPLETE,
    "chat-long-line-tool-arguments": COMPLETE,
    "chat-native-repeat-not-stopped": COMPLETE,
    "chat-nostream": COMPLETE,
    "chat-nostream-thinking": COMPLETE,
    "chat-nostream-tool-calls": COMPLETE,
    "chat-slow-load-3s": COMPLETE,
    "chat-stream": COMPLETE,
    "chat-stream-burst": COMPLETE,
    "chat-thinking-only-length": COMPLETE,
    "chat-thinking-then-content": COMPLETE,
    "chat-thinking-then-tool-calls": COMPLETE,
    "chat-tool-calls-in-done-false-line": COMPLETE,
    "chat-tool-calls-in-done-line": COMPLETE,
    "chat-tool-calls-two-in-done-false-lines": COMPLETE,
    "chat-tool-calls-two-in-done-line": COMPLETE,
    "chat-unicode": COMPLETE,
    "chat-unicode-broken-halves": COMPLETE,
    "chat-unload-keep-alive-0": COMPLETE,
    "error-embedding-model-chat-400": ("error", "ollama_error"),
    "error-first-event-500": ("error", "ollama_error"),
    "error-insert-unsupported": ("error", "ollama_error"),
    "error-invalid-tool-arguments-500": ("error", "ollama_error"),
    "error-invalid-tool-arguments-midstream": ("error", "ollama_error"),
    "error-load-failed-500": ("error", "ollama_error"),
    "error-load-failed-with-message-500": ("error", "ollama_error"),
    "error-midstream-error-line-chat": ("error", "ollama_error"),
    "error-model-name-invalid-chat": ("error", "ollama_error"),
    "error-model-not-found-chat-404": ("error", "model_not_found"),
    "error-model-not-found-generate-404": ("error", "model_not_found"),
    "error-nostream-midstream-500": ("error", "ollama_error"),
    "error-queue-full-chat-503": ("error", "busy"),
    "error-queue-full-generate-503": ("error", "busy"),
    "error-runner-500": ("error", "ollama_error"),
    "error-runner-crash-midstream-chat": ("error", "ollama_error"),
    "error-runner-crash-midstream-generate": ("error", "ollama_error"),
    "error-runner-crash-midstream-with-message": ("error", "ollama_error"),
    "error-runner-dies-before-first-token-chat-500": ("error", "ollama_error"),
    "error-runner-dies-before-first-token-generate-500": ("error", "ollama_error"),
    "error-runner-dies-with-message-chat-500": ("error", "ollama_error"),
    "error-runner-rejects-400": ("error", "invalid_request"),
    "error-thinking-unsupported-400": ("error", "ollama_error"),
    "error-tools-unsupported-400": ("error", "ollama_error"),
    # the gateway sends neither Host nor Origin of its clients, but an operator's Ollama may still refuse it
    "error-host-not-allowed-chat-403": ("error", "ollama_error"),
    "error-origin-not-allowed-chat-403": ("error", "ollama_error"),
    "generate-done-reason-length": COMPLETE,
    "generate-empty-answer": COMPLETE,
    "generate-ends-without-done-repeat": ("error", "truncated"),
    "generate-load-empty-prompt": COMPLETE,
    "generate-logprobs": COMPLETE,
    "generate-long-line-context": COMPLETE,
    "generate-nostream": COMPLETE,
    "generate-nostream-ends-without-done-repeat": ("error", "truncated"),
    "generate-nostream-runner-error-swallowed": ("error", "truncated"),
    "generate-runner-error-swallowed": ("error", "truncated"),
    "generate-stream-context": COMPLETE,
    "generate-thinking-tags-inline": COMPLETE,
    "generate-thinking-then-response": COMPLETE,
    "generate-unicode": COMPLETE,
    "generate-unload-keep-alive-0": COMPLETE,
    "pull-already-present-stream": COMPLETE,
    "pull-failing-digest-mismatch": ("error", "ollama_error"),
    "pull-failing-not-found": ("error", "ollama_error"),
    "pull-failing-not-found-nostream": ("error", "ollama_error"),
    "pull-failing-unreachable": ("error", "ollama_error"),
    "pull-progress-stream": COMPLETE,
    "server-sigterm-before-headers": ("error", "ollama_unreachable"),
    "server-sigterm-midstream-chat": ("error", "truncated"),
    "server-sigterm-midstream-generate": ("error", "truncated"),
}

REFUSED: dict[str, tuple[str, type[GatewayError]]] = {
    # how the gateway's own refusal begins, and what Ollama's refusal would mean
    "error-bad-format-500": ("format: ", OllamaError),
    "error-bad-format-generate-500": ("format: ", OllamaError),
    "error-bad-json-chat-400": ("The body is not valid JSON", OllamaError),
    "error-bad-json-syntax-generate-400": ("The body is not valid JSON", OllamaError),
    "error-bad-option-type": ("options.num_ctx: ", OllamaError),
    "error-empty-body-chat-400": ("The body is not valid JSON", OllamaError),
    "error-model-missing-chat": ("model: ", OllamaError),
    "error-model-missing-generate": ("model: ", ModelNotFound),
    "error-think-value-invalid-400": ("think: ", OllamaError),
    "error-wrong-type-chat-400": ("messages: ", OllamaError),
    "pull-model-missing": ("pull.model: ", OllamaError),
}

NO_STREAM = {
    # the gateway always uses POST
    "error-method-not-allowed-405",
    # these are no streams: they tell of models or the server, or are never asked for by the gateway
    "copy",
    "create-from-gguf-stream",
    "create-missing-blob",
    "create-nostream",
    "delete",
    "delete-not-found-404",
    "error-host-not-allowed-403",
    "error-model-missing-show",
    "error-model-not-found-show-404",
    "error-origin-not-allowed-403",
    "error-unknown-path-404",
    "ps-empty",
    "ps-keep-alive-forever",
    "ps-loaded",
    "ps-while-loading",
    "root",
    "server-starting-version",
    "show",
    "show-embedding-model",
    "tags",
    "tags-empty",
    "version",
    "version-origin-allowed",
}


def test_every_transcript_is_here() -> None:
    assert sorted([*ENDINGS, *REFUSED, *NO_STREAM]) == NAMES


def pieces(transcript: Transcript) -> list[bytes]:
    """The pieces that were on the wire: the head, and each chunk or read."""
    if transcript.status is None:
        return []
    if transcript.framing == "content-length":
        return [head(transcript.status, transcript.headers), *transcript.chunks]
    end = [b"0\r\n\r\n"] if transcript.ended == "complete" else []
    return [head(transcript.status, transcript.headers), *map(chunk, transcript.chunks), *end]


class Replay:
    """An answer that sends `pieces`, and then closes the connection where the recorded one was closed."""

    def __init__(self, transcript: Transcript) -> None:
        self.pieces = pieces(transcript)
        self._closes = transcript.ended != "complete"

    async def __call__(self, peer: Peer) -> None:
        await peer.send(*self.pieces)
        if self._closes:
            peer.close()


async def ask(gw: Gateway, transcript: Transcript) -> list[Event]:
    """The events of the recorded request."""
    body = transcript.request_json
    if transcript.path == "/api/pull":
        return await gw.read(f"/api/streams/{await gw.start(pull=passed_on(transcript))}")
    return await gw.read(transcript.path, json=body)


def expected_lines(transcript: Transcript) -> Iterator[bytes]:
    """Ollama's lines, up to the one that is an error."""
    if transcript.status == 200:
        for line in transcript.body.split(b"\n"):
            if line and "error" not in orjson.loads(line):
                yield line


def check(transcript: Transcript, events: list[Event]) -> None:
    outcome, code = ENDINGS[transcript.name]
    assert ending(events) == (outcome, code)
    said = [event.data for event in messages(events)]
    assert (said if outcome == "complete" else said[:-1]) == list(expected_lines(transcript))
    ids = [event.id for event in events if event.id]
    sid = events[0].json["id"]
    assert ids == [f"{sid}-{seq}" for seq in range(1, len(said) + 2)]
    assert events[-1].json["events"] == len(said)


@pytest.mark.parametrize("name", ENDINGS)
async def test_replay(name: str) -> None:
    transcript = load(name)
    async with upstream(Replay(transcript)) as ollama, gateway(ollama.url, **PULLS) as gw:
        check(transcript, await ask(gw, transcript))
        (request,) = ollama.asked(transcript.path)
        assert orjson.loads(request.body) == passed_on(transcript)


@pytest.mark.parametrize("name", ENDINGS)
async def test_replay_cut_anywhere(name: str) -> None:
    """TCP keeps no boundaries: the same bytes in random pieces, of 1 byte where that is not too many."""
    transcript = load(name)
    replay = Replay(transcript)
    wire = b"".join(replay.pieces)
    random_cuts = random.Random(name)
    async with upstream(replay) as ollama, gateway(ollama.url, **PULLS) as gw:
        for count in (2, 50, 50, min(len(wire), 2000)):
            cuts = [0, *sorted(random_cuts.sample(range(len(wire) + 1), min(count, len(wire)))), len(wire)]
            replay.pieces = [wire[begin:end] for begin, end in pairwise(cuts)]
            check(transcript, await ask(gw, transcript))


def passed_on(transcript: Transcript) -> dict[str, object]:
    """What the gateway passes on of a recorded body."""
    dropped = {"stream", "insecure"} if transcript.path == "/api/pull" else {"stream"}
    return {name: value for name, value in transcript.request_json.items() if name not in dropped}


@pytest.mark.parametrize("name", REFUSED)
async def test_the_gateway_refuses_first(name: str) -> None:
    """A body that Ollama would refuse for its form never gets there, and the error names the field."""
    transcript = load(name)
    async with upstream(Replay(transcript)) as ollama, gateway(ollama.url, allow_pull=True) as gw:
        path, body = transcript.path, transcript.request_body
        if path == "/api/pull":
            path, body = "/api/streams", b'{"pull": %b}' % body
        async with gw.session.post(gw.url + path, data=body) as response:
            answer = await response.json()
            assert (response.status, answer["code"]) == (422, "invalid_request")
            assert answer["error"].startswith(REFUSED[name][0])
        assert ollama.asked(transcript.path) == []


@pytest.mark.parametrize("name", REFUSED)
async def test_meaning_of_refusals_the_gateway_prevents(name: str) -> None:
    transcript = load(name)
    assert type(await refusal(transcript)) is REFUSED[name][1]


async def refusal(transcript: Transcript) -> GatewayError:
    """The error that the client of Ollama makes of a recorded refusal."""
    async with (
        upstream(Replay(transcript)) as server,
        OllamaClient(server.url, connect_timeout=5, query_timeout=5, max_line=2**20) as ollama,
    ):
        with pytest.raises(GatewayError) as raised:
            await anext(ollama.lines(transcript.path, transcript.request_body))
        return raised.value


@pytest.mark.parametrize(
    ("name", "error", "status", "retryable", "message"),
    [
        (
            "error-runner-rejects-400",
            InvalidRequest,
            422,
            False,
            "The conversation is too long for the model: request (5",
        ),
        ("error-runner-500", OllamaError, 500, True, "Compute error."),
        ("error-queue-full-chat-503", Busy, 503, True, "server busy, please try again."),
        ("error-model-not-found-chat-404", ModelNotFound, 404, False, "model 'nope' not found"),
        ("error-host-not-allowed-chat-403", OllamaError, 403, False, "Ollama refuses requests from the gateway"),
        ("error-wrong-type-chat-400", OllamaError, 400, False, "Ollama could not read the request's JSON."),
        ("error-unknown-path-404", BadUpstream, 502, False, "The server at GATEWAY_OLLAMA_URL answered 404"),
        ("error-method-not-allowed-405", BadUpstream, 502, False, "The server at GATEWAY_OLLAMA_URL answered 405"),
    ],
)
async def test_refusal_for_a_person_and_for_a_program(
    name: str, error: type[GatewayError], status: int, retryable: bool, message: str
) -> None:
    """Text without Go's internal types and without JSON inside JSON; Ollama's status where it has one."""
    refused = await refusal(load(name))
    assert type(refused) is error
    assert (refused.status, refused.retryable) == (status, retryable)
    assert refused.message.startswith(message)
