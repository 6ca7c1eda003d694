"""The error tree: its codes and statuses are the contract, and its picture is true."""

import re

import pytest

from gateway import errors
from gateway.errors import GatewayError

CONTRACT = {
    # code: HTTP status, whether a retry may help
    "invalid_request": (422, False),
    "too_large": (413, False),
    "conflict": (409, False),
    "unauthorized": (401, False),
    "forbidden_origin": (403, False),
    "forbidden_host": (403, False),
    "not_found": (404, False),
    "method_not_allowed": (405, False),
    "model_not_found": (404, False),
    "busy": (503, True),
    "shutting_down": (503, True),
    "ollama_unreachable": (502, True),
    "ollama_error": (502, False),
    "bad_upstream": (502, False),
    "truncated": (502, False),
    "connect_timeout": (504, True),
    "first_token_timeout": (504, True),
    "idle_timeout": (504, True),
    "total_timeout": (504, True),
    "cancelled": (499, False),
    "shape_failed": (500, False),
    "internal_error": (500, False),
}


def tree(root: type[GatewayError]) -> list[type[GatewayError]]:
    return [
        root,
        *(each for child in root.__subclasses__() if child.__module__ == errors.__name__ for each in tree(child)),
    ]


CONCRETE = [each for each in tree(GatewayError) if "code" in vars(each)]


def test_codes_and_statuses() -> None:
    found = {each.code: (each.status, each.retryable) for each in CONCRETE}
    assert len(found) == len(CONCRETE)
    assert {code: found.get(code) for code in CONTRACT} == CONTRACT


def test_picture() -> None:
    """The tree in the module's docstring has each class, and nothing else."""
    names = {each.__name__ for each in tree(GatewayError)}
    drawn = {
        word
        for line in str(errors.__doc__).splitlines()[2:]
        for word in re.findall(r"\b[A-Z][a-z]+[A-Z]\w+|\bBusy|\bConflict|\bCancelled|\bTruncated|\bUnauthorized", line)
    }
    assert drawn >= names - {"GatewayError"}
    assert drawn <= names


@pytest.mark.parametrize("error", CONCRETE, ids=lambda error: error.code)
def test_payload(error: type[GatewayError]) -> None:
    """All errors have one shape, and an instance may override the values of its class."""
    plain = error("Why.")
    assert plain.payload() == {
        "error": "Why.",
        "code": error.code,
        "status": error.status,
        "phase": "request",
        "retryable": error.retryable,
    }
    assert str(plain) == "Why."
    told = error("Why.", status=418, retryable=not error.retryable, retry_after=7)
    assert (told.status, told.retryable, told.retry_after) == (418, not error.retryable, 7)
    assert (told.payload("loading")["phase"], told.payload()["status"]) == ("loading", 418)
    assert (plain.status, plain.retry_after) == (error.status, error.retry_after)


def test_errors_that_pass_say_when_to_retry() -> None:
    assert {each.code for each in CONCRETE if each.retry_after} == {"busy", "shutting_down"}
