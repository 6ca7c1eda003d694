"""Every recorded answer of Ollama, as one of its clients gets it through the gateway: byte for byte, but as listed.

The request goes to the path below `/ollama`, as it was recorded. What is compared is the status, the type and the body.
"""

from dataclasses import dataclass

import orjson
import pytest

from tests.gateways import Gateway, gateway
from tests.test_replay import PULLS, Replay
from tests.transcripts import NAMES, Transcript, load
from tests.upstreams import JSON, NDJSON, Answer, upstream

CHECKED = "the gateway checks a body, and names the field that is wrong, before Ollama is asked"
DEFAULT = "a model that is not named is the gateway's default, and here none is installed"
NOT_MANAGED = "the gateway does not manage models"
RUNNER = "the runner's error is JSON in a string, of which the gateway tells the words"
GUARDED = "the gateway has hosts and origins of its own; Ollama says nothing with its 403"
CUT_SHORT = "at Ollama it looks complete, but for `done`, which no client looks at"
ONE_FORM = "Ollama answers in plain text, which its own clients cannot read as an error"

OTHERWISE: dict[str, tuple[int, str, str]] = {
    "copy": (403, "The gateway does not manage models", NOT_MANAGED),
    "create-from-gguf-stream": (403, "The gateway does not manage models", NOT_MANAGED),
    "create-missing-blob": (403, "The gateway does not manage models", NOT_MANAGED),
    "create-nostream": (403, "The gateway does not manage models", NOT_MANAGED),
    "delete": (403, "The gateway does not manage models", NOT_MANAGED),
    "delete-not-found-404": (403, "The gateway does not manage models", NOT_MANAGED),
    "error-bad-format-500": (400, "format: ", CHECKED),
    "error-bad-format-generate-500": (400, "format: ", CHECKED),
    "error-bad-json-chat-400": (400, "The body is not valid JSON", CHECKED),
    "error-bad-json-syntax-generate-400": (400, "The body is not valid JSON", CHECKED),
    "error-bad-option-type": (400, "options.num_ctx: ", CHECKED),
    "error-empty-body-chat-400": (400, "The body is not valid JSON", CHECKED),
    "error-think-value-invalid-400": (400, "think: ", CHECKED),
    "error-wrong-type-chat-400": (400, "messages: ", CHECKED),
    "pull-model-missing": (400, "model: is missing", CHECKED),
    "error-model-missing-chat": (400, "model: is missing", DEFAULT),
    "error-model-missing-generate": (400, "model: is missing", DEFAULT),
    "error-runner-500": (500, "Compute error.", RUNNER),
    "error-runner-rejects-400": (400, "The conversation is too long for the model: request (5000 tokens)", RUNNER),
    "error-host-not-allowed-403": (403, "The gateway does not answer to this host name.", GUARDED),
    "error-host-not-allowed-chat-403": (403, "The gateway does not answer to this host name.", GUARDED),
    "error-origin-not-allowed-403": (403, "Pages of this origin may not use the gateway.", GUARDED),
    "error-origin-not-allowed-chat-403": (403, "Pages of this origin may not use the gateway.", GUARDED),
    "error-unknown-path-404": (404, "There is nothing at this path.", ONE_FORM),
    "error-method-not-allowed-405": (405, "This path allows POST.", ONE_FORM),
    "server-sigterm-before-headers": (502, "Ollama closed the connection before it answered.", "Ollama says nothing"),
    "generate-nostream-ends-without-done-repeat": (502, "Ollama ended the answer without completing it.", CUT_SHORT),
    "generate-nostream-runner-error-swallowed": (502, "Ollama ended the answer without completing it.", CUT_SHORT),
}
"""Where the gateway answers with an error of its own: the status, how the error begins, and why."""

UNFINISHED = {
    "chat-ends-without-done-repeat": "Ollama ended the answer without completing it.",
    "generate-ends-without-done-repeat": "Ollama ended the answer without completing it.",
    "generate-runner-error-swallowed": "Ollama ended the answer without completing it.",
    "server-sigterm-midstream-chat": "The connection to Ollama broke before the answer was complete.",
    "server-sigterm-midstream-generate": "The connection to Ollama broke before the answer was complete.",
}
"""Streams that just end at Ollama, as if they were complete: here a last line says that they are not."""

PATHS = {"show", "show-embedding-model"}
"""Where the body lacks the paths of files on Ollama's server, and is the same otherwise."""

ORDER = {"tags"}
"""Where models are listed in another order: Ollama's is random for those that were changed within one second."""

BARE = "application/json"
"""The type of some of Ollama's errors; here they all have the same, with a charset."""


@dataclass
class Told:
    """An answer."""

    status: int
    content_type: str | None
    body: bytes


def test_every_exception_names_a_transcript() -> None:
    assert {*OTHERWISE, *UNFINISHED, *PATHS, *ORDER} <= set(NAMES)


async def ask(gw: Gateway, transcript: Transcript) -> Told:
    """The recorded request, as one of Ollama's clients would send it; but no pull is `insecure` through a gateway."""
    url, body = gw.url + "/ollama" + transcript.path, transcript.request_body.replace(b', "insecure": true', b"")
    headers = {"Content-Type": "application/json"} | transcript.request_headers
    async with gw.session.request(transcript.method, url, data=body or None, headers=headers) as response:
        return Told(response.status, response.headers.get("Content-Type"), await response.read())


def answers(transcript: Transcript) -> dict[str, Answer]:
    name = transcript.path.removeprefix("/api/")
    return {name: Replay(transcript)} if name in ("tags", "ps", "show", "version") else {}


@pytest.mark.parametrize("name", NAMES)
async def test_answers_as_ollama_did(name: str) -> None:
    transcript = load(name)
    async with upstream(Replay(transcript), **answers(transcript)) as ollama, gateway(ollama.url, **PULLS) as gw:
        told = await ask(gw, transcript)
    if name in OTHERWISE:
        status, error, _ = OTHERWISE[name]
        assert (told.status, told.content_type) == (status, JSON)
        assert orjson.loads(told.body).keys() == {"error"}
        assert orjson.loads(told.body)["error"].startswith(error)
        return
    recorded = transcript.headers.get("Content-Type")
    assert (told.status, told.content_type) == (transcript.status, JSON if recorded == BARE else recorded)
    if name in UNFINISHED:
        assert told.body == transcript.body + b'{"error":"%b"}\n' % UNFINISHED[name].encode()
    elif name in PATHS:
        assert told.body == transcript.body.replace(b"/usr/share/ollama/.ollama/models/blobs/", b"")
        assert told.body != transcript.body
    elif name in ORDER:
        assert by_name(told.body) == by_name(transcript.body)
        assert len(told.body) == len(transcript.body)
    else:
        assert told.body == transcript.body


def by_name(body: bytes) -> list[object]:
    """A list of models, without its order."""
    return sorted(orjson.loads(body)["models"], key=lambda model: str(model["name"]))


STREAMS = [
    name
    for name in NAMES
    if load(name).headers.get("Content-Type") == NDJSON and load(name).path in ("/api/chat", "/api/generate")
]


@pytest.mark.parametrize("name", STREAMS)
async def test_cut_and_resumed(name: str) -> None:
    """A client that is cut off five times, anywhere in the answer, has read the same in the end."""
    transcript = load(name)
    async with upstream(Replay(transcript)) as ollama, gateway(ollama.url) as gw:
        whole = (await ask(gw, transcript)).body
        size = len(whole)
        async with gw.session.post(
            f"{gw.url}/ollama{transcript.path}?resume_window=30", data=transcript.request_body
        ) as response:
            stream = gw.url + response.headers["Content-Location"]
            read = await response.content.read(size // 6 + 1)
            response.close()
        sid = stream.rpartition("/")[2]
        for cut in range(2, 7):
            read = read[: read.rfind(b"\n") + 1]  # of a line that is not whole, nothing has been read
            seen = {"as": "ollama"} | ({"last_event_id": f"{sid}-{count}"} if (count := read.count(b"\n")) else {})
            async with gw.session.get(stream, params=seen) as response:
                assert response.status == 200
                read += await (response.content.read() if cut == 6 else response.content.read(size // 6 + 1))
                response.close()
        assert read == whole
        assert len(ollama.asked(transcript.path)) == 2  # one for each `ask`: resuming asks nothing


async def test_every_whole_answer_has_a_length() -> None:
    """As Ollama's: some clients wait for the end of the connection otherwise."""
    transcript = load("chat-nostream")
    async with (
        upstream(Replay(transcript)) as ollama,
        gateway(ollama.url) as gw,
        gw.session.post(gw.url + "/ollama/api/chat", data=transcript.request_body) as response,
    ):
        assert response.headers["Content-Length"] == transcript.headers["Content-Length"]
        assert isinstance(await response.json(), dict)
