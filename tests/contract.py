"""What schemathesis asks of every answer beside its own checks: loaded by it, in `test_fuzz_contract.py`."""

import re
from typing import Any

import schemathesis
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from schemathesis.checks import CheckContext
from schemathesis.core.transport import Response
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext

from gateway.app import ROUTES
from gateway.openapi import document
from tests.sse import ending, parse

DOCUMENT = document(ROUTES)

BEYOND_SCHEMAS = re.compile(r"(preset|variables\.|format|keep_alive)")
"""What a valid request may still be refused for: names that only the operator knows, and JSON in a query."""


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Schemathesis takes the schema of an event stream for one of its events."""
    for path in raw_schema["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                if media := response.get("content", {}).get("text/event-stream"):
                    del media["schema"]


COMPONENTS = {"components": DOCUMENT["components"]}
EVENT = Draft202012Validator({"$ref": "#/components/schemas/Event"} | COMPONENTS)
PAYLOADS = {
    kind["properties"]["event"]["const"]: Draft202012Validator(kind["properties"]["data"]["contentSchema"] | COMPONENTS)
    for kind in DOCUMENT["components"]["schemas"]["Event"]["oneOf"]
}


def check_events(body: bytes) -> None:
    """Every event is framed as the standard's strictest reader wants, and is one that the document has."""
    *blocks, rest = body.split(b"\n\n")
    assert rest == b""
    events = [event for block in blocks if block != b": ping" and (event := parse(block))]
    for event in events:
        EVENT.validate({"event": event.name, "data": event.data.decode()} | ({"id": event.id} if event.id else {}))
        PAYLOADS[event.name].validate(event.json)
    ending(events)


@schemathesis.check
def as_documented(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """The status stands in the document by itself, and an event stream is one."""
    if case.method.upper() != case.operation.method.upper():
        return  # a method that is not documented, on purpose
    documented = case.operation.definition.raw["responses"]
    assert str(response.status_code) in documented, f"{response.status_code} is not documented"
    if response.headers.get("content-type") == ["text/event-stream"]:
        check_events(response.content)


@schemathesis.check
def valid_is_accepted(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """What the document allows is refused for what it cannot say only."""
    if case.meta is not None and case.meta.generation.mode.is_positive and response.status_code == 422:
        assert BEYOND_SCHEMAS.match(response.json()["error"]), response.json()
