"""What documentation shows, run as it stands there."""

import asyncio
import os
import re

from tests.processes import Process

SHOWN = "http://127.0.0.1:8000"
"""The address that documentation gives; a test's gateway has another."""


def blocks(language: str, page: str) -> list[str]:
    """The fenced blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


async def sh(command: str, gw: Process) -> str:
    """What a command prints, at this gateway's address instead of the one that is shown."""
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-euc", command.replace(SHOWN, gw.url)),
        env={"PATH": os.environ["PATH"], "PID": str(gw.pid)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    printed, _ = await shell.communicate()
    assert shell.returncode == 0
    return printed.decode()
