"""The `ollama` dialect: what a log holds, as Ollama's clients are sent it. Pure."""

import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import events, ollama
from gateway.errors import OllamaError
from gateway.jobs import End, Kind, Outcome, Phase
from tests.transcripts import load

SID = "f" * 32
SUMMARY: End = {"outcome": Outcome.COMPLETE, "events": 1, "first_token_ms": None, "elapsed_ms": 0}
WHOLE = ["chat-nostream", "chat-nostream-thinking", "chat-nostream-tool-calls", "generate-nostream"]


def logged(lines: list[bytes], error: OllamaError | None = None) -> list[bytes]:
    """The chunks that a reader of a log with these lines gets, one event in each, sidecars included."""
    if error:
        lines = [*lines, orjson.dumps(error.payload("generating"))]
    meta = events.meta({"v": 1, "id": SID, "url": "/", "kind": Kind.CHAT, "model": "m"}, primed=True)
    head = events.retry(1000) + meta + events.status({"phase": Phase.LOADING, "elapsed_ms": 1})
    return [head, *events.messages(SID, 1, lines), events.end(SID, len(lines) + 1, SUMMARY, 1000)]


def sent(answer: ollama.Answer, chunks: list[bytes]) -> bytes:
    return b"".join([*map(answer.feed, chunks), answer.finish()])


@given(st.lists(st.dictionaries(st.text(), st.text())), st.integers(1, 10))
def test_lines_are_what_was_framed(values: list[dict[str, str]], size: int) -> None:
    """However the events come together in chunks. Sidecars, `retry` and the end are none of Ollama's lines."""
    lines = [orjson.dumps(value) for value in values if "error" not in value]
    chunks = logged(lines)
    joined = [b"".join(chunks[begin : begin + size]) for begin in range(0, len(chunks), size)]
    assert sent(ollama.Lines(), joined) == b"".join(line + b"\n" for line in lines)


def lines_of(recorded: bytes) -> list[bytes]:
    """Lines of which Ollama would have made this whole answer: a character, and a tool call, in each."""
    last = json.loads(recorded)
    part, text = (last["message"], "content") if "message" in last else (last, "response")
    said = [
        *({text: "", "thinking": character} for character in part.pop("thinking", "")),
        *({text: character} for character in part[text]),
        *({text: "", "tool_calls": [call]} for call in part.pop("tool_calls", [])),
    ]
    part[text] = ""
    head = {name: last[name] for name in ("model", "created_at")}
    chat = [{"message": {"role": "assistant"} | each} if "message" in last else each for each in said]
    return [*(ollama.written(head | each | {"done": False}) for each in chat), ollama.written(last)]


@pytest.mark.parametrize("name", WHOLE)
def test_one_object_of_the_lines_is_what_ollama_makes_of_them(name: str) -> None:
    recorded = load(name).body
    lines = lines_of(recorded)
    assert len(lines) > 15
    assert sent(ollama.Whole(), logged(lines)) == recorded


@pytest.mark.parametrize("name", ["chat-logprobs", "generate-logprobs"])
def test_log_probabilities_are_those_of_all_lines(name: str) -> None:
    lines = load(name).body.splitlines()
    whole = json.loads(sent(ollama.Whole(), logged(lines)))
    assert whole["logprobs"] == [each for line in lines for each in json.loads(line).get("logprobs", [])]
    assert [*whole][-1] == "logprobs"


@pytest.mark.parametrize("number", ["-1.2e-05", "1E+2", "0.10", "100000000000000000000", "1e400", "-0"])
def test_numbers_stay_as_they_came(number: str) -> None:
    """Go writes 0.00001 where Python writes 1e-5, and knows no bound of 64 bits in a tool's arguments."""
    said = b'{"message":{"role":"assistant","content":"a"},"done":false,"logprobs":[{"logprob":%b}]}'
    called = b'{"message":{"role":"assistant","content":"","tool_calls":[{"a":[%b]}]},"done":true,"eval_count":7}'
    whole = sent(ollama.Whole(), logged([said % number.encode(), called % number.encode()]))
    assert b'"content":"a","tool_calls":[{"a":[%b]}]' % number.encode() in whole
    assert whole.endswith(b'"eval_count":7,"logprobs":[{"logprob":%b}]}' % number.encode())


def test_what_is_kept_of_an_answer_takes_no_more_than_the_answer() -> None:
    """Log probabilities as objects would take ten times as much, and only the log is counted."""
    top = b",".join([b'{"token":" the","logprob":-0.123456,"bytes":[32,116,104,101]}'] * 20)
    line = b'{"message":{"role":"assistant","content":"a"},"logprobs":[{"logprob":-1.5,"top_logprobs":[%b]}]}' % top
    chunks = events.messages(SID, 1, [line] * 2000)
    tracemalloc.start()
    try:
        whole = ollama.Whole()
        for chunk in chunks:
            whole.feed(chunk)
        assert tracemalloc.get_traced_memory()[0] < 1.2 * sum(map(len, chunks))
    finally:
        tracemalloc.stop()


def test_a_single_line_is_the_answer() -> None:
    """Loading a model, an embedding, and the end of a pull."""
    for line in (b'{ "b":1.0, "a":[1e-9] }', b'{"model":"m","response":"x","done":true}'):
        assert sent(ollama.Whole(), logged([line])) == line
    pull = load("pull-progress-stream").body.splitlines()
    assert sent(ollama.Whole(), logged(pull)) == pull[-1] == b'{"status":"success"}'


@pytest.mark.parametrize("name", ["chat-unicode", "generate-unicode", "chat-thinking-then-tool-calls"])
def test_json_is_written_as_go_writes_it(name: str) -> None:
    for line in load(name).body.splitlines():
        assert ollama.written(json.loads(line)) == line


@pytest.mark.parametrize("lines", [[], [b'{"response":"a","done":false}']])
def test_an_error_follows_what_was_said(lines: list[bytes]) -> None:
    failed = logged(lines, OllamaError("It <broke>.", status=400))
    error = rb'{"error":"It \u003cbroke\u003e."}'
    answer = ollama.Lines()
    assert [*map(answer.feed, failed)] == [b"", *(line + b"\n" for line in lines), b"", b""]
    assert answer.finish() == error
    assert answer.failure
    assert answer.failure["status"] == 400
    assert sent(whole := ollama.Whole(), failed) == error
    assert whole.failure == answer.failure


@pytest.mark.parametrize(("status", "seen"), [(422, 400), (400, 400), (404, 404), (503, 503), (500, 500)])
def test_a_request_at_fault_is_400_as_at_ollama(status: int, seen: int) -> None:
    assert ollama.status_of(status) == seen


@pytest.mark.parametrize("depth", [300, 950])
def test_what_is_nested_too_deeply_is_an_error(depth: int) -> None:
    """The library reads it, and cannot write it."""
    deep = b'{"response":"a","x":%b%b}' % (b"[" * depth, b"]" * depth)
    orjson.loads(deep)
    whole = ollama.Whole()
    assert b"nested too deeply" in sent(whole, logged([deep, deep]))
    assert whole.failure
    assert whole.failure["code"] == "bad_upstream"


@pytest.mark.parametrize(
    "odd",
    [
        {"response": ["a"], "thinking": 7, "tool_calls": "x", "logprobs": {}},
        {"message": ["a"], "content": "x"},
        {"message": {"content": {"a": 1}, "thinking": None, "tool_calls": 7}},
        {"message": None},
    ],
)
def test_odd_lines_break_nothing(odd: dict[str, Any]) -> None:
    lines = [orjson.dumps(each) for each in ({"response": "a"}, odd, {"message": {"content": "b"}}, odd)]
    answer = ollama.Whole()
    assert isinstance(orjson.loads(sent(answer, logged(lines))), dict)
    assert answer.failure is None
