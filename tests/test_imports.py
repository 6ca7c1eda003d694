"""Rules that only the source can show: imports run one way, and some things are spelled in one place only."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gateway"
SOURCES = {
    ".".join(["gateway", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if "node_modules" not in path.parts
}

ORDER = [
    ["__main__", "cli", "asgi"],
    ["app"],
    ["web", "settings"],
    ["replicas", "ops"],
    ["streams", "asks"],
    ["dialects", "upstream", "hooks"],
    ["jobs", "validation"],
    ["errors"],
]
"""The floors of the house, from the top: a room may use those below it, and no others."""

ROOMS = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}


@cache
def imports(module: str) -> frozenset[str]:
    """All modules that this one names in an import, at the top or within a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            base = node.module or ""
            names |= {full if (full := f"{base}.{alias.name}") in SOURCES else base for alias in node.names}
    return frozenset(names)


def reached(module: str) -> set[str]:
    """All modules of the package that an import of this one loads by name."""
    found: set[str] = set()
    ahead = [module]
    while ahead:
        for name in imports(ahead.pop()) & SOURCES.keys() - found:
            found.add(name)
            ahead.append(name)
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_no_cycle(module: str) -> None:
    assert module not in reached(module)


def room(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("module", [each for each in SOURCES if room(each) not in ("", "demo")])
def test_imports_run_one_way(module: str) -> None:
    others = {room(name) for name in imports(module) & SOURCES.keys()} - {"", "demo", room(module)}
    if module == "gateway.__main__":
        others -= {"cli"}
    assert {name for name in others if ROOMS[name] <= ROOMS[room(module)]} == set()


PURE = [
    "dialects.events",
    "dialects.ollama",
    "streams.fits",
    "streams.line",
    "streams.places",
    "streams.policy",
    "streams.turns",
    "upstream.ndjson",
    "upstream.wire",
    "jobs",
    "errors",
]


@pytest.mark.parametrize("module", PURE)
def test_pure_modules(module: str) -> None:
    """They do no I/O: they know the pure part of the standard library, `orjson`, the framing, and each other."""
    allowed = {"re", "secrets", "typing", "collections.abc", "contextlib", "dataclasses", "enum", "json", "orjson"}
    allowed |= {"collections", "heapq", "itertools"}
    allowed |= {"sse_starlette.event", *(f"gateway.{each}" for each in PURE)}
    assert imports(f"gateway.{module}") <= allowed


@pytest.mark.parametrize(
    ("name", "users"),
    [
        ("aiohttp", {"gateway.upstream.client"}),
        ("uvicorn", {"gateway.cli", "gateway.web.server", "gateway.web.protocol"}),
        ("sse_starlette", {"gateway.web.streaming", "gateway.dialects.events"}),
        ("pydantic_settings", {"gateway.settings"}),
        ("prometheus_client", {"gateway.ops.metrics"}),
        ("redis", {f"gateway.replicas.{each}" for each in ("connection", "logs", "queue", "replica")}),
        ("gateway.settings", {"gateway.cli", "gateway.asgi", "gateway.app"}),
        ("gateway.demo", {"gateway.cli"}),
    ],
)
def test_only_users(name: str, users: set[str]) -> None:
    """Foreign packages stop at their adapter; settings and the simulator at the composition root."""
    found = {
        module
        for module in SOURCES
        if not module.startswith("gateway.demo")
        if any(each == name or each.startswith(name + ".") for each in imports(module))
    }
    assert found == users


@pytest.mark.parametrize("spelling", ["text/event-stream", "data: ", "retry: ", "id: %"])
def test_events_are_spelled_in_one_place(spelling: str) -> None:
    """Code that writes the format by hand somewhere else would miss its escapes."""
    users = {
        module
        for module, path in SOURCES.items()
        if not module.startswith("gateway.demo")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Constant)
        if repr(node.value).lstrip("b")[1:].startswith(spelling)
    }
    assert users <= {"gateway.dialects.events"}
