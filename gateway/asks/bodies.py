"""Ollama's request bodies as pydantic models.

The shape of a body is checked, so that a mistake gets an error that names the field. The body is then passed on
unchanged, unknown fields included; of a pull, only the model's name is.
"""

from typing import Annotated, Any, Self, TypeVar

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
    create_model,
    model_validator,
)

from gateway.asks.fields import (
    Format,
    Input,
    Insecure,
    KeepAlive,
    ModelName,
    Number,
    PulledName,
    Stop,
    Think,
    Variables,
)
from gateway.errors import InvalidRequest
from gateway.jobs import Json, Kind
from gateway.validation import explain

M = TypeVar("M", bound=BaseModel)

SHOWN_CHARS = 100  # of a client's own words, in an error message

_MANY: Any = Field(None, fail_fast=True)
"""A list that fails at its first wrong item: collecting a million errors would take a minute."""


class Passing(BaseModel):
    """A part of Ollama's body: known fields are checked, unknown ones pass.

    Ollama, like Go's encoding/json, reads `Role` as `role`: a field in another spelling would get past its check.
    """

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    @model_validator(mode="after")
    def _spelled_exactly(self) -> Self:
        for name in self.model_extra or ():
            known = name.casefold()
            if name != known and (known == "stream" or known in type(self).model_fields):
                raise ValueError(f"{shown(name)} must be written as {known}")
        return self


class Options(Passing):
    """Ollama's model options. Ollama answers a wrong type with a 500, so it is refused here."""

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
    """The fields that chat and generate share.

    A field of the other kind, such as a prompt beside messages, would be read by a hook and not by Ollama.
    """

    model: ModelName | None = None
    format: Format | None = None
    keep_alive: KeepAlive | None = None
    options: Options | None = None
    think: Think | None = None
    truncate: StrictBool | None = None
    shift: StrictBool | None = None
    logprobs: StrictBool | None = None
    top_logprobs: StrictInt | None = None

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        others = self.model_extra or {}
        for name in FIELDS:
            if others.get(name):  # some clients send fields without a value
                raise ValueError(f"{name} is a field of {'chat' if name in ChatBody.model_fields else 'generate'} only")
        return self


def _arguments(value: object) -> object:
    if isinstance(value, str):
        try:
            value = orjson.loads(value or "{}")
        except orjson.JSONDecodeError:
            raise ValueError("must be an object, or JSON text of one") from None
    return value


class ToolFunction(Passing):
    """`arguments` may be JSON text, as in histories of OpenAI's form."""

    name: StrictStr
    arguments: Annotated[Json | None, BeforeValidator(_arguments)] = None


class ToolCall(Passing):
    function: ToolFunction


class Message(Passing):
    """One turn of a conversation. `images` are base64."""

    role: StrictStr
    content: StrictStr | None = None
    thinking: StrictStr | None = None
    images: list[StrictStr] | None = _MANY
    tool_calls: list[ToolCall] | None = _MANY
    tool_name: StrictStr | None = None
    tool_call_id: StrictStr | None = None


class ChatBody(Body):
    """Ollama's body of `POST /api/chat`. Without messages it loads the model."""

    messages: list[Message] | None = _MANY
    tools: list[Json] | None = _MANY


class GenerateBody(Body):
    """Ollama's body of `POST /api/generate`. Without a prompt it loads the model."""

    prompt: StrictStr | None = None
    suffix: StrictStr | None = None
    system: StrictStr | None = None
    template: StrictStr | None = None
    context: list[StrictInt] | None = _MANY
    raw: StrictBool | None = None
    images: list[StrictStr] | None = _MANY


FIELDS = (ChatBody.model_fields | GenerateBody.model_fields).keys()


class PullBody(Passing):
    """Ollama's body of `POST /api/pull`, which still may say `name` for `model`. Nothing but the model is passed on."""

    model: PulledName
    name: ModelName | None = None
    insecure: Insecure = None

    @model_validator(mode="before")
    @classmethod
    def _old_name(cls, value: object) -> object:
        if isinstance(value, dict) and not value.get("model") and value.get("name"):
            return value | {"model": value["name"]}
        return value


class EmbedBody(Passing):
    """Ollama's body of `POST /api/embed`."""

    model: ModelName | None = None
    input: Input | None = None
    truncate: StrictBool | None = None
    dimensions: StrictInt | None = None
    keep_alive: KeepAlive | None = None
    options: Options | None = None


class EmbeddingsBody(Passing):
    """Ollama's body of `POST /api/embeddings`, which `/api/embed` has replaced."""

    model: ModelName | None = None
    prompt: StrictStr | None = None
    keep_alive: KeepAlive | None = None
    options: Options | None = None


class ShowBody(Passing):
    """Ollama's body of `POST /api/show`, which still may say `name` for `model`."""

    model: ModelName | None = None
    name: ModelName | None = None


BODIES: dict[Kind, type[Passing]] = {
    Kind.CHAT: ChatBody,
    Kind.GENERATE: GenerateBody,
    Kind.PULL: PullBody,
    Kind.EMBED: EmbedBody,
    Kind.EMBEDDINGS: EmbeddingsBody,
}
STREAMED = [kind for kind in Kind if not kind.traits.whole]
"""The kinds that `POST /api/streams` starts."""


_ONE_KIND: Any = [{"required": [str(kind)], "properties": {str(kind): {"type": "object"}}} for kind in STREAMED]


class StreamOptions(BaseModel):
    """The gateway's own options beside the body."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"oneOf": _ONE_KIND})

    preset: StrictStr | None = None
    variables: Variables | None = None
    resume_window: StrictInt | StrictFloat | None = Field(None, json_schema_extra={"minimum": 0})


_FIELDS: dict[str, Any] = {str(kind): (BODIES[kind] | None, None) for kind in STREAMED}

StreamRequest = create_model(
    "StreamRequest",
    __base__=StreamOptions,
    __doc__="The body of `POST /api/streams`: the body of one kind, under its name, and the gateway's own options.",
    **_FIELDS,
)


def check_shape(model: type[M], value: object) -> M:
    """The validated value. Raises `InvalidRequest`, naming the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = explain(error)
        raise InvalidRequest(f"{shown('.'.join(problem.path) or 'body')}: {problem.message}.") from None


def check_body(kind: Kind, body: object) -> None:
    """Raise `InvalidRequest`, naming the field, when Ollama would not understand this body."""
    check_shape(BODIES[kind], body)


def to_json(value: object, option: int = 0) -> bytes:
    """JSON of what a client has sent; `option` is orjson's. Raises `InvalidRequest` where it is nested too deeply."""
    try:
        # A copy, because orjson's own result keeps a buffer of 4 KiB.
        return bytes(memoryview(orjson.dumps(value, option=option)))
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"The body cannot be written as JSON: {error}.") from None


def as_sent(kind: Kind, body: Json) -> Json:
    """A body, whose shape has been checked, as Ollama reads it: in today's form, and without fields of another kind.

    It has no `stream`, because the gateway always streams.
    """
    if kind is Kind.PULL:
        return {"model": body.get("model") or body["name"]}
    others = (FIELDS | {"stream"}) - BODIES[kind].model_fields.keys()
    body = {name: value for name, value in body.items() if name not in others}
    if kind is Kind.CHAT and body.get("messages"):
        body["messages"] = [_as_read(message) for message in body["messages"]]
    return body


def _as_read(message: Json) -> Json:
    """A message with its role in lower case, whose tool calls have their arguments as objects."""
    calls = []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        if isinstance(function.get("arguments"), str):
            function = function | {"arguments": _arguments(function["arguments"])}
        calls.append(call | {"function": function})
    read = {"role": message["role"].lower()} | ({"tool_calls": calls} if calls else {})
    return message if read == {"role": message["role"]} else message | read


def shown(text: str) -> str:
    """A client's own words, cut to `SHOWN_CHARS` for an error message."""
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"
