"""The OpenAPI document is valid, complete and true."""

import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from gateway.web.openapi import OPERATIONS, document
from gateway.web.routes.table import ROUTES
from tests.asks import quick
from tests.gateways import gateway
from tests.sse import messages

DOCUMENT: dict[str, Any] = document(ROUTES)
NOT_FOR_PROGRAMS = {("GET", "/"), ("GET", "/openapi.json")}


def operations() -> set[tuple[str, str]]:
    return {
        (method, route.path)
        for route in ROUTES
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }


def test_it_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_it_has_every_route_and_no_other() -> None:
    assert OPERATIONS.keys() == operations() - NOT_FOR_PROGRAMS


def test_every_operation_says_what_it_does() -> None:
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            assert operation["summary"], operation
            assert "default" in operation["responses"]


def test_every_schema_that_is_named_exists() -> None:
    for name in re.findall(r"#/components/schemas/(\w+)", str(DOCUMENT)):
        assert name in DOCUMENT["components"]["schemas"]


async def test_it_is_served_and_its_schemas_fit_what_is_sent() -> None:
    async with gateway(quick()) as gw:
        async with gw.session.get(gw.url + "/openapi.json") as response:
            assert await response.json() == DOCUMENT
        schemas = DOCUMENT["components"]["schemas"]
        events = await gw.read("/api/chat?prompt=Hi&model=nope")
        seen = {event.name.title(): event.json for event in events if event.name != "message"}
        seen["Error"] = messages(events)[-1].json
        async with gw.session.post(gw.url + "/api/streams", json={"chat": {"messages": []}}) as response:
            seen["Stream"] = await response.json()
        for name, value in seen.items():
            assert set(schemas[name]["required"]) <= value.keys() <= schemas[name]["properties"].keys(), name


@pytest.mark.parametrize("name", ["Error", "Stream", "Meta", "Status", "End"])
def test_every_event_and_answer_has_a_schema(name: str) -> None:
    assert DOCUMENT["components"]["schemas"][name]["type"] == "object"
