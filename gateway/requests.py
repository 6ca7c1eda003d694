"""What a client may ask: query strings and JSON bodies, checked and turned into an `Ask`.

Bodies are Ollama's own. They are checked for shape, so that a mistake gets an error that names the field, and
then passed on as they came: unknown fields included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import parse_qsl

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from gateway.errors import InvalidRequest, TooLarge
from gateway.relay import Kind

Json = dict[str, Any]

M = TypeVar("M", bound=BaseModel)

MAX_QUERY_FIELDS = 100
MAX_COMMAS = 1_000_000
"""In a JSON body, so about its values: each may cost a hundred times its bytes. More than any context has tokens."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A valid request, before the operator's shaping.

    `body` is Ollama's request body without `stream`; `model` may be missing in it. `resume_window` is in seconds.
    """

    kind: Kind
    body: Json
    preset: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    resume_window: float = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that one request may hold; 0 is any number."""

    messages: int = 0
    images: int = 0
    prompt_chars: int = 0


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


def _keep_alive(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError('must be seconds or a duration such as "5m"')
    return value


def _think(value: object) -> object:
    if not isinstance(value, bool) and value not in ("low", "medium", "high", "max"):
        raise ValueError('must be true, false, "low", "medium", "high" or "max"')
    return value


def _format(value: object) -> object:
    if value not in ("", "json") and not isinstance(value, dict):
        raise ValueError('must be "json" or a JSON schema')
    return value


def _stop(value: object) -> object:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("must be a list of strings")
    return value


def _variables(value: object) -> object:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError("must be an object of strings")
    return value


Number = Annotated[Any, BeforeValidator(_number), WithJsonSchema({"type": "number"})]
KeepAlive = Annotated[Any, BeforeValidator(_keep_alive), WithJsonSchema({"type": ["number", "string"]})]
Think = Annotated[
    Any,
    BeforeValidator(_think),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": ["low", "medium", "high", "max"]}]}),
]
Format = Annotated[
    Any, BeforeValidator(_format), WithJsonSchema({"anyOf": [{"enum": ["", "json"]}, {"type": "object"}]})
]
Stop = Annotated[Any, BeforeValidator(_stop), WithJsonSchema({"type": "array", "items": {"type": "string"}})]
Variables = Annotated[dict[str, str], BeforeValidator(_variables)]


def _many() -> Any:
    """A list that fails at its first wrong item: to collect a million errors would take a minute."""
    return Field(None, fail_fast=True)


class Passing(BaseModel):
    """A part of Ollama's body: known fields are checked, unknown ones pass.

    Ollama reads `Role` as `role`, so another spelling would be a known field that nobody has checked.
    Source: Go's encoding/json, which folds case.
    """

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    @model_validator(mode="after")
    def _spelled_exactly(self) -> Self:
        for name in self.model_extra or ():
            known = name.casefold()
            if name != known and (known == "stream" or known in type(self).model_fields):
                raise ValueError(f"{_shown(name)} must be written as {known}")
        return self


class Options(Passing):
    """Ollama's model options. A wrong type is Ollama's 500, so it is told apart here."""

    num_keep: Number | None = None
    num_predict: Number | None = None
    num_ctx: Number | None = None
    num_batch: Number | None = None
    num_gpu: Number | None = None
    main_gpu: Number | None = None
    num_thread: Number | None = None
    seed: Number | None = None
    top_k: Number | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    typical_p: Number | None = None
    repeat_last_n: Number | None = None
    temperature: Number | None = None
    repeat_penalty: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    stop: Stop | None = None
    use_mmap: StrictBool | None = None


class Body(Passing):
    """What chat and generate share."""

    model: StrictStr | None = None
    format: Format | None = None
    keep_alive: KeepAlive | None = None
    options: Options | None = None
    think: Think | None = None
    truncate: StrictBool | None = None
    shift: StrictBool | None = None
    logprobs: StrictBool | None = None
    top_logprobs: StrictInt | None = None


class ToolFunction(Passing):
    name: StrictStr
    arguments: Json | None = None


class ToolCall(Passing):
    function: ToolFunction


class Message(Passing):
    """One turn of a conversation. `images` are base64."""

    role: StrictStr
    content: StrictStr | None = None
    thinking: StrictStr | None = None
    images: list[StrictStr] | None = _many()
    tool_calls: list[ToolCall] | None = _many()
    tool_name: StrictStr | None = None
    tool_call_id: StrictStr | None = None


class ChatBody(Body):
    """Ollama's body of `POST /api/chat`. Without messages it loads the model."""

    messages: list[Message] | None = _many()
    tools: list[Json] | None = _many()


class GenerateBody(Body):
    """Ollama's body of `POST /api/generate`. Without a prompt it loads the model."""

    prompt: StrictStr | None = None
    suffix: StrictStr | None = None
    system: StrictStr | None = None
    template: StrictStr | None = None
    context: list[StrictInt] | None = _many()
    raw: StrictBool | None = None
    images: list[StrictStr] | None = _many()


class PullBody(Passing):
    """Ollama's body of `POST /api/pull`."""

    model: StrictStr


class StreamRequest(BaseModel):
    """The body of `POST /api/streams`: one of `chat`, `generate` and `pull`, and the gateway's own options."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "oneOf": [{"required": [str(kind)], "properties": {str(kind): {"type": "object"}}} for kind in Kind]
        },
    )

    chat: ChatBody | None = None
    generate: GenerateBody | None = None
    pull: PullBody | None = None
    preset: StrictStr | None = None
    variables: Variables | None = None
    resume_window: StrictInt | StrictFloat | None = Field(None, json_schema_extra={"minimum": 0})


BODIES: dict[Kind, type[Passing]] = {
    Kind.CHAT: ChatBody,
    Kind.GENERATE: GenerateBody,
    Kind.PULL: PullBody,
}

TEXTS = ("prompt", "suffix", "system", "template", "content", "thinking")
GATEWAY_OPTIONS = ("preset", "resume_window", "last_event_id")
BODY_OPTIONS = ("model", "prompt", "system", "think", "format", "keep_alive")


def parse_query(query: bytes) -> dict[str, str]:
    """A query string's fields. Raises `InvalidRequest` for bytes that are not UTF-8 and for a field given twice."""
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeDecodeError:
        raise InvalidRequest("The query is not valid UTF-8.") from None
    except ValueError:
        raise InvalidRequest(f"The query has more than {MAX_QUERY_FIELDS} fields.") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"{_shown(twice)}: is given more than once.")
    return fields


def ask_by_query(kind: Literal[Kind.CHAT, Kind.GENERATE], fields: Mapping[str, str]) -> Ask:
    """The one-shot GET: a prompt and options, for `EventSource`, which can send nothing else."""
    preset, variables, resume_window, rest = _gateway_options(fields)
    options = {name.removeprefix("options."): value for name, value in rest.items() if name.startswith("options.")}
    unknown = [name for name in rest if name not in BODY_OPTIONS and not name.startswith("options.")]
    if unknown:
        raise InvalidRequest(
            f"{_shown(unknown[0])}: is not a query parameter. Known are {', '.join(BODY_OPTIONS)}, options.NAME, "
            f"variables.NAME, {', '.join(GATEWAY_OPTIONS)}."
        )
    prompt = rest.get("prompt", "")
    if not prompt.strip():
        raise InvalidRequest("prompt: is missing. Ask with ?prompt=…")
    body: Json = {name: rest[name] for name in ("model",) if rest.get(name)}
    if kind is Kind.CHAT:
        body["messages"] = [{"role": "user", "content": prompt}]
        if "system" in rest:
            body["messages"].insert(0, {"role": "system", "content": rest["system"]})
    else:
        body["prompt"] = prompt
        if "system" in rest:
            body["system"] = rest["system"]
    body |= {name: _value(rest[name]) for name in ("think", "format", "keep_alive") if name in rest}
    if options:
        body["options"] = {name: _option(name, value) for name, value in options.items()}
    check_body(kind, body)
    return Ask(kind, body, preset, variables, resume_window)


def ask_by_body(kind: Literal[Kind.CHAT, Kind.GENERATE], fields: Mapping[str, str], body: bytes) -> Ask:
    """The one-shot POST: Ollama's own body, with the gateway's options in the query."""
    preset, variables, resume_window, rest = _gateway_options(fields)
    if rest:
        raise InvalidRequest(
            f"{_shown(next(iter(rest)))}: is not a query parameter of a POST. Known are variables.NAME, "
            f"{', '.join(GATEWAY_OPTIONS)}; the rest belongs into the body."
        )
    parsed = _object(body)
    check_body(kind, parsed)
    return Ask(kind, _without_stream(parsed), preset, variables, resume_window)


def ask_for_stream(body: bytes) -> Ask:
    """`POST /api/streams`."""
    parsed = _object(body)
    request = _check(StreamRequest, parsed)
    kinds = [kind for kind in Kind if parsed.get(kind) is not None]
    if len(kinds) != 1:
        raise InvalidRequest("The body must have exactly one of chat, generate and pull.")
    return Ask(
        kinds[0],
        _without_stream(parsed[kinds[0]]),
        request.preset or None,
        request.variables or {},
        _window(request.resume_window or 0),
    )


def check_bounds(body: Json, bounds: Bounds) -> None:
    """Raise `TooLarge` when a body, whose shape has been checked, is larger than its operator allows."""
    # a field that is none of its kind's has not been checked, and may hold anything
    messages = body["messages"] if isinstance(body.get("messages"), list) else []
    parts = [part for part in (body, *messages) if isinstance(part, dict)]
    images = [part["images"] for part in parts if isinstance(part.get("images"), list)]
    texts = [part[name] for part in parts for name in TEXTS if isinstance(part.get(name), str)]
    for name, number, limit in (
        ("messages", len(messages), bounds.messages),
        ("images", sum(map(len, images)), bounds.images),
        ("prompt_chars", sum(map(len, texts)), bounds.prompt_chars),
    ):
        if limit and number > limit:
            what = name.replace("_chars", " characters")
            raise TooLarge(f"The request has {number} {what}, and {limit} are allowed (GATEWAY_MAX_{name.upper()}).")


def check_body(kind: Kind, body: object) -> None:
    """Raise `InvalidRequest`, naming the field, when this is not a body that Ollama would understand."""
    _check(BODIES[kind], body)


def _gateway_options(fields: Mapping[str, str]) -> tuple[str | None, dict[str, str], float, dict[str, str]]:
    """Preset, variables and resume window, and the fields that are left."""
    rest = {name: value for name, value in fields.items() if name not in GATEWAY_OPTIONS}
    variables = {
        name.removeprefix("variables."): rest.pop(name) for name in list(rest) if name.startswith("variables.")
    }
    window = fields.get("resume_window", "0")
    try:
        seconds = float(window)
    except ValueError:
        raise InvalidRequest("resume_window: must be a number of seconds.") from None
    return fields.get("preset") or None, variables, _window(seconds), rest


def _window(seconds: float) -> float:
    if not 0 <= seconds < float("inf"):
        raise InvalidRequest("resume_window: must be a number of seconds, 0 or more.")
    return seconds


def _value(text: str) -> object:
    """A query value that may be JSON (`true`, `5`, a schema), else it is the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _option(name: str, text: str) -> object:
    value = _value(text)
    if name == "stop" and not isinstance(value, list):
        return [text]  # `options.stop=END` is what everybody writes
    return value


def _object(body: bytes) -> Json:
    if body.count(b",") > MAX_COMMAS:
        raise TooLarge(f"The body has more than {MAX_COMMAS} commas, so too many values.")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return value


def _check(model: type[M], value: object) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidRequest(f"{_shown(where)}: {first['msg'].removeprefix('Value error, ')}.") from None


def _without_stream(body: Json) -> Json:
    return {name: value for name, value in body.items() if name != "stream"}


def _shown(name: str) -> str:
    """A client's own word in a message, at a bearable length."""
    return name if len(name) <= 100 else name[:100] + "…"
