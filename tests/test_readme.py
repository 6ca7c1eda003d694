"""The README: every line shown is run, and it leads to all there is to read."""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from playwright.async_api import expect

from gateway.demo import Simulator
from tests.processes import ROOT, Process, process
from tests.servers import serve
from tests.snippets import PAGES, blocks, module, page_of, sh

README = (ROOT / "README.md").read_text()
(HTML,) = blocks("html", README)
(SCRIPT,) = blocks("js", README)
START, CURL = blocks("sh", README)


@pytest.fixture
async def gw(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Process]:
    async with serve(simulator.app) as url, process(tmp_path, f"--ollama-url={url}") as running:
        yield running


@pytest.mark.parametrize("html", [HTML, module(SCRIPT)], ids=["client.js", "EventSource"])
async def test_its_pages_stream_from_another_origin(simulator: Simulator, gw: Process, html: str) -> None:
    async with page_of(html, gw.url) as page:
        await expect(page.locator("body")).to_contain_text("sky")
        await simulator.until(lambda: simulator.states["done"] == 1)
    (request,) = simulator.requests
    assert orjson.loads(request.body)["messages"] == [{"role": "user", "content": "Why is the sky blue?"}]


async def test_its_command_does_what_it_says(simulator: Simulator, gw: Process) -> None:
    printed = await sh(CURL, gw)
    assert '"done":true' in printed
    assert "event: end" in printed
    assert [orjson.loads(request.body)["messages"][0]["content"] for request in simulator.requests] == ["Hello"]


def test_what_it_starts_exists() -> None:
    commands = [line.split("#")[0].split() for line in START.splitlines()]
    assert commands == [["scripts/run", "--demo"], ["scripts/run"], ["scripts/check"], ["scripts/test"]]
    assert all(os.access(ROOT / command, os.X_OK) for command, *_ in commands)
    assert (ROOT / ".ci/run").read_text().splitlines()[-2:] == ["scripts/check", "scripts/test"]
    assert "`docker compose up`" in README
    assert (ROOT / "compose.yaml").exists()


def test_it_leads_to_every_page() -> None:
    """It does so in one step, or by the pages that it leads to."""
    known, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in known:
            known.add(page)
            links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())
            ahead += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert known >= set(PAGES)
