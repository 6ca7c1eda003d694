"""What `scripts/test --quick` runs: the tests that need no program but Python, without those marked `slow`.

A file is left out when it imports, itself or by way of other files of the tests, what drives another program; a test,
when one of its fixtures does. A test that starts another program in spite of that fails, so that a new one cannot make
the quick run slow, or need what is not there, unseen.
"""

import ast
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DRIVERS = ("bench", "openapi_spec_validator", "playwright", "tests.clients", "tests.examples", "tests.replicas")
"""Packages and modules that start nginx, Redis, Node or a browser, or are too large for a quick run to install."""
FIXTURES = {"redis_process"}
PROGRAMS = {"bash", "sh", "uname", Path(sys.executable).name}


@cache
def _imports(module: str) -> frozenset[str]:
    """What a module of the tests names in imports, of `from a import b` both `a` and `a.b`; of any other, nothing."""
    names: set[str] = set()
    path = ROOT / f"{module.replace('.', '/')}.py"
    for node in ast.walk(ast.parse(path.read_bytes())) if module.startswith("tests.") and path.exists() else ():
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def drives_another_program(path: Path) -> bool:
    found = ahead = {".".join(path.relative_to(ROOT).with_suffix("").parts)}
    while ahead:
        ahead = {name for module in ahead for name in _imports(module)} - found
        found |= ahead
    return any(f"{name}.".startswith(f"{driver}.") for name in found for driver in DRIVERS)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """A folder goes with its conftest.py, which is loaded before any test in it."""
    path = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    ignored = path.suffix == ".py" and path.is_file() and drives_another_program(path)
    return ignored or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [
        item for item in items if item.get_closest_marker("slow") or FIXTURES & set(getattr(item, "fixturenames", ()))
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _refuse_other_programs(event: str, args: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and (name := Path(os.fsdecode(args[0])).name) not in PROGRAMS:
        raise AssertionError(f"a quick test started {name}: add what drives it to DRIVERS in tests/quick.py")


sys.addaudithook(_refuse_other_programs)
