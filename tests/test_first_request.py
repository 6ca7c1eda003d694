"""The first request waits for no more than the second: all that serving needs is loaded before it."""

import os
import signal
from pathlib import Path

import aiohttp

from tests.asks import quick
from tests.processes import INSTALLED, process
from tests.servers import serve
from tests.test_logging import CONFIG, HOOK, Client, say_everything
from tests.waits import until

SHOWS_MODULES = """
import os, signal, sys

def show(*_):
    with open("modules.new", "w") as file:
        file.write(" ".join(sys.modules))
    os.rename("modules.new", "modules")

signal.signal(signal.SIGUSR1, show)
"""


async def test_serving_imports_nothing(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    """An import reads files: in the event loop it holds all streams, and it fails when too many files are open."""
    (tmp_path / "gateway.toml").write_text(CONFIG)
    (tmp_path / "hook.py").write_text(HOOK)
    (tmp_path / "sitecustomize.py").write_text(SHOWS_MODULES)
    shown = tmp_path / "modules"

    async def modules() -> set[str]:
        shown.unlink(missing_ok=True)
        os.kill(gateway.pid, signal.SIGUSR1)
        await until(shown.exists)
        return set(shown.read_text().split())

    flags = ("--hook=hook:shape", "--allow-pull", "--allow-preview", "--attach-timeout=0.1")
    path = f"{tmp_path}{os.pathsep}{INSTALLED}"
    async with (
        serve(quick().app) as url,
        process(tmp_path, f"--ollama-url={url}", *flags, PYTHONPATH=path) as gateway,
    ):
        at_start = await modules()
        client = Client(session, gateway.url)
        await say_everything(client)
        for path in ("/readyz", "/client.js", "/openapi.json"):
            await client.ask("GET", path)
        for method in ("POST", "DELETE", "PUT"):
            await client.ask(method, "/api/session")
        await client.ask("OPTIONS", "/api/chat", headers={"Origin": "http://localhost:3"})
        assert await modules() - at_start == set()
