"""The README: every line shown is run."""

import os
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from playwright.async_api import async_playwright, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from gateway.demo import Simulator
from gateway.presets import parse_presets
from tests.page.pages import ARGUMENTS
from tests.processes import ROOT, Process, process
from tests.servers import serve
from tests.snippets import SHOWN, blocks, sh

README = (ROOT / "README.md").read_text()
(TOML,) = blocks("toml", README)
CLIENT, TRANSLATE = blocks("js", README)
SHELL = blocks("sh", README)
PRESET = tomllib.loads(TOML)["presets"]["translate"]


@pytest.fixture
def simulator() -> Simulator:
    return Simulator(token_rate=0, load_seconds=0, prompt_seconds=0)


@pytest.fixture
async def gw(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Process]:
    (tmp_path / "gateway.toml").write_text(TOML)
    async with serve(simulator.app) as url, process(tmp_path, f"--ollama-url={url}") as running:
        yield running


async def test_its_event_sources_stream_to_a_page_of_another_origin(simulator: Simulator, gw: Process) -> None:
    script = (CLIENT + TRANSLATE).replace(SHOWN, gw.url)

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(f"<!doctype html><body><script type=module>{script}</script>")

    async with serve(Starlette(routes=[Route("/", page)])) as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=ARGUMENTS
        )
        shown = await browser.new_page()
        await shown.goto(url)
        await expect(shown.locator("body")).to_contain_text("sky")
        await simulator.until(lambda: simulator.states["done"] == 2)
        await browser.close()
    sky, translate = sorted((orjson.loads(request.body)["messages"] for request in simulator.requests), key=len)
    assert sky == [{"role": "user", "content": "Why is the sky blue?"}]
    assert translate == [
        {"role": "system", "content": PRESET["system"]},
        {"role": "user", "content": "Translate into German:\n\nGood morning"},
    ]


async def test_its_commands_do_what_it_says(simulator: Simulator, gw: Process) -> None:
    post, create = [command for command in SHELL if "curl" in command]
    assert '"done":true' in await sh(post, gw)
    created = orjson.loads(await sh(create, gw))
    assert "event: end" in await sh(f"curl -sN {SHOWN}{created['url']}", gw)
    assert [orjson.loads(request.body)["messages"][0]["content"] for request in simulator.requests] == ["Hello"] * 2


def test_what_it_starts_exists() -> None:
    for command in re.findall(r"scripts/\w+", README):
        assert os.access(ROOT / command, os.X_OK), command
    assert "scripts/run\n" in SHELL
    assert "docker compose up\n" in SHELL
    assert (ROOT / "compose.yaml").exists()


def test_its_preset_is_one() -> None:
    assert parse_presets(tomllib.loads(TOML)["presets"])["translate"].variables["lang"].default == "French"
