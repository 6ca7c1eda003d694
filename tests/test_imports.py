"""The rules of the house that only its source can show: imports run one way, and what is spelled in one place only."""

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
    ["gateway.cli", "gateway.asgi"],
    ["gateway.app"],
    ["gateway.routes.streams", "gateway.routes.models", "gateway.routes.health", "gateway.routes.page"],
    ["gateway.relay", "gateway.sse"],
    ["gateway.upstreams"],
    ["gateway.logs.redis", "gateway.shared_admission"],
    ["gateway.ollama", "gateway.logs", "gateway.logs.memory", "gateway.replicas"],
    ["gateway.ndjson", "gateway.events"],
    ["gateway.errors"],
]
"""Nothing reaches anything above it, directly or through others."""


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


def test_imports_run_one_way() -> None:
    for level, modules in enumerate(ORDER):
        above = {name for higher in ORDER[:level] for name in higher}
        for module in modules:
            assert not reached(module) & above, module


@pytest.mark.parametrize("module", ["gateway.events", "gateway.ndjson", "gateway.errors"])
def test_pure_modules(module: str) -> None:
    """They know no I/O: only what is in the standard library's pure part, `orjson`, and each other."""
    allowed = {"re", "secrets", "typing", "collections.abc", "orjson", "gateway.errors"}
    assert imports(module) <= allowed


@pytest.mark.parametrize(
    ("name", "users"),
    [
        ("aiohttp", {"gateway.ollama"}),
        ("uvicorn", {"gateway.cli", "gateway.server", "gateway.protocol"}),
        ("sse_starlette", {"gateway.sse"}),
        ("pydantic_settings", {"gateway.settings"}),
        ("prometheus_client", {"gateway.metrics"}),
        ("redis", {"gateway.replicas", "gateway.logs.redis", "gateway.shared_admission"}),
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
    assert users <= {"gateway.events"}
