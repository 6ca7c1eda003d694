"""Ollama's recorded answers, from `tests/data/transcripts/`; its README says what each file shows."""

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILES = {path.name.partition(".")[0]: path for path in (Path(__file__).parent / "data/transcripts").glob("*.json*")}
NAMES = sorted(_FILES)


@dataclass(frozen=True)
class Transcript:
    """One request and what Ollama answered.

    `status` is None where the connection closed before a response. `framing` is `chunked`: one entry of
    `chunks` per HTTP chunk; `content-length`: one per read; or None. `ended` is `complete`, or how the
    connection broke.
    """

    name: str
    method: str
    path: str
    request_headers: dict[str, str]
    request_body: bytes
    status: int | None
    headers: dict[str, str]
    framing: str | None
    chunks: tuple[bytes, ...]
    ended: str

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def request_json(self) -> Any:
        return json.loads(self.request_body)


@cache
def load(name: str) -> Transcript:
    """The transcript of that name, one of `NAMES`."""
    data = _FILES[name].read_bytes()
    recorded = json.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
    request, response = recorded["request"], recorded["response"]
    body = request["body"]
    if not isinstance(body, str):
        body = "" if body is None else json.dumps(body, ensure_ascii=False)
    return Transcript(
        name=name,
        method=request["method"],
        path=request["path"],
        request_headers=request["headers"],
        request_body=body.encode(),
        status=response["status"],
        headers=response["headers"] or {},
        framing=response["framing"],
        chunks=tuple(chunk["data"].encode(chunk["encoding"]) for chunk in response["body_chunks"]),
        ended=response["ended"],
    )
