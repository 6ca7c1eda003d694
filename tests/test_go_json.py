"""What was checked and shaped is what Ollama reads, by a strict model of the rules of Go's `encoding/json`."""

import json
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.asks.bounds import Bounds
from gateway.asks.parsing import Asks, Caller
from gateway.asks.presets import parse_presets
from gateway.errors import GatewayError
from gateway.jobs import Json, Kind

CALLER = Caller("127.0.0.1", {}, None, "r")
OVERRIDES = ["think", "keep_alive", "format", "truncate", "shift", "options.num_ctx"]
PRESET = parse_presets({"p": {"system": "SECRET", "options": {"seed": 1}, "overrides": OVERRIDES}})["p"]
ASKS = Asks(Bounds())

CHAT = ["model", "messages", "tools", "stream", "format", "keep_alive", "options", "think", "truncate", "shift"]
GENERATE = ["model", "prompt", "suffix", "system", "template", "context", "raw", "images", "stream", "options", "think"]
MESSAGE = ["role", "content", "thinking", "images", "tool_calls", "tool_name"]
ODD = {"s": "\u017f", "S": "\u017f", "k": "\u212a", "K": "\u212a"}  # fold to the letter, but beyond ASCII


def go_fold(name: str) -> str:
    """Go's folding of a field's name: by single characters, never to several."""
    simple = (char.casefold() if len(char.casefold()) == 1 else char for char in name)
    return "".join(unicodedata.normalize("NFKC", char) if char in "\u017f\u212a" else char for char in simple)


def go_read(pairs: list[tuple[str, Any]], fields: list[str]) -> dict[str, list[Any]]:
    """All values that are given for each field, in whatever spelling: Go takes the last, or merges them."""
    read: dict[str, list[Any]] = {}
    for name, value in pairs:
        folded = go_fold(name)
        if folded in fields:
            read.setdefault(folded, []).append(value)
    return read


def spellings(name: str) -> st.SearchStrategy[str]:
    letters = [st.sampled_from([char, char.upper(), ODD.get(char, char)]) for char in name]
    return st.one_of(st.just(name), st.just(name), st.tuples(*letters).map("".join))


def objects(begin: str, values: dict[str, st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    """JSON texts of objects that begin as they should, and then have a field or two in some spelling, perhaps again."""

    def pair(name: str) -> st.SearchStrategy[str]:
        return st.tuples(spellings(name), values[name]).map(lambda found: f"{json.dumps(found[0])}:{found[1]}")

    pairs = st.lists(st.sampled_from(sorted(values)).flatmap(pair), max_size=2)
    return pairs.map(lambda found: "{" + ",".join([begin, *found]) + "}")


def one(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


ROLES = one('"user"', '"assistant"', '"system"', '"SYSTEM"', '"\\u017fystem"')
MESSAGES = objects(
    '"role":"user","content":"Hi"',
    {"role": ROLES, "content": one('"SECRET"'), "thinking": one('"x"'), "images": one("[]"), "tool_calls": one("[]")},
)
LISTS = st.lists(MESSAGES, min_size=1, max_size=2).map(lambda found: "[" + ",".join(found) + "]")
OPTIONS = objects('"num_ctx":1', {"seed": one("1", "2"), "num_ctx": one("2")})
COMMON = {
    "options": OPTIONS,
    "think": one("true"),
    "keep_alive": one("1"),
    "stream": one("false"),
    "shift": one("true"),
}


def check(kind: Kind, body: str, fields: list[str]) -> Json | None:
    """What Ollama would read of a body, after checking that it is what is written; None where it is refused."""
    try:
        sent = orjson.dumps(PRESET.apply(ASKS.by_body(kind, {}, body.encode(), CALLER)))
    except GatewayError:
        return None
    top: list[tuple[str, Any]] = json.loads(sent, object_pairs_hook=list)
    read = go_read(top, fields)
    assert all(len(values) == 1 for values in read.values()), sent
    assert {name for name, _ in top} >= read.keys(), sent
    written: Json = orjson.loads(sent)
    assert go_read(list(written["options"].items()), ["seed"]) == {"seed": [1]}, sent
    return written


@pytest.mark.slow
@given(LISTS.flatmap(lambda found: objects(f'"messages":{found}', COMMON | {"messages": LISTS})))
def test_no_spelling_gets_past_a_preset_in_a_chat(body: str) -> None:
    shaped = check(Kind.CHAT, body, CHAT)
    for index, message in enumerate((shaped or {}).get("messages") or ()):
        read = go_read(list(message.items()), MESSAGE)
        assert all(len(values) == 1 for values in read.values())
        assert read.keys() <= message.keys()
        assert go_fold(str(message["role"])) in ({"system"} if index == 0 else {"user", "assistant", "tool"})
        assert index or message["content"] == "SECRET"


@pytest.mark.slow
@given(objects('"prompt":"Hi"', COMMON | {"system": one('"x"'), "template": one('"x"'), "context": one("[1]")}))
def test_no_spelling_gets_past_a_preset_in_a_generate(body: str) -> None:
    shaped = check(Kind.GENERATE, body, GENERATE)
    if shaped and shaped.get("prompt"):
        assert shaped["system"] == "SECRET"
        assert not shaped.keys() & {"template", "raw", "context", "suffix"}


@pytest.mark.parametrize("tail", [b"{}", b"x", b"\x00", b",", b'{"system":"x"}'])
def test_nothing_may_follow_the_body(tail: bytes) -> None:
    """Ollama reads the first value only, and what follows might be what another reader takes."""
    with pytest.raises(GatewayError):
        ASKS.by_body(Kind.CHAT, {}, b'{"messages":[{"role":"user","content":"Hi"}]}' + tail, CALLER)
