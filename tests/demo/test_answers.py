"""What the simulated models say."""

import json
from itertools import product
from typing import Any

import pytest

from gateway.demo import answers
from gateway.demo.prompt import token_ids
from gateway.demo.shapes import json_answer
from tests.asks import quick
from tests.demo.connection import ask, chat, connect
from tests.servers import serve


async def test_answers_vary_and_read_like_answers() -> None:
    """Asking again gives another answer, a word chooses the topic, a greeting is short, a seed and
    temperature 0 repeat themselves."""
    async with serve(quick().app) as url, connect(url) as connection:

        async def says(content: str, **fields: Any) -> str:
            return (await connection.ask("/api/chat", chat(content=content, **fields))).text

        assert await says("Is it worth it?") != await says("Is it worth it?")
        seeded = {"options": {"seed": 7}}
        assert await says("Is it worth it?", **seeded) == await says("Is it worth it?", **seeded)
        greedy = {"options": {"temperature": 0}}
        assert await says("Is it worth it?", **greedy) == await says("Is it worth it?", **greedy)
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


def test_tokens_are_the_text() -> None:
    """Joined they are the text again, whatever the answer; none is empty."""
    prompts = ("markdown", "日本語", "python", "whatever", "a very long answer")
    for prompt, seed in product(prompts, range(20)):
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
    """The context given comes back with the whole prompt, the template included, and the answer behind it."""
    given = list(range(200_000))
    body = {"model": "llama3.2", "system": "Be brief.", "prompt": "Hello", "context": given}
    async with serve(quick().app) as url, connect(url) as connection:
        shown = await connection.ask("/api/generate", body | {"_debug_render_only": True})
        answer = await connection.ask("/api/generate", body)
        raw = await connection.ask("/api/generate", body | {"raw": True})
    prompt = shown.lines[0]["_debug_info"]["rendered_template"]
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    done = answer.lines[-1]
    assert done["context"] == given + token_ids([*answers.tokens(prompt), *answers.tokens(answer.text)])
    assert len(done["context"]) == done["prompt_eval_count"] + done["eval_count"]
    assert len(answer.chunks[-1]) > 1_000_000
    assert "context" not in raw.lines[-1]


@pytest.mark.parametrize(
    ("path", "asked", "nothing"),
    [
        ("/api/chat", chat("gemma3"), {"message": {"role": "", "content": ""}}),
        ("/api/generate", {"model": "gemma3", "prompt": "Hello"}, {"response": ""}),
    ],
)
async def test_the_prompt_is_shown_instead_of_an_answer(path: str, asked: dict[str, Any], nothing: Any) -> None:
    """One object, never done; a broken answer's prompt stays open at its end."""
    async with serve(quick().app) as url, connect(url) as connection:
        answer = await connection.ask(path, asked | {"_debug_render_only": True})
        said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}]
        open_end = await connection.ask("/api/chat", chat(messages=said, _debug_render_only=True))
    assert answer.framing == "content-length"
    assert {name: answer.lines[0][name] for name in answer.lines[0].keys() - {"model", "created_at"}} == {
        **nothing,
        "done": False,
        "_debug_info": {"rendered_template": "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"},
    }
    assert open_end.lines[0]["_debug_info"]["rendered_template"].endswith("<|im_start|>assistant\nHel")


async def test_a_prompt_that_is_too_long() -> None:
    """It is cut, as long as the request does not forbid that."""
    asked = chat(content="word " * 3000, options={"num_ctx": 2048})
    async with serve(quick().app) as url, connect(url) as connection:
        assert (await connection.ask("/api/chat", asked)).lines[-1]["done"]
        refused = await connection.ask("/api/chat", asked | {"truncate": False})
    assert (refused.status, refused.lines) == (400, [{"error": "the input length exceeds the context length"}])


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
