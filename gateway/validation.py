"""Values that people give, and pydantic's errors in plain words, for the operator or the client with the mistake."""

import re
from typing import NamedTuple

from pydantic import ValidationError


class Problem(NamedTuple):
    """The first mistake: where it is, what is wrong, and the value that was given."""

    path: tuple[str, ...]
    message: str
    value: object


def explain(error: ValidationError, structure: str = "an object") -> Problem:
    """The first problem of a validation. `structure` is what the writer's format calls a set of named values."""
    first = error.errors(include_url=False)[0]
    path = tuple(str(part) for part in first["loc"] if part != "[key]")
    # pydantic's own messages would name Python's types and our classes.
    plain_words = {
        "extra_forbidden": "is not a known field",
        "model_type": f"must be {structure}",
        "dict_type": f"must be {structure}",
        "list_type": "must be a list",
        "tuple_type": "must be a list",
        "string_type": "must be a string",
        "string_too_short": "must not be empty",
        "int_type": "must be a whole number",
        "bool_type": "must be true or false",
        "missing": "is missing",
    }
    message = plain_words.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    return Problem(path, message, first["input"])


def parse_keys(text: str) -> dict[str, str]:
    """`name:key` pairs, separated by commas or line ends; lines that begin with # are comments.

    Raises `ValueError`, which quotes no key.
    """
    keys: dict[str, str] = {}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for number, pair in enumerate(filter(None, map(str.strip, ",".join(lines).split(","))), 1):
        name, _, key = pair.partition(":")
        if not re.fullmatch(r"[\w.@-]{1,64}", name) or not re.fullmatch(r"[!-~]{16,}", key):
            raise ValueError(f"pair {number} is not name:key with a key of at least 16 characters")
        if name in keys:
            raise ValueError(f"the name {name} is given twice")
        keys[name] = key
    return keys
