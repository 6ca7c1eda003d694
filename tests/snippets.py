"""The code that documentation shows, run as it stands there."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.page.pages import chromium
from tests.processes import ROOT, Process
from tests.servers import serve

SHOWN = "http://127.0.0.1:8000"
"""The address that documentation gives; a test's gateway has another."""

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*.md"))]
PAGES += sorted(ROOT.glob("examples/*/*.md"))


def blocks(language: str, page: str) -> list[str]:
    """The fenced blocks of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


async def sh(command: str, gw: Process, directory: Path | None = None) -> str:
    """What a command prints, at this gateway's address instead of the one that is shown."""
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-euc", command.replace(SHOWN, gw.url)),
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PID": str(gw.pid)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    printed, _ = await shell.communicate()
    assert shell.returncode == 0
    return printed.decode()


@asynccontextmanager
async def started(command: str, directory: Path, environment: Mapping[str, str]) -> AsyncIterator[str]:
    """A server that is started by a command, on a free port, and the address that it prints.

    The part of the command that installs packages is left out: the tests' environment has them.
    """
    command = re.sub(r"^(pip|npm) install\b.* && ", "", command).replace("5173", "0")
    server = await asyncio.create_subprocess_exec(
        *("bash", "-euc", f"exec {command}"), cwd=directory, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout
    try:
        printed = ""
        while not (url := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+", printed)):
            line = await server.stdout.readline()
            assert line, printed
            printed += line.decode()
        yield url[0]
    finally:
        server.terminate()
        await server.communicate()


@asynccontextmanager
async def site(command: str, directory: Path, environment: Mapping[str, str]) -> AsyncIterator[Page]:
    """The page at the address that a command prints, in a browser."""
    async with started(command, directory, environment) as url, chromium() as browser:
        page = await browser.new_page()
        await page.goto(url)
        yield page


def module(script: str) -> str:
    """A page that runs only this script."""
    return f"<!doctype html><head><script type=module>{script}</script></head><body></body>"


@asynccontextmanager
async def other_origin(browser: Browser, html: str, gateway: str, prepare: str = "") -> AsyncIterator[Page]:
    """A page of another app's server on this machine, with this gateway's URL in it; `prepare` runs before it does.

    At the end, nothing may have gone wrong in it.
    """

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(html.replace(SHOWN, gateway))

    async with serve(Starlette(routes=[Route("/", page)])) as url:
        shown = await browser.new_page()
        errors: list[str] = []
        shown.on("pageerror", lambda error: errors.append(str(error)))
        await shown.add_init_script(prepare)
        await shown.goto(url)
        yield shown
        await shown.close()
        assert not errors


@asynccontextmanager
async def page_of(html: str, gateway: str, prepare: str = "") -> AsyncIterator[Page]:
    """The same, in its own browser."""
    async with chromium() as browser, other_origin(browser, html, gateway, prepare) as page:
        yield page
