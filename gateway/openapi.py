"""The contract for programs: an OpenAPI document made from the route table and the pydantic models."""

import inspect
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, Route

from gateway import __version__
from gateway.events import CONTENT_TYPE
from gateway.requests import ChatBody, GenerateBody, Options, StreamRequest

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"


def _query(name: str, description: str, schema: Json | None = None, required: bool = False) -> Json:
    schema = schema or {"type": "string"}
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


_GATEWAY_QUERY = [
    _query("preset", "A preset of the operator's."),
    _query("resume_window", "Seconds that the generation goes on unread.", {"type": "number", "minimum": 0}),
    _query("last_event_id", "The id of the last event that was read; the header wins."),
]
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that was read: go on after it.",
    "schema": {"type": "string"},
}
_SID = {"name": "sid", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-z]+$"}}
_ASK_QUERY = [
    _query("prompt", "What to ask.", required=True),
    _query("model", "A model; else the operator's default, else the first installed."),
    _query("system", "A system prompt."),
    _query("think", "true, false, low, medium, high or max."),
    _query("format", "json, or a JSON schema."),
    _query("keep_alive", "Seconds or a duration such as 5m that the model stays loaded."),
    *(
        _query(f"options.{name}", "An option of Ollama's.", {"type": ["number", "string", "boolean"]})
        for name in Options.model_fields
    ),
]

_STREAM = {
    "description": "Unnamed messages are Ollama's lines or an Error; Meta, Status and End are named events.",
    "content": {CONTENT_TYPE: {"schema": {"type": "string"}}},
}
_SEEN = {"description": "The end has been read, or the stream is not held any more: do not come back."}
_ERROR = {
    "description": "An error before there is a stream.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


def _json(description: str, schema: Json | None = None, **more: Any) -> Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": schema or {"type": "object"}}},
        **more,
    }


def _body(model: type[BaseModel]) -> Json:
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


_ONE_SHOT = {"responses": {"200": _STREAM, "204": _SEEN}}
_GET = {"parameters": [*_ASK_QUERY, *_GATEWAY_QUERY, _LAST_EVENT_ID], **_ONE_SHOT}
_POST_PARAMETERS = [*_GATEWAY_QUERY, _LAST_EVENT_ID]
_CREATED = {"Location": {"description": "The stream's URL.", "schema": {"type": "string"}}}

OPERATIONS: dict[tuple[str, str], Json] = {
    ("GET", "/api/chat"): _GET,
    ("POST", "/api/chat"): {"parameters": _POST_PARAMETERS, "requestBody": _body(ChatBody), **_ONE_SHOT},
    ("GET", "/api/generate"): _GET,
    ("POST", "/api/generate"): {"parameters": _POST_PARAMETERS, "requestBody": _body(GenerateBody), **_ONE_SHOT},
    ("POST", "/api/streams"): {
        "requestBody": _body(StreamRequest),
        "responses": {"201": _json("It has started.", {"$ref": "#/components/schemas/Stream"}, headers=_CREATED)},
    },
    ("GET", "/api/streams/{sid}"): {
        "parameters": [_SID, _GATEWAY_QUERY[-1], _LAST_EVENT_ID],
        "responses": {"200": _STREAM, "204": _SEEN},
    },
    ("DELETE", "/api/streams/{sid}"): {
        "parameters": [_SID],
        "responses": {"204": {"description": "It does not run (any more)."}},
    },
    ("GET", "/api/models"): {"responses": {"200": _json("The models.")}},
    ("GET", "/api/presets"): {"responses": {"200": _json("The presets.")}},
    ("POST", "/api/preview"): {
        "requestBody": _body(StreamRequest),
        "responses": {"200": _json("The body that Ollama would be sent.")},
    },
    ("POST", "/api/session"): {"responses": {"204": {"description": "The cookie is set."}}},
    ("DELETE", "/api/session"): {"responses": {"204": {"description": "The cookie is gone."}}},
    ("GET", "/healthz"): {"responses": {"200": _json("Alive.")}},
    ("GET", "/readyz"): {"responses": {"200": _json("Ready."), "503": _json("Not ready, and why.")}},
    ("GET", "/metrics"): {
        "responses": {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    },
}
"""What the code of a handler does not tell, for every route that a program may use."""

_STRING, _INTEGER, _MAYBE = {"type": "string"}, {"type": "integer"}, {"type": ["integer", "null"]}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


SCHEMAS: dict[str, Json] = {
    "Error": _object(error=_STRING, code=_STRING, phase=_STRING, retryable={"type": "boolean"}),
    "Stream": _object(id=_STRING, url=_STRING, kind={"enum": ["chat", "generate", "pull"]}, model=_STRING),
    "Meta": _object(v={"const": 1}, id=_STRING, url=_STRING, kind=_STRING, model=_STRING),
    "Status": {
        "type": "object",
        "properties": {
            "phase": {"enum": ["queued", "loading", "prompt"]},
            "position": _INTEGER,
            "elapsed_ms": _INTEGER,
        },
        "required": ["phase", "elapsed_ms"],
    },
    "End": _object(
        outcome={"enum": ["complete", "cancelled", "error"]},
        events=_INTEGER,
        first_token_ms=_MAYBE,
        elapsed_ms=_INTEGER,
    ),
}


def document(routes: Sequence[BaseRoute]) -> Json:
    """The OpenAPI 3.1 document of these routes."""
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
    responses = operation["responses"] | {"default": _ERROR}
    return {"operationId": f"{method.lower()}_{name}", "summary": summary, **operation, "responses": responses}
