"""`client.d.ts` is true, lets right code pass, and finds mistakes."""

import json
import re
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gateway.asks.bodies import ChatBody, GenerateBody, Message, Options
from gateway.hooks import Rejected
from gateway.jobs import Kind, Outcome, Phase
from gateway.replicas.mirror import obituary
from gateway.streams.buffer import EventBuffer
from gateway.streams.ledger import Ledger
from gateway.streams.shelf import Shelf
from gateway.web.openapi import SCHEMAS
from gateway.web.routes.page import STATIC
from tests.asks import quick
from tests.gateways import gateway
from tests.sse import Event, parse
from tests.test_docs import error_classes
from tests.transcripts import NAMES, load

HERE = Path(__file__).parent
TSC = HERE.parent / "page/node_modules/.bin/tsc"
CLIENT = json.dumps(str(STATIC / "client.js"))
TYPES = (STATIC / "client.d.ts").read_text()
CLIENT_CODES = {"gone", "unreachable"}
"""The codes of the errors that the client finds out by itself."""
BEFORE_AND_BETWEEN = {"request", "connection"}
"""The phases of errors outside of a stream."""


Found = dict[str, list[tuple[int, str]]]
"""The errors of each module: line and code."""


async def tsc(project: Path) -> Found:
    process = await create_subprocess_exec(TSC, "--project", project, "--pretty", "false", stdout=PIPE)
    output, _ = await process.communicate()
    errors = re.findall(r"^(?:.*/)?([^/\n]+)\((\d+),\d+\): error (TS\d+):", output.decode(), re.MULTILINE)
    assert len(errors) == output.count(b": error "), output.decode()
    found: Found = {}
    for name, line, code in errors:
        found.setdefault(name, []).append((int(line), code))
    return found


async def compiled(path: Path, modules: dict[str, list[str]]) -> Found:
    """The errors of modules that begin with these lines and know the client's types, and of right.ts and wrong.ts.

    They are compiled all at once, because the compiler takes four seconds for the standard library alone.
    """
    names = sorted(set(re.findall(r"^export (?:type|interface) (\w+)", TYPES, re.MULTILINE)))
    imports = f"import type {{ {', '.join(names)} }} from {CLIENT};"
    for name, lines in modules.items():
        (path / name).write_text("\n".join([*lines, imports]))
    files = [*modules, str(HERE / "right.ts"), str(HERE / "wrong.ts")]
    project = path / "tsconfig.json"
    project.write_text(json.dumps({"extends": str(HERE / "tsconfig.json"), "files": files}))
    return await tsc(project)


def mistakes() -> list[tuple[int, str]]:
    """The errors that wrong.ts says it has."""
    lines = (HERE / "wrong.ts").read_text().splitlines()
    return [(number, found[1]) for number, line in enumerate(lines, 1) if (found := re.search("// (TS.+)$", line))]


def fields(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


def exactly(type_: str, names: Iterable[str]) -> str:
    """TypeScript that is an error unless `type_`, a union of strings, has just these `names`."""
    return f"({json.dumps(dict.fromkeys(sorted(names), 0))}) satisfies Record<{type_}, 0>;"


CONTRACT: dict[str, set[str]] = {
    "ErrorCode": {error.code for error in error_classes()} | {Rejected("").code} | CLIENT_CODES,
    "Kind": set(Kind),
    "Phase": set(Phase),
    "Outcome": set(Outcome),
    'ErrorPayload["phase"]': set(Phase) | BEFORE_AND_BETWEEN,
    'StatusEvent["phase"]': {Phase.QUEUED, Phase.STARTING, Phase.LOADING, Phase.PROMPT},
    "keyof ChatBody": fields(ChatBody),
    "keyof GenerateBody": fields(GenerateBody),
    "keyof Message": fields(Message),
    "keyof ModelOptions": fields(Options),
    'Exclude<keyof MetaEvent, "type">': set(SCHEMAS["Meta"]["properties"]),
    'Exclude<keyof StatusEvent, "type">': set(SCHEMAS["Status"]["properties"]),
    'Exclude<keyof EndEvent, "type" | "id">': set(SCHEMAS["End"]["properties"]),
    "keyof ErrorPayload": set(SCHEMAS["Error"]["properties"]),
    "keyof typeof import(CLIENT)": set(
        re.findall(r"^export (?:const|class|function) (\w+)", (STATIC / "client.js").read_text(), re.MULTILINE)
    ),
}
"""Types, and the names that the code has for them."""


RECORDED = {"/api/chat": "ChatChunk", "/api/generate": "GenerateChunk", "/api/pull": "PullChunk"}
"""The types of Ollama's lines, by what was asked."""

MAX_LINE = 10_000
"""The longest recorded line that is compiled; the only longer one holds a tool's arguments, which no type describes."""


def recorded(path: str) -> list[Any]:
    """Ollama's recorded lines, errors aside."""
    answers = [load(name) for name in NAMES]
    lines = [
        line for answer in answers if (answer.path, answer.status) == (path, 200) for line in answer.body.splitlines()
    ]
    chunks = [json.loads(line) for line in lines if len(line) < MAX_LINE]
    return [chunk for chunk in chunks if "error" not in chunk]


def chunks(more: dict[str, Any]) -> list[str]:
    """TypeScript that is an error for each type of Ollama's lines that does not have all of these, with `more`."""
    found = {type_: [chunk | more for chunk in recorded(path)] for path, type_ in RECORDED.items()}
    assert min(map(len, found.values())) > 10
    return [f"({json.dumps(each)}) satisfies {type_}[];" for type_, each in found.items()]


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "complete": ("/api/chat?prompt=Hi&model=llama3.2", {}),
    "queued": ("/api/generate?prompt=Hi&model=llama3.2", {"max_active": 1}),
    "refused": ("/api/chat?prompt=Hi&model=nope", {}),
    "failed": ("/api/chat?prompt=Hi&model=fault:crash", {}),
    "timed out": ("/api/chat?prompt=Hi&model=fault:stall", {"idle_timeout": 0.1}),
    "before a stream": ("/api/chat", {}),
}
"""Streams that end in different ways, and the settings they need."""

EVENTS = {"meta": "MetaEvent", "status": "StatusEvent", "end": "EndEvent"}


def satisfies(event: Event) -> str:
    """TypeScript that is an error unless the types have this event as `client.js` hands it out."""
    given = event.json | ({"id": event.id} if event.id else {})
    if event.name == "message":
        return f"({json.dumps({'type': 'error'} | given)}) satisfies ErrorEvent;"
    return f"({json.dumps({'type': event.name} | given)}) satisfies {EVENTS[event.name]};"


async def sent() -> list[str]:
    """TypeScript of the events of every way in which a stream ends, a lost writer included."""
    seen: list[Event] = []
    for path, settings in WAYS.values():
        async with gateway(quick(), **settings) as gw:
            seen += await gw.read(path, headers={"Accept": "text/event-stream"})
    buffer = EventBuffer("0" * 32, b"", "", Shelf[Any](Ledger(1000), max_stream_bytes=1000, retain_seconds=1))
    buffer.end_lost(*obituary(buffer.last, "The replica is gone."))
    seen += [
        event async for chunk in buffer.read(0) for block in chunk.split(b"\n\n") if block and (event := parse(block))
    ]
    sidecars = [event for event in seen if event.name != "message" or "error" in event.json]
    assert {(event.json.get("code"), event.json.get("outcome")) for event in sidecars} >= {
        ("producer_lost", None),
        ("idle_timeout", None),
        (None, "complete"),
    }
    return [satisfies(event) for event in sidecars]


def contract(change: Callable[[set[str]], set[str]]) -> list[str]:
    """TypeScript that claims the `CONTRACT`, with changed names."""
    return [exactly(type_.replace("CLIENT", CLIENT), change(names)) for type_, names in CONTRACT.items()]


async def test_types(tmp_path: Path) -> None:
    """What the types say is what is sent, to the name, and whatever differs is an error."""
    every_chunk, every_name = [1, 2, 3], [*range(1, len(CONTRACT) + 1)]
    modules = {
        "chunks.ts": chunks({}),
        "other-chunks.ts": chunks({"extra": 1}),
        "events.ts": await sent(),
        "names.ts": contract(lambda names: names),
        "more-names.ts": contract(lambda names: names | {"one_more"}),
        "fewer-names.ts": contract(lambda names: set(sorted(names)[1:])),
    }
    found = await compiled(tmp_path, modules)
    assert len(mistakes()) > 20
    assert found.pop("wrong.ts") == mistakes()
    wrong = {name: sorted({line for line, _ in errors}) for name, errors in found.items()}
    assert wrong == {"other-chunks.ts": every_chunk, "more-names.ts": every_name, "fewer-names.ts": every_name}
