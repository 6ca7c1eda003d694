"""How much one request may hold: the operator's bounds, and those that keep the event loop free."""

from dataclasses import dataclass
from typing import Any

from gateway.errors import TooLarge
from gateway.hooks import texts
from gateway.jobs import Json

# What is refused because reading and checking it would take long, while nobody else is served: 50 ms are too much.
# Texts count, too: looking where one begins would take as long. No model's context has room for these numbers.
MAX_MARKS = {",": 200_000, ":": 100_000, "{": 50_000, "[": 50_000}
MAX_CONTAINERS = 6_000  # objects and lists
MAX_FIELDS = 30_000  # of all objects
CONTAINERS = frozenset({dict, list})


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that one request may hold; 0 means no limit."""

    messages: int = 0
    images: int = 0


def check_text(content: bytes) -> None:
    """Raise `TooLarge` for a JSON body that would take long to read."""
    for mark, limit in MAX_MARKS.items():
        if content.count(mark.encode()) > limit:
            raise TooLarge(f'The body has too many values: "{mark}" is there more than {limit} times.')


def check_counts(body: Json) -> None:
    """Raise `TooLarge` for a body, whose shape is not known yet, that would take long to check."""
    containers, fields = 0, 0
    level: list[Any] = [body]
    while level:  # all parts of one depth, then those inside them
        containers += len(level)
        fields += sum(len(part) for part in level if isinstance(part, dict))
        if containers > MAX_CONTAINERS:
            raise TooLarge(f"The body has too many values: more than {MAX_CONTAINERS} objects and lists.")
        if fields > MAX_FIELDS:
            raise TooLarge(f"The body has too many values: more than {MAX_FIELDS} fields.")
        values = (part.values() if isinstance(part, dict) else part for part in level)
        level = [each for some in values for each in some if type(each) in CONTAINERS]


def check_bounds(body: Json, bounds: Bounds) -> None:
    """Raise `TooLarge` when a body, whose shape has been checked, has more parts than the operator allows."""
    messages = body.get("messages") or []
    images = sum(len(part.get("images") or ()) for part in (body, *messages))
    for name, number, limit in (("messages", len(messages), bounds.messages), ("images", images, bounds.images)):
        if limit and number > limit:
            raise TooLarge(f"The request has {number} {name}, and {limit} are allowed (GATEWAY_MAX_{name.upper()}).")


def check_prompt(body: Json, limit: int, own: int | None) -> None:
    """Raise `TooLarge` when a body has more than `limit` characters of text, without the `own` ones of its preset.

    `own` is None without a preset. A token of `context` counts as a character.
    """
    chars = sum(map(len, texts(body))) + len(body.get("context") or ()) - (own or 0)
    if chars > limit:
        where = "" if own is None else " where its preset puts them"
        raise TooLarge(
            f"The request has {chars} prompt characters{where}, and {limit} are allowed (GATEWAY_MAX_PROMPT_CHARS)."
        )
