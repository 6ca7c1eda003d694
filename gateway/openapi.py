"""The contract for programs: an OpenAPI document made from the route table, the pydantic models and the error tree."""

import inspect
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, Route

from gateway import __version__
from gateway.errors import (
    BadUpstream,
    Busy,
    ConnectTimeout,
    ForbiddenHost,
    ForbiddenOrigin,
    GatewayError,
    InternalError,
    InvalidRequest,
    NotFound,
    OllamaError,
    OllamaUnreachable,
    ShapeFailed,
    ShuttingDown,
    TooLarge,
    Unauthorized,
)
from gateway.events import CONTENT_TYPE
from gateway.relay import Kind, Outcome, Phase
from gateway.requests import ChatBody, GenerateBody, Options, StreamRequest

Json = dict[str, Any]

_STRING, _INTEGER, _BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_MAYBE = {"type": ["integer", "null"]}
_EVENT_ID = {"type": "string", "pattern": "^[0-9a-z]{26,64}-[1-9][0-9]{0,17}$"}
_EVENT_ID_OR_NONE = {"anyOf": [_EVENT_ID, {"const": ""}]}
_REF = "#/components/schemas/{model}"


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(model=name)}


def _object(optional: Json | None = None, **required: Json) -> Json:
    return {"type": "object", "properties": required | (optional or {}), "required": list(required)}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _event(name: str, payload: Json, **more: Json) -> Json:
    """An event as a parser sees it: `data` is the text of `payload`, and what has no name on the wire is a message."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": payload}
    return _object(event={"const": name}, data=data, **more)


_FIGURES = {
    "done_reason": _STRING,
    "total_duration": _INTEGER,
    "load_duration": _INTEGER,
    "prompt_eval_count": _INTEGER,
    "prompt_eval_duration": _INTEGER,
    "eval_count": _INTEGER,
    "eval_duration": _INTEGER,
}
_MESSAGE = _object({"thinking": _STRING, "tool_calls": _array({"type": "object"})}, role=_STRING, content=_STRING)

SCHEMAS: dict[str, Json] = {
    "Error": _object(error=_STRING, code=_STRING, phase=_STRING, retryable=_BOOLEAN),
    "Stream": _object(id=_STRING, url=_STRING, kind={"enum": [*Kind]}, model=_STRING),
    "Meta": _object(v={"const": 1}, id=_STRING, url=_STRING, kind={"enum": [*Kind]}, model=_STRING),
    "Status": _object(
        {"position": _INTEGER | {"minimum": 1}},
        phase={"enum": [*Phase]},
        elapsed_ms=_INTEGER,
    ),
    "End": _object(outcome={"enum": [*Outcome]}, events=_INTEGER, first_token_ms=_MAYBE, elapsed_ms=_INTEGER),
    "ChatLine": _object(_FIGURES, model=_STRING, message=_MESSAGE, done=_BOOLEAN),
    "GenerateLine": _object(
        {"thinking": _STRING, "context": _array(_INTEGER), **_FIGURES},
        model=_STRING,
        response=_STRING,
        done=_BOOLEAN,
    ),
    "PullLine": _object({"digest": _STRING, "total": _INTEGER, "completed": _INTEGER}, status=_STRING),
    "Event": {
        "oneOf": [
            _event(
                "message",
                {"anyOf": [_ref(f"{each}Line") for each in ("Chat", "Generate", "Pull")] + [_ref("Error")]},
                id=_EVENT_ID,
            ),
            _event("meta", _ref("Meta")),
            _event("status", _ref("Status")),
            _event("end", _ref("End"), id=_EVENT_ID),
        ]
    },
    "Model": _object(
        name=_STRING,
        size=_INTEGER,
        parameters=_STRING,
        quantization=_STRING,
        context_length=_MAYBE,
        loaded_context_length=_MAYBE,
        capabilities=_array(_STRING),
        loaded=_BOOLEAN,
        modified_at=_STRING,
    ),
    "Models": _object(models=_array(_ref("Model")), default={"type": ["string", "null"]}, allow_pull=_BOOLEAN),
    "Preset": _object(
        name=_STRING,
        description=_STRING,
        variables=_array(_object(name=_STRING, default={"type": ["string", "null"]}, description=_STRING)),
        overrides=_array(_STRING),
    ),
    "Presets": _object(presets=_array(_ref("Preset")), default={"type": ["string", "null"]}, only=_BOOLEAN),
    "Server": _object(url=_STRING, version={"type": ["string", "null"]}, problem={"type": ["string", "null"]}),
    "Health": _object({"reason": _STRING, "servers": _array(_ref("Server"))}, status={"enum": ["ok", "unavailable"]}),
}
"""What is sent, beside the models of what is asked. `Event` is one event of a stream."""


def _query(name: str, description: str, schema: Json = _STRING, required: bool = False) -> Json:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


def _option(name: str, schema: Json) -> Json:
    kinds = [_STRING if each["type"] == "array" else each for each in schema["anyOf"]]
    return _query(f"options.{name}", "An option of Ollama's.", {"anyOf": kinds})


_PRESET = _query("preset", "A preset of the operator's; its variables are variables.NAME.")
_WINDOW = _query("resume_window", "Seconds that the generation goes on unread.", {"type": "number", "minimum": 0})
_SEEN = "The id of the last event that was read: go on after it."
_SEEN_QUERY = _query("last_event_id", _SEEN + " The header wins.", _EVENT_ID_OR_NONE)
_SEEN_HEADER = {"name": "Last-Event-ID", "in": "header", "description": _SEEN, "schema": _EVENT_ID_OR_NONE}
_SID = {"name": "sid", "in": "path", "required": True, "description": "The stream's id.", "schema": _STRING}
_ASK = [
    _query("prompt", "What to ask.", {"type": "string", "pattern": r"\S"}, required=True),
    _query("model", "A model; else the operator's default, else the first installed."),
    _query("system", "A system prompt."),
    _query("think", "Whether, and how much.", {"enum": ["true", "false", "null", "low", "medium", "high", "max"]}),
    _query("format", "json, or a JSON schema."),
    _query("keep_alive", "Seconds, or a duration such as 5m, that the model stays loaded."),
    *(_option(name, schema) for name, schema in Options.model_json_schema()["properties"].items()),
]


def _json(description: str, schema: Json, **more: Any) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}, **more}


def _text(description: str, media_type: str) -> Json:
    return {"description": description, "content": {media_type: {"schema": _STRING}}}


def _body(model: type[BaseModel]) -> Json:
    return {"required": True, "content": {"application/json": {"schema": _ref(model.__name__)}}}


_ALWAYS: tuple[type[GatewayError], ...] = (Unauthorized, ForbiddenHost, ForbiddenOrigin, InternalError)


def _errors(*kinds: type[GatewayError], **others: type[GatewayError]) -> Json:
    """A response for each status; `others` are keyed by the status that they have instead of their own."""
    pairs: list[tuple[int, type[GatewayError]]] = [(kind.status, kind) for kind in (*_ALWAYS, *kinds)]
    pairs += [(int(status[1:]), kind) for status, kind in others.items()]
    codes: dict[str, list[str]] = {}
    for status, kind in pairs:
        codes.setdefault(str(status), []).append(kind.code)
    return {status: _json(f"Error: {', '.join(each)}.", _ref("Error")) for status, each in sorted(codes.items())}


_UPSTREAM: tuple[type[GatewayError], ...] = (OllamaUnreachable, OllamaError, BadUpstream, ConnectTimeout)
_SHAPED: tuple[type[GatewayError], ...] = (InvalidRequest, TooLarge, ShapeFailed, *_UPSTREAM)
_START = _errors(*_SHAPED, Busy, ShuttingDown, _403=InvalidRequest, _429=Busy)

_STREAM = {
    "description": "Events. Unnamed ones are Ollama's lines or an Error; Meta, Status and End are named.",
    "content": {CONTENT_TYPE: {"schema": _STRING, "x-itemSchema": _ref("Event")}},
}
_READ = {
    "200": _STREAM,
    "204": {"description": "The end has been read, or the stream is not held any more: do not come back."},
}
_GET = {"parameters": [*_ASK, _PRESET, _WINDOW, _SEEN_QUERY, _SEEN_HEADER], "responses": _READ | _START}


def _post(body: type[BaseModel]) -> Json:
    return {
        "parameters": [_PRESET, _WINDOW, _SEEN_QUERY, _SEEN_HEADER],
        "requestBody": _body(body),
        "responses": _READ | _START,
    }


_CREATED = {"Location": {"description": "The stream's URL.", "schema": _STRING}}

OPERATIONS: dict[tuple[str, str], Json] = {
    ("GET", "/api/chat"): _GET,
    ("POST", "/api/chat"): _post(ChatBody),
    ("GET", "/api/generate"): _GET,
    ("POST", "/api/generate"): _post(GenerateBody),
    ("POST", "/api/streams"): {
        "requestBody": _body(StreamRequest),
        "responses": {"201": _json("It has started.", _ref("Stream"), headers=_CREATED)} | _START,
    },
    ("GET", "/api/streams/{sid}"): {
        "parameters": [_SID, _query("last_event_id", _SEEN + " The header wins."), _SEEN_HEADER],
        "responses": _READ | _errors(NotFound, InvalidRequest),
    },
    ("DELETE", "/api/streams/{sid}"): {
        "parameters": [_SID],
        "responses": {"204": {"description": "It does not run (any more)."}} | _errors(),
    },
    ("GET", "/api/models"): {"responses": {"200": _json("The models.", _ref("Models"))} | _errors(*_UPSTREAM)},
    ("GET", "/api/presets"): {"responses": {"200": _json("The presets.", _ref("Presets"))} | _errors()},
    ("POST", "/api/preview"): {
        "requestBody": _body(StreamRequest),
        "responses": {"200": _json("The body that Ollama would be sent.", {"type": "object"})}
        | _errors(NotFound, *_SHAPED, _403=InvalidRequest),
    },
    ("POST", "/api/session"): {"responses": {"204": {"description": "The cookie is set."}} | _errors()},
    ("DELETE", "/api/session"): {"responses": {"204": {"description": "The cookie is gone."}} | _errors()},
    ("GET", "/healthz"): {"responses": {"200": _json("Alive.", _ref("Health"))} | _errors()},
    ("GET", "/readyz"): {
        "responses": {"200": _json("Ready.", _ref("Health")), "503": _json("Not ready, and why.", _ref("Health"))}
        | _errors()
    },
    ("GET", "/metrics"): {"responses": {"200": _text("Metrics.", "text/plain")} | _errors()},
    ("GET", "/client.js"): {"responses": {"200": _text("The module.", "text/javascript")} | _errors()},
    ("GET", "/client.d.ts"): {"responses": {"200": _text("Its types.", "text/typescript")} | _errors()},
}
"""What the code of a handler does not tell, for every route that a program may use."""


def document(routes: Sequence[BaseRoute]) -> Json:
    """The OpenAPI 3.1 document of these routes. `x-itemSchema` is what OpenAPI 3.2 calls `itemSchema`."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in (ChatBody, GenerateBody, StreamRequest)], ref_template=_REF
    )
    paths: dict[str, Json] = {}
    for route in routes:
        if isinstance(route, Route):
            for method in sorted(route.methods or set()):
                if operation := OPERATIONS.get((method, route.path)):
                    paths.setdefault(route.path, {})[method.lower()] = _operation(route, method, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ollama SSE gateway",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"] | SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(route: Route, method: str, operation: Json) -> Json:
    name = route.path.strip("/").replace("/", "_").replace("{", "").replace("}", "")
    summary = (inspect.getdoc(route.endpoint) or "").split("\n")[0]
    default = _json("Any other error: a request that is refused before it is read.", _ref("Error"))
    responses = operation["responses"] | {"default": default}
    return {"operationId": f"{method.lower()}_{name}", "summary": summary, **operation, "responses": responses}
