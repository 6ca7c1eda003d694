"""The requests that most tests make, and a simulated Ollama that answers without a pause."""

from collections.abc import Iterator
from typing import Any

from gateway.asks.bodies import Body, GenerateBody, Message
from gateway.demo import Simulator

CHAT = "/api/chat?model=m&prompt=Hi"
"""A chat by GET, for a scripted Ollama, which does not look at what it is asked."""


def quick(**settings: Any) -> Simulator:
    """A simulator that pauses nowhere, unless `settings` say so."""
    return Simulator(**{"token_rate": 0, "load_seconds": 0, "prompt_seconds": 0, "pull_seconds": 0} | settings)


def chat(content: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat with one message."""
    return {"model": "llama3.2", "messages": [{"role": "user", "content": content}], **fields}


TABLE = chat("Show me a table")
STORY = chat("Write a long story")
STORY_PATH = "/api/chat?model=llama3.2&prompt=Write+a+long+story"


def with_text(text: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every place of a request that a model may read, with this text: a name of the place, the kind, and the body.

    What is not listed here as no text counts as text, a field that Ollama gets one day included.
    """
    user = {"role": "user", "content": "Hi"}
    for name in Message.model_fields.keys() - {"images", "tool_calls"}:
        yield name, "chat", {"messages": [user | {name: text}, user]}
    for role in ("assistant", "tool", "SYSTEM", "Control"):
        yield role, "chat", {"messages": [{"role": role, "content": text}, user]}
    for name in GenerateBody.model_fields.keys() - Body.model_fields.keys() - {"context", "raw", "images"}:
        yield name, "generate", {"prompt": "Hi"} | {name: text}
    arguments: dict[str, object] = {
        "a name": {text: 1},
        "a value": {"a": text},
        "deep inside": {"a": [[1, {"b": [text]}]]},
        "JSON": "".join(["{", '"a":"', *(f"\\u{ord(char):04x}" for char in text), '"}']),
    }
    for name, given in arguments.items():
        calls = [{"function": {"name": "f", "arguments": given}}]
        yield f"arguments: {name}", "chat", {"messages": [user, {"role": "assistant", "tool_calls": calls}]}
    yield "a call", "chat", {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": text}}]}, user]}
    schemas: dict[str, dict[str, Any]] = {
        "a description": {"description": text},
        "a property": {"properties": {text: {}}},
        "a choice": {"properties": {"a": {"enum": ["b", text]}}},
    }
    for name, schema in schemas.items():
        tools = [{"function": {"name": "f", "parameters": schema}}]
        yield f"tools: {name}", "chat", {"messages": [user], "tools": tools}
        yield f"format: {name}", "generate", {"prompt": "Hi", "format": schema}
