"""The OpenAPI document against the server: some thousand valid and invalid requests to every operation."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from gateway.web.openapi import OPERATIONS
from tests.asks import quick
from tests.processes import INSTALLED, ROOT, process
from tests.servers import serve


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_document_and_the_server_agree(tmp_path: Path) -> None:
    """Every answer has a documented status, type and body, and no valid request is refused."""
    simulator = quick()
    flags = ("--allow-preview", "--allow-pull", "--retain-seconds=1", "--log-level=error")
    async with serve(simulator.app) as url, process(tmp_path, f"--ollama-url={url}", *flags) as gw:
        fuzz = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", ROOT / "tests/schemathesis.toml"),
            *("run", f"{gw.url}/openapi.json", "--no-color"),
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{INSTALLED}:{ROOT}"},
            stdout=asyncio.subprocess.PIPE,
        )
        report = (await fuzz.communicate())[0].decode()
    assert fuzz.returncode == 0, report
    assert f"Tested: {len(OPERATIONS)}\n" in report
    generated = re.search(r"(\d+) generated", report)
    assert generated
    assert int(generated[1]) > 1000
    assert gw.log == []
