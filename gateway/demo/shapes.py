"""JSON that fits: answers for `format`, and arguments for tool calls."""

import json
import random
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, repeat
from typing import Any

Schema = dict[str, Any]

_DEPTH = 8
"""Deeper than this a schema that refers to itself is cut short."""

_VALUES = 1000
"""And so is one that asks for more values than this in all."""


def fit(schema: Schema, words: Iterator[str]) -> Any:
    """A value for a JSON schema: the usual keywords and local `$ref`s; strings are taken from `words`."""
    return _Fitter(schema, words).value(schema, 0)


@dataclass
class _Fitter:
    root: Schema
    words: Iterator[str]
    left: int = _VALUES

    def value(self, schema: Schema, depth: int) -> Any:
        self.left -= 1
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        match kind[0] if isinstance(kind, list) else kind:
            case "object":
                return self._object(schema, depth + 1)
            case "array":
                return self._array(schema, depth + 1)
            case "string":
                return next(self.words)
            case "integer":
                return int(schema.get("minimum", 42))
            case "number":
                return float(schema.get("minimum", 42))
            case "boolean":
                return True
        return None

    def _resolved(self, schema: Schema) -> Schema:
        for _ in range(_DEPTH):
            if "$ref" in schema:
                target: Any = self.root
                for part in schema["$ref"].removeprefix("#").split("/")[1:]:
                    target = target[part]
                schema = target
            elif options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
                schema = options[0]
            else:
                break
        return schema

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        return {name: self.value(properties[name], depth) for name in properties if self._goes_on(depth)}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        count = max(schema.get("minItems", 0), min(3, schema.get("maxItems", 3)))
        items = schema.get("items") or {}
        return [self.value(items, depth) for _ in range(min(count, _VALUES)) if self._goes_on(depth)]

    def _goes_on(self, depth: int) -> bool:
        return depth < _DEPTH and self.left > 0


ANY_OBJECT: Schema = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "keywords": {"type": "array", "items": {"type": "string"}},
        "confidence": {"type": "number", "minimum": 0.8},
        "simulated": {"const": True},
    },
}
"""What `"format": "json"` gets."""


def json_answer(wanted: Any, prompt: str) -> str:
    """An answer for `format`: the word `json`, or a schema."""
    words = cycle(re.findall(r"\w{3,}", prompt) or ["simulated"])
    return json.dumps(fit(wanted if isinstance(wanted, dict) else ANY_OBJECT, words), indent=2, ensure_ascii=False)


def subjects(text: str) -> list[str]:
    """What a question is about: its names (capitalised words that do not begin the text), else its last word."""
    names = re.findall(r"(?<=\w[\s,])[A-ZÀ-Þ][\w-]+(?: [A-ZÀ-Þ][\w-]+)*", text)
    return names or re.findall(r"\w+", text)[-1:] or ["it"]


def choose_tool(tools: list[dict[str, Any]], prompt: str) -> dict[str, Any]:
    """The function whose name and description share most words with the prompt."""
    asked = set(re.findall(r"[a-z]+", prompt.lower()))

    def shared(function: dict[str, Any]) -> int:
        text = f"{function.get('name', '')} {function.get('description', '')}"
        return len(asked & set(re.findall(r"[a-z]+", text.lower())))

    return max((tool.get("function") or {} for tool in tools), key=shared)


def tool_calls(function: dict[str, Any], about: list[str], *, native: bool) -> list[dict[str, Any]]:
    """One call per subject. A native template gives long ids, Ollama's own parser gives `call_…`."""
    letters = string.ascii_letters + string.digits if native else string.ascii_lowercase + string.digits
    return [
        {
            "id": ("" if native else "call_") + "".join(random.choices(letters, k=32 if native else 8)),
            "function": {
                "index": index,
                "name": function.get("name") or "",
                "arguments": fit({"type": "object", **(function.get("parameters") or {})}, repeat(subject)),
            },
        }
        for index, subject in enumerate(about)
    ]
