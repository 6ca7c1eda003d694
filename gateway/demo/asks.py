"""What a client asks of chat and generate, checked the way Ollama checks it: order, statuses and wording."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any, Literal

import orjson

from gateway.demo.answers import tokens
from gateway.demo.models import FOREVER, Model, full_name
from gateway.demo.prompt import render
from gateway.demo.wire import RefusedError

Kind = Literal["chat", "generate"]
Fields = Mapping[str, tuple[type | tuple[type, ...], str]]

_COMMON: Fields = {
    "model": (str, "string"),
    "stream": (bool, "bool"),
    "options": (dict, "map[string]interface {}"),
    "logprobs": (bool, "bool"),
    "top_logprobs": (int, "int"),
    "truncate": (bool, "bool"),
    "_debug_render_only": (bool, "bool"),
}
_FIELDS: dict[Kind, Fields] = {
    "chat": {**_COMMON, "messages": (list, "[]api.Message"), "tools": (list, "api.Tools")},
    "generate": {
        **_COMMON,
        "prompt": (str, "string"),
        "suffix": (str, "string"),
        "system": (str, "string"),
        "template": (str, "string"),
        "context": (list, "[]int"),
        "raw": (bool, "bool"),
        "images": (list, "[]api.ImageData"),
    },
}
_MESSAGE: Fields = {
    "role": (str, "string"),
    "content": (str, "string"),
    "thinking": (str, "string"),
    "images": (list, "[]api.ImageData"),
    "tool_calls": (list, "[]api.ToolCall"),
}
_GO_KINDS = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}

_INTEGERS = "num_keep seed num_predict top_k repeat_last_n num_ctx num_batch num_gpu main_gpu num_thread"
_FLOATS = "top_p min_p typical_p temperature repeat_penalty presence_penalty frequency_penalty"
_OPTIONS = {
    "integer": frozenset(_INTEGERS.split()),
    "float32": frozenset(_FLOATS.split()),
    "boolean": frozenset({"use_mmap"}),
    "array": frozenset({"stop"}),
}


def _is(kind: str, option: Any) -> bool:
    """Whether an option is of that Go type. A missing one is; any JSON number is an integer to Ollama."""
    if kind == "array":
        return option is None or isinstance(option, list)
    if isinstance(option, int | float) and not isinstance(option, bool):
        return kind != "boolean" and isfinite(option)
    return option is None or (kind == "boolean" and isinstance(option, bool))


_GO_SYNTAX = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
    "Invalid control character at": "in string literal",
}


def parse(body: bytes, struct: str, fields: Fields) -> dict[str, Any]:
    """The JSON object in a request body, with `fields` of the right type."""
    if not body.strip():
        raise RefusedError(400, "missing request body")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _lenient(body.decode(errors="surrogateescape"))
    if value is None:  # to Go, null is an object without fields
        return {}
    if not isinstance(value, dict):
        raise RefusedError(400, f"json: cannot unmarshal {_GO_KINDS[type(value)]} into Go value of type api.{struct}")
    _check(struct, value, fields)
    return value


def _lenient(text: str) -> Any:
    """Go reads the first value only, and replaces what is not Unicode; its complaints are worded here."""
    try:
        value = json.JSONDecoder(parse_constant=_no_constant).raw_decode(text.lstrip())[0]
    except json.JSONDecodeError as error:
        rest = error.doc[error.pos :].strip()
        if not rest or error.msg.startswith("Unterminated"):
            raise RefusedError(400, "unexpected EOF") from None
        where = _GO_SYNTAX.get(error.msg, "looking for beginning of value")
        byte = rest[0].encode(errors="surrogateescape")[0]  # Go shows the byte, as if it were Latin-1
        raise RefusedError(400, f"invalid character '{chr(byte)}' {where}") from None
    except RecursionError:
        raise RefusedError(400, "exceeded max depth") from None
    clean = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return json.loads(clean)


def _no_constant(name: str) -> None:
    """Python reads `NaN` and `Infinity`, which are not JSON."""
    raise RefusedError(400, f"invalid character '{name.lstrip('-')[0]}' looking for beginning of value")


def _check(struct: str, value: Mapping[str, Any], fields: Fields) -> None:
    for name, (kind, go_type) in fields.items():
        found = value.get(name)
        if found is None or (isinstance(found, kind) and not (kind is int and isinstance(found, bool))):
            continue
        go_kind = _GO_KINDS[type(found)]
        where = f"Go struct field {struct}.{name} of type {go_type}"
        raise RefusedError(400, f"json: cannot unmarshal {go_kind} into {where}")


@dataclass(frozen=True)
class Ask:
    """One chat or generate request, valid as far as it can be told without its model."""

    kind: Kind
    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    think: bool | str | None
    format: Any
    options: dict[str, Any]
    keep_alive_ns: int | None
    stream: bool
    suffix: str
    context: list[int]
    raw: bool
    truncate: bool
    render_only: bool
    logprobs: int | None
    """How many alternatives per token; None without `logprobs`."""

    @classmethod
    def parse(cls, kind: Kind, body: bytes) -> "Ask":
        struct = "ChatRequest" if kind == "chat" else "GenerateRequest"
        value = parse(body, struct, _FIELDS[kind])
        if kind == "chat":
            messages = [{} if message is None else message for message in value.get("messages") or []]
        elif value.get("prompt") or value.get("images"):
            messages = [{"role": "user", "content": value.get("prompt"), "images": value.get("images")}]
            if value.get("system"):
                messages.insert(0, {"role": "system", "content": value["system"]})
        else:
            messages = []
        for message in messages:
            _check_message(message)
        return cls(
            kind=kind,
            model=value.get("model") or "",
            messages=[message | {"role": (message.get("role") or "").lower()} for message in messages],
            tools=value.get("tools") or [],
            think=_think(value.get("think")),
            format=value.get("format"),
            options=value.get("options") or {},
            keep_alive_ns=duration_ns(value.get("keep_alive")),
            stream=value.get("stream") is not False,
            suffix=value.get("suffix") or "",
            context=value.get("context") or [],
            raw=value.get("raw") is True,
            truncate=value.get("truncate") is not False,
            render_only=value.get("_debug_render_only") is True,
            logprobs=(value.get("top_logprobs") or 0) if value.get("logprobs") else None,
        )

    @property
    def last_text(self) -> str:
        """What the last message says."""
        return self.messages[-1].get("content") or ""

    @cached_property
    def prompt(self) -> str:
        """All that the model reads of this request."""
        return self.last_text if self.raw else render(self.messages)

    @cached_property
    def prompt_tokens(self) -> list[str]:
        return tokens(self.prompt)

    def full_name(self) -> str:
        """The model's listed name. Chat and generate differ in what they say of a bad one."""
        name = full_name(self.model)
        if name:
            return name
        if self.kind == "generate":
            raise RefusedError(404, f"model '{self.model}' not found")
        raise RefusedError(400, "invalid model name" if self.model else "model is required")

    def check_against(self, model: Model) -> None:
        """What the model cannot do, then what its options may not be."""
        long_name = f"registry.ollama.ai/library/{model.name}"
        if self.think and "thinking" not in model.capabilities:
            raise RefusedError(400, f'"{self.model}" does not support thinking')
        if "completion" not in model.capabilities:
            raise RefusedError(400, f'"{self.model}" does not support {self.kind}')
        if self.tools and "tools" not in model.capabilities:
            raise RefusedError(400, f"{long_name} does not support tools")
        if self.suffix and "insert" not in model.capabilities:
            raise RefusedError(400, f"{long_name} does not support insert")
        for kind, names in _OPTIONS.items():
            for name in names & self.options.keys():
                if not _is(kind, self.options[name]):
                    raise RefusedError(500, f'option "{name}" must be of type {kind}')
        if not all(isinstance(stop, str) for stop in self.options.get("stop") or []):
            raise RefusedError(500, 'option "stop" must be of an array of strings')

    def check_length(self, context_length: int) -> None:
        """Without `truncate: false` what is too long is cut silently."""
        if not self.truncate and len(self.context) + len(self.prompt_tokens) > context_length:
            raise RefusedError(400, "the input length exceeds the context length", late=self.stream)

    def check_format(self) -> None:
        if self.format in (None, "", "json") or isinstance(self.format, dict):
            return
        raw = json.dumps(orjson.dumps(self.format).decode(), ensure_ascii=False)
        late = self.kind == "chat" and self.stream
        raise RefusedError(500, f'invalid format: {raw}; expected "json" or a valid JSON Schema object', late=late)


def _check_message(message: Any) -> None:
    if not isinstance(message, dict):
        raise RefusedError(400, f"json: cannot unmarshal {_GO_KINDS[type(message)]} into Go value of type api.Message")
    _check("Alias", message, _MESSAGE)
    for call in message.get("tool_calls") or []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and not isinstance(function.get("arguments"), dict | None):
            raise RefusedError(400, "Value looks like object, but can't find closing '}' symbol")
    for image in message.get("images") or []:
        try:
            base64.b64decode(image, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise RefusedError(400, "illegal base64 data at input byte 0") from None


def _think(value: Any) -> bool | str | None:
    if value is None or isinstance(value, bool) or value in ("high", "medium", "low", "max"):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        raise RefusedError(
            400, f'invalid think value: "{value}" (must be "high", "medium", "low", "max", true, or false)'
        )
    raise RefusedError(400, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)')


_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def duration_ns(value: Any) -> int | None:
    """A `keep_alive` in nanoseconds: a number of seconds or a Go duration (`1h30m`); negative is for ever."""
    if value is None:
        return None
    if isinstance(value, str):
        number = r"(?:\d+\.?\d*|\.\d+)"
        match = re.fullmatch(rf"([+-]?)((?:{number}(?:ns|us|µs|ms|s|m|h))+|0)", value)
        if not match:
            missing_unit = re.fullmatch(rf"[+-]?{number}", value)
            raise RefusedError(400, f'time: {"missing unit in" if missing_unit else "invalid"} duration "{value}"')
        parts = re.findall(rf"({number})(ns|us|µs|ms|s|m|h)", match[2])
        ns = sum(float(count) * _UNITS[unit] for count, unit in parts) * (-1 if match[1] == "-" else 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        ns = value * 10**9
    else:
        raise RefusedError(400, f"Unsupported type: '{_GO_KINDS[type(value)]}'")
    return FOREVER if ns < 0 else int(min(ns, FOREVER))
