"""The way of a newcomer, by docs/quickstart.md and nothing else: from a fresh clone to tokens on their own page."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.processes import ROOT
from tests.snippets import SHOWN, blocks, site, started

QUICKSTART = (ROOT / "docs/quickstart.md").read_text()

NOT_CLONED = (".git", ".*env*", "node_modules", "__pycache__", ".*_cache", ".hypothesis", "dist", "gateway.toml")


@pytest.mark.timeout(900)
async def test_from_a_clone_to_tokens_on_an_own_page(tmp_path: Path) -> None:
    start, serve = blocks("sh", QUICKSTART)
    (html,) = blocks("html", QUICKSTART)
    assert f"<{SHOWN.replace('127.0.0.1:8000', 'localhost:5173')}>" in QUICKSTART
    shutil.copytree(ROOT, tmp_path / "clone", ignore=shutil.ignore_patterns(*NOT_CLONED))
    own = tmp_path / "own"
    own.mkdir()
    inherited = ("GATEWAY_", "OLLAMA_", "PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    async with started(start.strip() + " --port=0", tmp_path / "clone", environment) as gateway:
        (own / "index.html").write_text(html.replace(SHOWN, gateway))
        async with site(serve.strip(), own, environment | {"PYTHONUNBUFFERED": "1"}) as page:
            await page.get_by_role("button", name="Ask").click()
            await expect(page.locator("#answer")).not_to_be_empty()
            shown = await page.locator("#answer").text_content()
            await expect(page.locator("#answer")).not_to_have_text(shown or "")  # it grows: these are tokens
