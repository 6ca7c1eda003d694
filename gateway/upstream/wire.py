"""Ollama's words: its JSON lines, its error texts and its model names. Pure."""

import re
from contextlib import suppress
from typing import TypeGuard

import orjson

from gateway.errors import BadUpstream, OllamaError
from gateway.jobs import Json, Phase

_MESSAGE_CHARS = 1000
_ANSWER_FIELDS = frozenset(
    [
        *("model", "created_at", "response", "thinking", "tool_calls", "image", "images", "logprobs"),
        *("embeddings", "embedding"),
        *("done", "done_reason", "total_duration", "load_duration"),
        *("prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"),
    ]
)
_REGISTRY = re.compile(r"^(?:https?://)?(?:registry\.ollama\.ai/)?(?:library/)?")
DEFAULT_REGISTRY = "registry.ollama.ai"
_W = "A-Za-z0-9_"
NAME = (
    rf"(?:(?:(?:https://)?([{_W}][{_W}.:-]*)/)?[{_W}][{_W}-]*/)?"  # host and namespace
    rf"[{_W}][{_W}.-]*(?::[{_W}][{_W}.-]*)?"  # model and tag
)
"""The pattern of a model's name that may be pulled; the group is the host, if there is one."""

_WEIGHTS = re.compile(r"^FROM .*\b(sha256-[0-9a-f]{64})$", re.MULTILINE)
_BLOB = re.compile(r"^(FROM|ADAPTER) .*[/\\](sha256-[0-9a-f]{64})$", re.MULTILINE)
_PROGRESS = {"load_progress": Phase.LOADING, "prompt_progress": Phase.PROMPT}
_LASTING = re.compile(
    r"template:|invalid|does not support|not supported|unsupported|unknown|unmarshal|not found|does not exist|required"
    r"|no space left|unauthorized|forbidden|denied|newer version|(longer than|exceeds) the (available )?context",
    re.IGNORECASE,
)
_RUNNER_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")
_OPTION_CHARS = 32  # a longer value is no number, and Ollama refuses it

OPTIONS = "?"
"""What separates a model from the options with which it is loaded, in a key."""

_NO_OBJECT = "Ollama sent something that is not a JSON object. Is it really Ollama that answers?"

_TOKEN_FIELDS = ("content", "response", "thinking", "tool_calls", "image", "images")
_MESSAGE_FIELDS = frozenset(["role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"])


def parse_line(line: bytes) -> Json:
    """One JSON object as Ollama sends it. Raises `BadUpstream` for anything else."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise BadUpstream(_NO_OBJECT)
    return value


def message_of(line: bytes) -> Json | None:
    """What a line of an answer says; None if that is nothing. Raises `OllamaError` or `BadUpstream`."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = ()
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadUpstream(_NO_OBJECT)
    if (error := value.get("error")) not in (None, ""):
        # The status is Ollama's own for what goes wrong in an answer that it does not stream.
        raise OllamaError(words := error_text(error), status=500, retryable=may_pass(words))
    return value


def begins(message: Json) -> bool:
    """Whether a line holds something of the answer: text, thinking or a tool call."""
    said = message.get("message")
    parts = (message, said) if isinstance(said, dict) else (message,)
    return any(part.get(name) for part in parts for name in _TOKEN_FIELDS)


def progress_of(message: Json) -> tuple[Phase, float | None] | None:
    """What a line tells of the loading of the model or the reading of the prompt: how far it is, from 0 to 1."""
    for name, phase in _PROGRESS.items():
        if name in message and not message.get("done"):
            return phase, _share(message[name])
    return None


def _share(told: object) -> float | None:
    """A number from 0 to 1, or the two numbers that llama.cpp's server tells."""
    done, total = (told.get("processed"), told.get("total")) if isinstance(told, dict) else (told, 1)
    if not (_is_number(done) and _is_number(total) and 0 <= done <= total and total):
        return None
    return round(done / total, 3)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def may_pass(error: str) -> bool:
    """Whether a failure in Ollama's words may be gone at the next try, in whatever part of an answer it comes.

    The runner may have been killed and the network may have been away, but a template stays broken.
    """
    return not _LASTING.search(error)


def as_shown(line: bytes, message: Json, *, shaped: bool) -> bytes:
    """A line, which holds `message`, as clients may see it."""
    if shaped:
        return _without_prompt(message)
    if "error" in message:  # null or empty, but a client would take it for an error
        return _written({name: value for name, value in message.items() if name != "error"})
    return line


def _without_prompt(message: Json) -> bytes:
    """A line of an answer with nothing but what is known to come from the model, and figures.

    Ollama also tells the prompt as it was rendered, system prompt and template included: `context` has its tokens, and
    `_debug_info` its text. What a later version adds may do the same.
    """
    shown = {name: value for name, value in message.items() if name in _ANSWER_FIELDS}
    if isinstance(said := message.get("message"), dict):
        shown["message"] = {name: value for name, value in said.items() if name in _MESSAGE_FIELDS}
    return _written(shown)


def _written(message: Json) -> bytes:
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
        raise BadUpstream("Ollama sent JSON that is nested too deeply.") from None


def error_text(value: object) -> str:
    """Ollama's own words for a person, from an `error` field of whatever form.

    The runner's errors come as a string that holds JSON. The text of a Go type error would name internal types.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    while isinstance(value, dict):
        value = value.get("error") or value.get("message")
    text = value.strip() if isinstance(value, str) else ""
    if text.startswith("json:"):
        return "Ollama could not read the request's JSON."
    return text[:_MESSAGE_CHARS] or "Ollama reported an error without a message."


_FORMS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("digest", "modified_at", "modelfile", "parameter_size", "quantization_level"), str),
    **dict.fromkeys(("details", "model_info"), dict),
    **dict.fromkeys(("size", "context_length"), (int, float)),
    "capabilities": list,
}


def is_details(value: Json) -> bool:
    """Whether the fields of a model that are used, of those that are there, have the form that Ollama gives them."""
    return (
        _has_forms(value)
        and _has_forms(value.get("details") or {})
        and all(isinstance(each, str) for each in value.get("capabilities") or ())
    )


def _has_forms(value: Json) -> bool:
    return all(isinstance(value[name], form) for name, form in _FORMS.items() if value.get(name) is not None)


def context_length(shown: Json) -> int | None:
    """The context length of a model, from the answer of `/api/show`, where it is under the architecture's name."""
    info = shown.get("model_info") or {}
    length = info.get(f"{info.get('general.architecture')}.context_length")
    return int(length) if _is_number(length) else None


def is_model(value: object) -> bool:
    """Whether this is a model in one of Ollama's lists."""
    return isinstance(value, dict) and isinstance(value.get("name"), str) and is_details(value)


def weights(shown: Json) -> str | None:
    """The digest of the file with a model's weights, from the answer of `/api/show`. Several models may share it."""
    found = _WEIGHTS.search(str(shown.get("modelfile")))
    return found and found[1]


def without_paths(shown: Json) -> Json:
    """The answer of `/api/show` without the paths of files on the server, which its modelfile tells."""
    if not isinstance(modelfile := shown.get("modelfile"), str):
        return shown
    return shown | {"modelfile": _BLOB.sub(r"\1 \2", modelfile)}


def model_key(model: str, body: Json) -> str:
    """What Ollama must have loaded for a request: the model, and the options with which another request would have it
    load the model once more.
    """
    options = body.get("options") or {}
    given = {name: options[name] for name in _RUNNER_OPTIONS if options.get(name) is not None}
    if body.get("shift") is not None:
        given["shift"] = body["shift"]
    return normal_name(model) + OPTIONS + "&".join(f"{name}={str(given[name])[:_OPTION_CHARS]}" for name in given)


def normal_name(model: str) -> str:
    """A model's name as Ollama lists it: in lower case, without the registry that is meant in any case, and with
    `:latest` where no tag is given.
    """
    name = _REGISTRY.sub("", model.lower())
    return name if ":" in name.rpartition("/")[2] else name + ":latest"


def registry_of(model: str) -> str | None:
    """The registry, as `host` or `host:port`, that Ollama asks when it pulls a model; None if this is no model's name.

    Only the plain form counts as a name. Other schemes, digests and escapes mean different hosts to different versions.
    """
    name = re.fullmatch(NAME, model)
    return name and (name[1] or DEFAULT_REGISTRY).lower()
