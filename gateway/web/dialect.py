"""Which dialect a request speaks: the gateway's own events, or Ollama's protocol."""

import re

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.dialects import events, ollama
from gateway.jobs import STREAM_PATH, Kind

OLLAMA = "/ollama"
"""Below this, paths are Ollama's own, and whatever a client accepts, it speaks Ollama's protocol."""

DIALECTS = ("events", "ollama")

_ONE_SHOTS = frozenset(kind.traits.route for kind in Kind if kind.traits.route)
_AS = re.compile(rb"(?:^|&)as=([^&]*)")


def named(scope: Scope) -> str | None:
    """The dialect that the query names, known or not."""
    found = _AS.search(scope["query_string"])
    return found and found[1].decode("latin-1")


def speaks_ollama(scope: Scope) -> bool:
    """Whether the answer is to be Ollama's, an error too: by the path, by `as` in a stream's query, or by `Accept`.

    A client that accepts anything, or events, gets events.
    """
    path = scope["path"]
    if path == OLLAMA or path.startswith(OLLAMA + "/"):
        return True
    stream = STREAM_PATH.fullmatch(path)
    if stream and (name := named(scope)):
        return name == "ollama"
    accepted = Headers(scope=scope).get("accept", "").lower()
    if (not stream and path not in _ONE_SHOTS) or "*/*" in accepted or events.CONTENT_TYPE in accepted:
        return False
    return ollama.NDJSON in accepted or "application/json" in accepted
