"""`client.d.ts` is true, lets right code pass, and finds mistakes."""

import json
import re
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.hooks import Rejected
from gateway.openapi import SCHEMAS
from gateway.relay import Kind, Outcome, Phase
from gateway.requests import ChatBody, GenerateBody, Message, Options
from gateway.routes.page import STATIC
from tests.test_docs import error_classes
from tests.transcripts import NAMES, load

HERE = Path(__file__).parent
TSC = HERE.parent / "page/node_modules/.bin/tsc"
CLIENT = json.dumps(str(STATIC / "client.js"))
TYPES = (STATIC / "client.d.ts").read_text()
CLIENT_CODES = {"gone", "unreachable"}
"""What the client finds out by itself."""
BEFORE_AND_BETWEEN = {"request", "connection"}
"""Where an error may be beside a stream's phases."""


async def tsc(project: Path) -> list[tuple[str, int, str]]:
    """The errors of a project: the file's name, the line and the code."""
    process = await create_subprocess_exec(TSC, "--project", project, "--pretty", "false", stdout=PIPE)
    output, _ = await process.communicate()
    found = re.findall(r"^(?:.*/)?([^/\n]+)\((\d+),\d+\): error (TS\d+):", output.decode(), re.MULTILINE)
    assert len(found) == output.count(b": error "), output.decode()
    return [(name, int(line), code) for name, line, code in found]


async def test_right_code_passes_and_every_mistake_is_an_error() -> None:
    lines = (HERE / "wrong.ts").read_text().splitlines()
    expected = [
        ("wrong.ts", number, found[1])
        for number, line in enumerate(lines, 1)
        if (found := re.search("// (TS.+)$", line))
    ]
    assert len(expected) > 20
    assert await tsc(HERE / "tsconfig.json") == expected


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
    'StatusEvent["phase"]': {Phase.QUEUED, Phase.LOADING, Phase.PROMPT},
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
"""What the types name, and the names that the code has."""


RECORDED = {"/api/chat": "ChatChunk", "/api/generate": "GenerateChunk", "/api/pull": "PullChunk"}
"""The types of Ollama's lines, by what was asked."""

MAX_LINE = 10_000
"""Of a recording that is compiled; the only longer one has arguments for a tool, which no type describes."""


def recorded(path: str) -> list[Any]:
    """Ollama's recorded lines, errors aside."""
    answers = [load(name) for name in NAMES]
    lines = [
        line for answer in answers if (answer.path, answer.status) == (path, 200) for line in answer.body.splitlines()
    ]
    chunks = [json.loads(line) for line in lines if len(line) < MAX_LINE]
    return [chunk for chunk in chunks if "error" not in chunk]


async def compiled(path: Path, lines: list[str]) -> list[tuple[str, int, str]]:
    """The errors of a module that begins with these lines, and knows the client's types."""
    names = sorted(set(re.findall(r"^export (?:type|interface) (\w+)", TYPES, re.MULTILINE)))
    imports = f"import type {{ {', '.join(names)} }} from {CLIENT};"
    (path / "module.ts").write_text("\n".join([*lines, imports]))
    project = path / "tsconfig.json"
    project.write_text(json.dumps({"extends": str(HERE / "tsconfig.json"), "files": ["module.ts"]}))
    return await tsc(project)


async def test_its_chunks_are_what_ollama_sends(tmp_path: Path) -> None:
    """No field is missing in the types, and none is promised that is not there."""
    chunks = {type_: recorded(path) for path, type_ in RECORDED.items()}
    assert min(map(len, chunks.values())) > 10
    assert (
        await compiled(tmp_path, [f"({json.dumps(each)}) satisfies {type_}[];" for type_, each in chunks.items()]) == []
    )


async def test_a_wrong_chunk_would_be_found(tmp_path: Path) -> None:
    wrong = [
        f"({json.dumps([recorded(path)[0] | {'extra': 1}])}) satisfies {type_}[];" for path, type_ in RECORDED.items()
    ]
    assert [line for _, line, _ in await compiled(tmp_path, wrong)] == [1, 2, 3]


async def contract(path: Path, types: dict[str, set[str]]) -> list[tuple[str, int, str]]:
    """The errors in what says that the types are as `types` has them; the line is the place in it, from 1."""
    return await compiled(path, [exactly(type_.replace("CLIENT", CLIENT), names) for type_, names in types.items()])


async def test_its_names_are_those_of_the_code(tmp_path: Path) -> None:
    wrong = [list(CONTRACT)[line - 1] for _, line, _ in await contract(tmp_path, CONTRACT)]
    assert wrong == []


@pytest.mark.parametrize("change", [lambda names: names | {"one_more"}, lambda names: set(sorted(names)[1:])])
async def test_one_name_more_or_less_would_be_found(change: Callable[[set[str]], set[str]], tmp_path: Path) -> None:
    changed = {type_: change(names) for type_, names in CONTRACT.items()}
    assert [line for _, line, _ in await contract(tmp_path, changed)] == [*range(1, len(CONTRACT) + 1)]
