"""Checks of every answer that schemathesis makes beside its own; `test_fuzz_contract.py` has it load them."""

import re
from typing import Any

import schemathesis
from schemathesis.checks import CheckContext
from schemathesis.core.transport import Response
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext

from tests.schemas import check_event
from tests.sse import ending, parse

BEYOND_SCHEMAS = re.compile(r"(preset|variables\.|format|keep_alive|.*: must be a whole number)")
"""What a valid request may still be refused for: names that only the operator knows, JSON in a query, and
1.0, which is an integer for a schema but not for Ollama."""


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Drop the schemas of event streams, which schemathesis would take for those of single events."""
    for path in raw_schema["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                if media := response.get("content", {}).get("text/event-stream"):
                    del media["schema"]


def check_events(body: bytes) -> None:
    """Every event is framed as the standard's strictest reader wants, and is one that the document has."""
    *blocks, rest = body.split(b"\n\n")
    assert rest == b""
    events = [event for block in blocks if block != b": ping" and (event := parse(block))]
    for event in events:
        check_event(event)
    ending(events)


@schemathesis.check
def as_documented(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """The status itself is documented, and an event stream holds documented events."""
    if case.method.upper() != case.operation.method.upper():
        return  # a method that is not documented, on purpose
    documented = case.operation.definition.raw["responses"]
    assert str(response.status_code) in documented, f"{response.status_code} is not documented"
    if response.headers.get("content-type") == ["text/event-stream"]:
        check_events(response.content)


@schemathesis.check
def valid_is_accepted(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """A request that the document allows is refused only for what the document cannot say."""
    if case.meta is not None and case.meta.generation.mode.is_positive and response.status_code == 422:
        assert BEYOND_SCHEMAS.match(response.json()["error"]), response.json()
