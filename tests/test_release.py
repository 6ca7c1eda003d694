"""A release can be built from this checkout at any time, but not while two files disagree on its version."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from gateway import __version__
from tests.processes import ROOT

pytestmark = pytest.mark.slow


async def release(checkout: Path, *flags: str) -> tuple[int, str]:
    script = await asyncio.create_subprocess_exec(
        checkout / "scripts/release",
        *flags,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    said = (await script.communicate())[1].decode()
    return script.returncode or 0, said


@pytest.mark.timeout(600)
async def test_wheel_and_sdist_are_built_and_have_the_version() -> None:
    stem = f"ollama_sse_gateway-{__version__}"
    assert await release(ROOT, "--dry-run") == (0, f"Built {stem}-py3-none-any.whl and {stem}.tar.gz.\n")


@pytest.mark.parametrize(
    ("flags", "heading", "complaint"),
    [
        (["--dry-run"], "## 9.9.9 — unreleased", f"has version {__version__}, but CHANGELOG.md has '9.9.9'."),
        ([], f"## {__version__} — unreleased", "does not date it"),
    ],
)
async def test_it_refuses_what_does_not_agree(tmp_path: Path, flags: list[str], heading: str, complaint: str) -> None:
    for name in ("scripts/release", "scripts/lib.sh", "gateway/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    code, said = await release(tmp_path, *flags)
    assert (code, complaint in said) == (1, True), said
