"""The floods of `scripts/attack` are what they say, and the gateway outlives them."""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from bench.attack import ADA, QUESTION
from bench.floods import FLOODS, MALLORY, Flood
from tests.gateways import gateway
from tests.sse import ending
from tests.upstreams import ONCE_DONE, streams, token, upstream

ROOT = Path(__file__).parent.parent


async def test_an_honest_client_is_served_after_every_flood() -> None:
    async with (
        upstream(streams(token("a"), ONCE_DONE)) as ollama,
        gateway(ollama.url, api_keys=f"ada:{ADA},mallory:{MALLORY}") as gw,
    ):

        async def attempt(flood: Flood) -> None:
            with suppress(OSError, TimeoutError):
                await flood(urlsplit(gw.url).port or 0)

        await asyncio.gather(*map(attempt, FLOODS.values()))
        answer = await gw.read(QUESTION, headers={"Authorization": f"Bearer {ADA}"})
        assert ending(answer) == ("complete", None)
        assert len(ollama.asked("/api/chat")) > 3  # some of the floods are valid requests


def test_the_script_has_a_row_for_each_flood() -> None:
    flood = "no http"
    command = [sys.executable, "-P", "-m", "bench.attack", "--seconds=0.5", f"--only={flood}"]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    rows = [line.split(" | ") for line in run.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| none", f"| {flood}"], run.stderr
    assert all(int(row[2]) > 0 for row in rows)
    assert run.returncode in (0, 1)  # a busy machine may be too slow
