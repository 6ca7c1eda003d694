"""The contract for programs: an OpenAPI document made from the routes, the types of the payloads and the errors."""

import inspect
from collections.abc import Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, Route

from gateway import __version__, errors
from gateway.asks.bodies import BODIES, Options, ShowBody, StreamRequest
from gateway.dialects import ollama
from gateway.dialects.events import CONTENT_TYPE
from gateway.jobs import STREAMS_PATH, Created, End, Json, Kind, Meta, Status
from gateway.upstream.models import Model
from gateway.upstream.servers import Health
from gateway.web.dialect import DIALECTS, OLLAMA

_STRING, _INTEGER, _BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_MAYBE_STRING = {"type": ["string", "null"]}
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
    """An event as a parser sees it: `data` is the text of `payload`; an event without a name is a `message`."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": payload}
    return _object(event={"const": name}, data=data, **more)


def _payload(kind: type, **more: Json) -> Json:
    """The schema of a `TypedDict`; `more` is merged into the schemas of its fields."""
    hints = get_type_hints(kind)
    fields = {name: TypeAdapter(hint).json_schema() | more.get(name, {}) for name, hint in hints.items()}
    required = vars(kind)["__required_keys__"]
    return {"type": "object", "properties": fields, "required": [name for name in fields if name in required]}


_DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
_FIGURES = {"done_reason": _STRING} | dict.fromkeys(("prompt_eval_count", "eval_count", *_DURATIONS), _INTEGER)
_MESSAGE = _object({"thinking": _STRING, "tool_calls": _array({"type": "object"})}, role=_STRING, content=_STRING)
_GENERATED = {"thinking": _STRING, "context": _array(_INTEGER), **_FIGURES}
_VECTOR = _array({"type": "number"})
_VECTORS = _array(_VECTOR)
_LINES = [_ref("ChatLine"), _ref("GenerateLine"), _ref("PullLine")]

SCHEMAS: dict[str, Json] = {
    "Error": _payload(errors.ErrorPayload),
    "OllamaError": _object(error=_STRING),
    "Stream": _payload(Created),
    "Meta": _payload(Meta),
    "Status": _payload(Status, position={"minimum": 1}, eta_ms={"minimum": 0}, progress={"minimum": 0, "maximum": 1}),
    "End": _payload(End),
    "ChatLine": _object(_FIGURES, model=_STRING, message=_MESSAGE, done=_BOOLEAN),
    "GenerateLine": _object(_GENERATED, model=_STRING, response=_STRING, done=_BOOLEAN),
    "PullLine": _object({"digest": _STRING, "total": _INTEGER, "completed": _INTEGER}, status=_STRING),
    "EmbedLine": _object({"model": _STRING, "embeddings": _VECTORS, "embedding": _VECTOR} | _FIGURES),
    "Event": {
        "oneOf": [
            _event("message", {"anyOf": [*_LINES, _ref("Error")]}, id=_EVENT_ID),
            _event("meta", _ref("Meta")),
            _event("status", _ref("Status")),
            _event("end", _ref("End"), id=_EVENT_ID),
        ]
    },
    "Model": _payload(Model),
    "Models": _object(models=_array(_ref("Model")), default=_MAYBE_STRING, allow_pull=_BOOLEAN),
    "Preset": _object(
        name=_STRING,
        description=_STRING,
        variables=_array(_object(name=_STRING, default=_MAYBE_STRING, description=_STRING)),
        overrides=_array(_STRING),
    ),
    "Presets": _object(presets=_array(_ref("Preset")), default=_MAYBE_STRING, only=_BOOLEAN),
    "Server": _payload(Health),
    "Health": _object({"reason": _STRING, "servers": _array(_ref("Server"))}, status={"enum": ["ok", "unavailable"]}),
}
"""The schemas of what is sent. `Event` is one event of a stream."""


def _query(name: str, description: str, schema: Json = _STRING, required: bool = False) -> Json:
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


def _option(name: str, schema: Json) -> Json:
    kinds = [_STRING if each["type"] == "array" else each for each in schema["anyOf"]]
    return _query(f"options.{name}", "An option of Ollama's.", {"anyOf": kinds})


_PRESET = _query("preset", "A preset of the operator's; its variables are variables.NAME.")
_WINDOW = _query("resume_window", "Seconds that the generation goes on unread.", {"type": "number", "minimum": 0})
_SEEN = "The id of the last event that was read: go on after it."
_KEY = "A key of the client's own: the same request with the same key joins the stream that runs or ran."
_KEY_SCHEMA = {"type": "string", "pattern": "^[!-~]{1,255}$"}
_KEY_QUERY = _query("idempotency_key", _KEY + " The header wins.", _KEY_SCHEMA)
_KEY_HEADER = {"name": "Idempotency-Key", "in": "header", "description": _KEY, "schema": _KEY_SCHEMA}
_SEEN_QUERY = _query("last_event_id", _SEEN + " The header wins.", _EVENT_ID_OR_NONE)
_SEEN_POLYFILL = _query("lastEventId", "As polyfills of EventSource spell last_event_id.", _EVENT_ID_OR_NONE)
_SEEN_HEADER = {"name": "Last-Event-ID", "in": "header", "description": _SEEN, "schema": _EVENT_ID_OR_NONE}
_RESUMING = [_SEEN_QUERY, _SEEN_POLYFILL, _SEEN_HEADER]
_AS = _query("as", "The dialect: events, or Ollama's lines.", {"enum": [*DIALECTS]})
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


_ErrorType = type[errors.GatewayError]


def _errors(*kinds: _ErrorType, **others: _ErrorType) -> Json:
    """A response for each status, with the codes that it can have.

    An error that is sent with another status than its class has is given by keyword, as in `_403=InvalidRequest`.
    """
    pairs: list[tuple[str, _ErrorType]] = [(str(kind.status), kind) for kind in (*_ALWAYS, *kinds)]
    pairs += [(status[1:], kind) for status, kind in others.items()]
    codes: dict[str, list[str]] = {}
    for status, kind in pairs:
        codes.setdefault(status, []).append(kind.code)
    told = {status: _json(f"Error: {', '.join(each)}.", _ref("Error")) for status, each in sorted(codes.items())}
    return told | {"default": _json("Any other error: a request that is refused before it is read.", _ref("Error"))}


def _answer(content: Json, *kinds: _ErrorType) -> Json:
    return {"responses": {"200": content} | _errors(*kinds)}


def _done(description: str) -> Json:
    return {"responses": {"204": {"description": description}} | _errors()}


_ALWAYS: tuple[_ErrorType, ...] = (
    errors.Unauthorized,
    errors.ForbiddenHost,
    errors.ForbiddenOrigin,
    errors.InternalError,
)
_UPSTREAM = errors.OllamaUnreachable, errors.OllamaError, errors.BadUpstream, errors.ConnectTimeout
_SHAPED = errors.InvalidRequest, errors.TooLarge, errors.ShapeFailed, *_UPSTREAM
_START = _errors(
    *_SHAPED, errors.Busy, errors.ShuttingDown, errors.Conflict, _403=errors.InvalidRequest, _429=errors.Busy
)

_NDJSON = {ollama.NDJSON: {"schema": _STRING, "x-itemSchema": {"anyOf": [*_LINES, _ref("OllamaError")]}}}
_STREAM = {
    "description": "Events. Unnamed ones are Ollama's lines or an Error; Meta, Status and End are named. "
    "A client that accepts only these gets Ollama's lines, or one object.",
    "content": {CONTENT_TYPE: {"schema": _STRING, "x-itemSchema": _ref("Event")}}
    | _NDJSON
    | {"application/json": {"schema": {"anyOf": _LINES}}},
}
_READ = {
    "200": _STREAM,
    "204": {"description": "The end has been read, or the stream is not held any more: do not come back."},
}
_NOT_READY = _json("Not ready, and why.", _ref("Health"))
_STREAMING: Json = {
    "parameters": [_PRESET, _WINDOW, *_RESUMING, _KEY_QUERY, _KEY_HEADER],
    "responses": _READ | _START,
}
_CREATED = {"Location": {"description": "The stream's URL.", "schema": _STRING}}

_ONE_SHOTS = {kind.traits.route: BODIES[kind] for kind in Kind if kind.traits.route}
_STREAM_ROUTE = STREAMS_PATH + "/{sid}"
_MODELS: list[type[BaseModel]] = [*BODIES.values(), ShowBody, StreamRequest]
_, _REQUESTS = models_json_schema([(body, "validation") for body in _MODELS], ref_template=_REF)


def _ollama(answer: Json | None, body: type[BaseModel] | None = None, *statuses: int) -> Json:
    """An operation of Ollama's own protocol, where every error has Ollama's form."""
    told = {str(status): _json("An error.", _ref("OllamaError")) for status in (401, 403, 500, *statuses, "default")}
    return {"responses": ({"200": answer} if answer else {}) | told} | ({"requestBody": _body(body)} if body else {})


_ASKING = 400, 404, 413, 502, 504
_OLLAMA_LINES: Json = {
    "description": "Lines, or one object where the request says that it is not to be streamed.",
    "content": _NDJSON | {"application/json": {"schema": {"anyOf": [*_LINES, _ref("EmbedLine")]}}},
}
_OBJECT = _json("As Ollama answers.", {"type": "object"})
_REFUSED = [("POST", "create"), ("POST", "copy"), ("POST", "push"), ("DELETE", "delete"), ("POST", "blobs/{digest}")]
_DIGEST = {"parameters": [{"name": "digest", "in": "path", "required": True, "schema": _STRING}]}

OPERATIONS: dict[tuple[str, str], Json] = {
    **{("GET", route): _STREAMING | {"parameters": _ASK + _STREAMING["parameters"]} for route in _ONE_SHOTS},
    **{("POST", route): _STREAMING | {"requestBody": _body(body)} for route, body in _ONE_SHOTS.items()},
    **{
        ("POST", OLLAMA + kind.traits.path): _ollama(_OLLAMA_LINES, BODIES[kind], *_ASKING, 409, 429, 499, 503)
        for kind in Kind
    },
    **{("GET", f"{OLLAMA}/api/{name}"): _ollama(_OBJECT, None, 502, 504) for name in ("version", "tags", "ps")},
    ("GET", OLLAMA + "/"): _ollama(_text("Ollama is running.", "text/plain")),
    ("POST", OLLAMA + "/api/show"): _ollama(_OBJECT, ShowBody, *_ASKING),
    **{(method, f"{OLLAMA}/api/{name}"): _ollama(None) | (_DIGEST if "{" in name else {}) for method, name in _REFUSED},
    ("POST", STREAMS_PATH): {
        "parameters": [_KEY_HEADER],
        "requestBody": _body(StreamRequest),
        "responses": {"201": _json("The stream has started.", _ref("Stream"), headers=_CREATED)} | _START,
    },
    ("GET", _STREAM_ROUTE): {
        "parameters": [_SID, _AS, *_RESUMING],
        "responses": _READ | _errors(errors.NotFound, errors.InvalidRequest),
    },
    ("DELETE", _STREAM_ROUTE): {"parameters": [_SID]} | _done("The stream is not running, or not any more."),
    ("GET", "/api/models"): _answer(_json("The models.", _ref("Models")), *_UPSTREAM),
    ("GET", "/api/presets"): _answer(_json("The presets.", _ref("Presets"))),
    ("POST", "/api/preview"): {
        "requestBody": _body(StreamRequest),
        "responses": {"200": _json("The body that Ollama would be sent.", {"type": "object"})}
        | _errors(errors.NotFound, *_SHAPED, _403=errors.InvalidRequest),
    },
    ("POST", "/api/session"): _done("The cookie is set."),
    ("DELETE", "/api/session"): _done("All sessions of the key have ended."),
    ("GET", "/healthz"): _answer(_json("Alive.", _ref("Health"))),
    ("GET", "/readyz"): {"responses": {"200": _json("Ready.", _ref("Health")), "503": _NOT_READY} | _errors()},
    ("GET", "/metrics"): _answer(_text("Metrics.", "text/plain")),
    ("GET", "/client.js"): _answer(_text("The module.", "text/javascript")),
    ("GET", "/client.d.ts"): _answer(_text("Its types.", "text/typescript")),
}
"""Every operation that a program may use: what the code of its handler does not tell."""


def document(routes: Sequence[BaseRoute]) -> Json:
    """The OpenAPI 3.1 document of these routes. `x-itemSchema` is what OpenAPI 3.2 calls `itemSchema`."""
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
            "schemas": _REQUESTS["$defs"] | SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(route: Route, method: str, operation: Json) -> Json:
    name = route.path.strip("/").replace("/", "_").replace("{", "").replace("}", "")
    summary = (inspect.getdoc(route.endpoint) or "").split("\n")[0]
    return {"operationId": f"{method.lower()}_{name}", "summary": summary, **operation}
