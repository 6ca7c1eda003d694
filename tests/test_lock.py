"""The requirements files are complete and minimal, and installing them resolves nothing."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from itertools import product
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests import examples
from tests.made_up import package
from tests.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["redis"]]


def group(name: str) -> Iterator[str]:
    for each in PROJECT["dependency-groups"][name]:
        yield from [each] if isinstance(each, str) else group(each["include-group"])


LISTS = {
    "requirements.txt": RUN,
    "requirements-test.txt": [*RUN, *group("test")],
    "requirements-dev.txt": [*RUN, *group("dev")],
    "requirements-examples.txt": [*group("examples")],
}
"""The dependencies that each file was compiled from."""
PYTHONS = ("3.11.2", "3.11.14", "3.12.0", "3.13.0", "3.14.0")
"""The first is Debian 12's, which needs a package that later releases of 3.11 do not."""
MACHINES = [("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64")]
MACHINES += [("darwin", "Darwin", "x86_64"), ("darwin", "Darwin", "arm64")]
HERE = {name: str(value) for name, value in default_environment().items()}
LEAVES = {"async-timeout", "pip", "watchdog"}
"""Listed for some machines only. They require nothing, which cannot be seen where they are not installed."""


def supported() -> Iterator[dict[str, str]]:
    for python, (platform, system, machine) in product(PYTHONS, MACHINES):
        environment = {**HERE}
        environment["python_full_version"] = environment["implementation_version"] = python
        environment["python_version"] = python.rpartition(".")[0]
        environment["sys_platform"], environment["platform_system"] = platform, system
        environment["platform_machine"] = machine
        yield environment


def blocks(name: str) -> dict[str, Requirement]:
    """The requirements in a file, by name."""
    lines = re.findall(r"^([\w.-]+==.*?) \\$", (ROOT / name).read_text(), re.MULTILINE)
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


def applies(requirement: Requirement, environment: dict[str, str], extra: str = "") -> bool:
    return not requirement.marker or requirement.marker.evaluate(environment | {"extra": extra})


def version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    return specifier.version


def installed(name: str) -> dict[str, Distribution]:
    python = examples.python() if name == "requirements-examples.txt" else Path(sys.executable)
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    return {canonicalize_name(each.name): each for each in distributions(path=[str(site)])}


def reached(
    ahead: Iterable[Requirement],
    pins: dict[str, Requirement],
    environment: dict[str, str],
    found: dict[str, Distribution],
) -> set[str]:
    """The names of all direct and indirect dependencies of these, each of which is pinned to a version that fits."""
    seen, ahead = set[tuple[str, str]](), list(ahead)
    while ahead:
        wanted = ahead.pop()
        name = canonicalize_name(wanted.name)
        pin = pins.get(name)
        assert pin, f"{wanted} is not listed"
        assert applies(pin, environment), f"{wanted} is not listed for {environment}"
        assert wanted.specifier.contains(version(pin), prereleases=True), f"{pin} is not {wanted}"
        for extra in {"", *wanted.extras} - {extra for each, extra in seen if each == name}:
            seen.add((name, extra))
            if not applies(pin, HERE):
                assert name in LEAVES
                continue
            assert found[name].version == version(pin)
            pythons = SpecifierSet(found[name].metadata.get_all("Requires-Python", [""])[0])
            assert pythons.contains(environment["python_full_version"]), f"{pin} is not for {environment}"
            ahead += [
                each for each in map(Requirement, found[name].requires or []) if applies(each, environment, extra)
            ]
    return {name for name, _ in seen}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_closed(name: str) -> None:
    """Every dependency is pinned for every supported Python and machine, extras included, and every pin is needed."""
    pins, found = blocks(name), installed(name)
    for environment in supported():
        roots = [each for each in map(Requirement, LISTS[name]) if applies(each, environment)]
        listed = {name for name, pin in pins.items() if applies(pin, environment)}
        assert reached(roots, pins, environment, found) == listed


def test_each_list_holds_the_one_before_it() -> None:
    """Otherwise an environment that grows from one list to the next would replace packages that are in use."""
    run, test, dev = (blocks(f"requirements{suffix}.txt").items() for suffix in ("", "-test", "-dev"))
    assert run <= test <= dev


@pytest.mark.parametrize("name", LISTS)
def test_newer_releases_change_nothing(tmp_path: Path, name: str) -> None:
    """With an index that has the listed releases, wanting what the real ones want, and a newer one of each.

    The command is that of the scripts, the pip that of this environment: with Python 3.11 the oldest that people have.
    """
    index = tmp_path / "index"
    index.mkdir()
    found, listed = installed(name), []
    for each, pin in blocks(name).items():
        metadata = found[each].read_text("METADATA") if applies(pin, HERE) else None
        wants = [
            line for line in (metadata or "").splitlines() if line.startswith(("Requires-Dist:", "Provides-Extra:"))
        ]
        source = each == "forbiddenfruit"
        listed.append(f"{pin}{package(index, each, version(pin), wants, source=source)}")
        package(index, each, "9999", wants, source=source)
    (tmp_path / name).write_text("".join(listed))
    subprocess.run(
        ["bash", "-euc", '. scripts/lib.sh; pip_install "$1" "$2"', "", sys.executable, tmp_path / name],
        cwd=ROOT,
        check=True,
        env={
            "PATH": os.environ["PATH"],
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(index),
            "PIP_NO_CACHE_DIR": "1",
            "PIP_DRY_RUN": "1",
            "PIP_IGNORE_INSTALLED": "1",
            "PIP_REPORT": str(tmp_path / "report.json"),
        },
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert {canonicalize_name(each["metadata"]["name"]): each["metadata"]["version"] for each in report["install"]} == {
        each: version(pin) for each, pin in blocks(name).items() if applies(pin, HERE)
    }


@pytest.mark.parametrize("directory", ["examples", "tests/clients", "tests/page"])
def test_nodes_lists_are_pinned_by_hash(directory: str) -> None:
    """`npm ci` takes what is listed, and refuses a list that lacks something; here, that each entry has its hash."""
    packages = json.loads((ROOT / directory / "package-lock.json").read_text())["packages"]
    assert all(entry["integrity"].startswith("sha512-") for path, entry in packages.items() if path)
