"""Every example does what its page says, at a gateway with a simulated Ollama."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from playwright.async_api import expect

from gateway.demo import Simulator
from tests import examples
from tests.asks import quick
from tests.gateways import gateway
from tests.processes import ROOT, process
from tests.servers import serve
from tests.snippets import SHOWN, blocks, site
from tests.sse import text

EXAMPLES = ROOT / "examples"
GUIDE = (EXAMPLES / "README.md").read_text()
STARTS = dict(re.findall(r"^\| \[([\w-]+)\]\(.*\) \| .* \| `(.*)` \|$", GUIDE, re.MULTILINE))


@asynccontextmanager
async def at_work(simulator: Simulator, directory: Path, *flags: str) -> AsyncIterator[str]:
    """The URL of a gateway that was started in this directory."""
    async with serve(simulator.app) as url, process(directory, f"--ollama-url={url}", *flags) as gw:
        yield gw.url


async def answer() -> str:
    """A new simulator's answer to this question."""
    async with gateway(quick()) as gw:
        return text(await gw.read("/api/chat?prompt=Why is the sky blue?"))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The examples as in a clone, to be changed."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "examples/node_modules").symlink_to(EXAMPLES / "node_modules")
    (tmp_path / "static").symlink_to(ROOT / "static")
    return tmp_path / "examples"


def environment(gateway: str) -> dict[str, str]:
    """The environment of a command in this guide: it finds the examples' Python with its packages, and the gateway."""
    path = f"{examples.python().parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ["HOME"], "GATEWAY": gateway, "PYTHONUNBUFFERED": "1"}


async def run(command: str, gateway: str, given: str = "") -> tuple[int, str]:
    """The exit code and what a command prints."""
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-euc", re.sub(r"^pip install -r \S+ && ", "", command)),
        cwd=EXAMPLES,
        env=environment(gateway),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await shell.communicate(given.encode())
    return shell.returncode or 0, printed.decode()


def test_every_example_is_listed() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "node_modules"}
    assert folders == set(re.findall(r"^\| \[([\w-]+)\]", GUIDE, re.MULTILINE))


async def test_vanilla(simulator: Simulator, copied: Path) -> None:
    async with at_work(simulator, copied) as url:
        point(copied / "vanilla", url)
        async with site(STARTS["vanilla"], copied, environment(url)) as page:
            await expect(page.locator("#answer")).to_have_text(await answer())


def point(folder: Path, gateway: str) -> None:
    """Make the pages and modules in a folder ask this gateway."""
    for path in folder.iterdir():
        path.write_text(path.read_text().replace(SHOWN, gateway))


@pytest.mark.parametrize("example", ["cross-origin", "react", "vue", "svelte"])
async def test_pages_ask_stop_and_tell_errors(simulator: Simulator, copied: Path, example: str) -> None:
    async with at_work(simulator, copied, "--max-prompt-chars=100") as url:
        point(copied / example, url)
        async with site(start(example), copied, environment(url)) as page:
            ask, stop = page.get_by_role("button", name="Ask"), page.get_by_role("button", name="Stop")
            await ask.click()
            await expect(page.locator("#answer")).to_have_text(await answer())
            await expect(stop).to_be_disabled()
            simulator.token_rate = 5
            await ask.click()
            await simulator.until(lambda: simulator.running == 1)
            await stop.click()
            await simulator.until(lambda: simulator.running == 0)
            assert simulator.states["cancelled"] == 1
            await expect(ask).to_be_enabled()
            await page.locator("input").fill("x" * 101)
            await ask.click()
            await expect(page.locator("body")).to_contain_text("GATEWAY_MAX_PROMPT_CHARS")
            await expect(ask).to_be_enabled()


def start(example: str) -> str:
    """The command of the guide, without npm, which hides the server that is to be ended."""
    scripts = orjson.loads((EXAMPLES / "package.json").read_bytes())["scripts"]
    npm = f"npm install && npm run {example}"
    return f"{scripts[example]} 0" if STARTS[example] == npm else STARTS[example]


async def test_streamlit(simulator: Simulator, copied: Path) -> None:
    async with at_work(simulator, copied, "--max-prompt-chars=200") as url:
        flags = " --server.headless=true --server.address=127.0.0.1 --server.port=0 --browser.gatherUsageStats=false"
        async with site(STARTS["streamlit"] + flags, copied, environment(url)) as page:
            await page.get_by_placeholder("Your question").fill("Why is the sky blue?")
            await page.keyboard.press("Enter")
            await simulator.until(lambda: simulator.states["done"] == 1)
            await expect(page.locator("body")).to_contain_text("what is left is orange and red.")
            await page.get_by_placeholder("Your question").fill("And then?")
            await page.keyboard.press("Enter")
            await expect(page.locator("body")).to_contain_text("GATEWAY_MAX_PROMPT_CHARS")


async def test_python(simulator: Simulator, tmp_path: Path) -> None:
    async with at_work(simulator, tmp_path, "--max-prompt-chars=100") as url:
        assert await run(STARTS["python"], url) == (0, await answer() + "\n")
        code, printed = await run(f"python python/chat.py {'x' * 101}", url)
        assert (code, "GATEWAY_MAX_PROMPT_CHARS" in printed) == (1, True), printed


async def test_curl(simulator: Simulator, tmp_path: Path) -> None:
    async with at_work(simulator, tmp_path, "--max-prompt-chars=100") as url:
        assert await run(STARTS["curl"], url) == (0, await answer() + "\n")
        _, printed = await run(f"curl/chat.sh {'x' * 101}", url)
        assert "GATEWAY_MAX_PROMPT_CHARS" in printed


async def test_translate(simulator: Simulator) -> None:
    """It runs in the folder of its configuration, as the page says."""
    _, begin, ask = blocks("sh", GUIDE)
    assert begin == "cd translate && ../../scripts/run --demo\n"
    async with at_work(simulator, EXAMPLES / "translate") as url:
        code, printed = await run(ask.splitlines()[1], url)
        assert (code, bool(printed.strip())) == (0, True)
        assert (await run("python translate/translate.py", url, given="one\n\ntwo\n"))[1].count("\n") >= 2
    first, *others = [orjson.loads(request.body) for request in simulator.requests]
    assert first["prompt"] == "Translate into German:\n\nGood morning!"
    assert first["system"].startswith("You are a translator.")
    assert [body["prompt"].split()[-1] for body in others] == ["one", "two"]


async def test_the_client_can_be_taken_along(simulator: Simulator, tmp_path: Path) -> None:
    """Downloaded as the guide says, both files are those that the examples were checked with."""
    take, _, _ = blocks("sh", GUIDE)
    async with at_work(simulator, tmp_path) as url:
        assert (await run(f"cd {tmp_path}; " + take.replace(SHOWN, url), url))[0] == 0
    for name in ("client.js", "client.d.ts"):
        assert (tmp_path / name).read_bytes() == (ROOT / "static" / name).read_bytes()
