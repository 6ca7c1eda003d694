"""The schemas of `/openapi.json`, to hold against what is really sent."""

from functools import cache
from typing import TYPE_CHECKING

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from gateway.web.openapi import document
from gateway.web.routes.table import ROUTES

if TYPE_CHECKING:
    from tests.sse import Event

DOCUMENT = document(ROUTES)
COMPONENTS = {"components": DOCUMENT["components"]}


@cache
def _envelope() -> Draft202012Validator:
    return Draft202012Validator({"$ref": "#/components/schemas/Event"} | COMPONENTS)


@cache
def _payload(name: str) -> Draft202012Validator:
    kinds = DOCUMENT["components"]["schemas"]["Event"]["oneOf"]
    (kind,) = (each for each in kinds if each["properties"]["event"]["const"] == name)
    return Draft202012Validator(kind["properties"]["data"]["contentSchema"] | COMPONENTS)


def check_event(event: "Event") -> None:
    """Fail unless the document has this event, with this payload."""
    _envelope().validate({"event": event.name, "data": event.data.decode()} | ({"id": event.id} if event.id else {}))
    _payload(event.name).validate(event.json)
