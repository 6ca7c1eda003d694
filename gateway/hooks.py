"""What an operator's own code imports: the hook, a Python function with the last word on every request.

from gateway.hooks import HookRequest, Rejected, texts

async def shape(request: HookRequest) -> dict[str, Any]:
    if any("weather" in text.lower() for text in texts(request.body)):
        raise Rejected("I do not talk about the weather.", code="banned_topic")
    return request.body
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import RequestError

_NO_TEXT = frozenset({"model", "options", "keep_alive", "think", "images", "context", "messages"})
_CONTAINERS, _NUMBERS = (dict, list, tuple), (int, float)
_KEYWORDS = {"role": ("system", "user", "assistant", "tool"), "format": ("json",)}


@dataclass(frozen=True, slots=True)
class HookRequest:
    """The request that a hook is given. `body` is the hook's own copy of the body for Ollama, with the preset applied.

    The hook may change `body`, or return another one. `kind` is `chat` or `generate`, `client` is the client's address,
    and `headers` are those that GATEWAY_HOOK_HEADERS lists, with lower-case names.
    """

    kind: str
    body: dict[str, Any]
    preset: str | None
    variables: Mapping[str, str]
    client: str
    headers: Mapping[str, str]


class Rejected(RequestError):
    """Raised by a hook to refuse a request: `message` is shown to the person, `code` is for a program."""

    status = 422

    def __init__(self, message: str, code: str = "rejected") -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", code):
            raise ValueError(f"not a code of lower-case letters, digits and _: {code!r}")
        super().__init__(message)
        self.code = code


def texts(body: Mapping[str, Any]) -> Iterator[str]:
    """All text of a body for Ollama, of whatever kind and whoever wrote it. A check of less is one that words get past.

    It is what a model may read: the prompt, `suffix`, `system` and `template`; of every message the content, thinking,
    tool's name and calls, and a role other than Ollama's four; names, strings and numbers in tools, arguments and
    schemas, with the numbers of one list as one text; and any field that is not known. `images` and `context`, which
    has tokens, are no text, and neither are `model`, `options`, `keep_alive` and `think`.
    """
    yield from _texts_of(body, _NO_TEXT)
    for message in body.get("messages") or ():
        yield from _texts_of(message, {"images"})


def _texts_of(part: Mapping[str, Any], no_text: Set[str]) -> Iterator[str]:
    for name, value in part.items():
        if name in no_text:
            continue
        if isinstance(value, str):
            if value not in _KEYWORDS.get(name, ()):
                yield value
        elif isinstance(value, _CONTAINERS):
            yield from _texts_within(value)


def _texts_within(value: Any) -> Iterator[str]:
    """Without recursion, because a body may be nested as deeply as JSON can be read."""
    containers = [value]
    while containers:
        container = containers.pop()
        if isinstance(container, dict):
            yield from container
            container = container.values()
        inner, numbers = [], []
        for each in container:
            if isinstance(each, str):
                yield each
            elif isinstance(each, _NUMBERS):
                numbers.append(each)
            elif isinstance(each, _CONTAINERS):
                inner.append(each)
        if numbers:
            yield orjson.dumps(numbers)[1:-1].decode()  # writing them one by one would take three times as long
        containers += reversed(inner)


Hook = Callable[[HookRequest], Awaitable[dict[str, Any]]]
