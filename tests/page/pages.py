"""A page as a person sees it: open, ask, read; and what is never allowed to happen on it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    FilePayload,
    Locator,
    Page,
    Request,
    Route,
    async_playwright,
    expect,
)

from tests.gateways import stopped

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAN = "192.0.2.1"
"""An address that is not this machine's own is no secure context: a page is seen as in a LAN over HTTP."""

LONG = 20_000
"""Milliseconds that anything may take on a busy machine."""
expect.set_options(timeout=LONG)

Turns = list[dict[str, Any]]

READ_TURNS = """async () => {
  const { History } = await import("/static/js/history.js");
  window.stored ??= new History();
  return window.stored.turns(location.hash.slice(1));
}"""

CSP_LISTENER = """
addEventListener("securitypolicyviolation", (event) =>
  console.error("CSP", event.violatedDirective, event.blockedURI, event.sourceFile));
"""


@asynccontextmanager
async def chromium(*names: str, **options: Any) -> AsyncIterator[Browser]:
    """The system's browser, for which these names are this machine's, besides the address `LAN`.

    Chromium without its windows draws the same page in half the CPU time; `CHROMIUM` may name any other. `options` are
    Playwright's.
    """
    shell = os.environ.get("CHROMIUM") or which("chromium-headless-shell") or which("chromium")
    rules = ",".join(f"MAP {name} 127.0.0.1" for name in (LAN, *names))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            **{"executable_path": shell, "args": [*ARGUMENTS, f"--host-resolver-rules={rules}"]} | options
        )
        yield browser
        await browser.close()


@dataclass
class Visit:
    """One page on one gateway. `bad` is what the browser complained about."""

    page: Page
    url: str
    bad: list[str] = field(default_factory=list)
    network_fails: bool = False
    """The test cuts the network: the browser's own note of that is no fault of the page."""

    @property
    def prompt(self) -> Locator:
        return self.page.locator("#prompt")

    @property
    def turns(self) -> Locator:
        return self.page.locator(".turn")

    @property
    def text(self) -> Locator:
        """The last answer."""
        return self.page.locator(".turn .text").last

    @property
    def phase(self) -> Locator:
        return self.page.locator(".turn .phase").last

    @property
    def figures(self) -> Locator:
        """Of the last answer; seen once it has ended."""
        return self.page.locator(".turn .figures").last

    @property
    def toast(self) -> Locator:
        return self.page.locator(".toast")

    async def new_chat(self) -> None:
        await self.page.get_by_role("button", name="New chat").click()
        await expect(self.turns).to_have_count(0)

    async def ask(self, prompt: str) -> None:
        turns = await self.turns.count()
        await self.prompt.fill(prompt)
        await expect(self.page.locator("#send")).to_be_enabled()  # the models are known
        await self.prompt.press("Control+Enter")  # Enter alone is a new line where fingers type
        await expect(self.turns).to_have_count(turns + 1)

    async def attach(self, files: dict[str, bytes]) -> None:
        """Choose files by name. The browser tells some of their types."""
        types = {".png": "image/png", ".txt": "text/plain"}
        chosen: list[FilePayload] = [
            {"name": name, "mimeType": types.get(Path(name).suffix, ""), "buffer": content}
            for name, content in files.items()
        ]
        await self.page.locator("#files").set_input_files(chosen)

    async def hold(self, pattern: str) -> asyncio.Event:
        """Keep requests of the URLs that match waiting whenever the event is not set."""
        go = asyncio.Event()

        async def wait(route: Route) -> None:
            await go.wait()
            await route.continue_()

        await self.page.route(pattern, wait)
        return go

    async def answered(self) -> str:
        """The Markdown of the last answer, once it is complete, kept and shown."""
        await expect(self.turns.last).to_have_attribute("data-status", "done", timeout=3 * LONG)
        turns = await self.saved(lambda turns: turns[-1]["answers"][-1]["status"] == "done")
        text = str(turns[-1]["answers"][-1]["text"])
        if text:
            await expect(self.turns.last.locator(".text:not(:empty)")).to_have_count(1)
        return text

    async def saved(self, until: Callable[[Turns], bool]) -> Turns:
        """The turns of the open chat in the browser's database, as soon as `until` holds for them."""
        for _ in range(LONG // 50):
            turns: Turns = await self.page.evaluate(READ_TURNS)
            if turns and until(turns):
                return turns
            await self.page.wait_for_timeout(50)
        raise AssertionError(f"not kept as expected: {turns}")

    async def choose(self, model: str) -> None:
        await self.page.locator("#model").click()
        await self.page.locator(f"#models [data-model='{model}']").click()

    def _note(self, message: ConsoleMessage) -> None:
        network = message.text.startswith("Failed to load resource") or "net::ERR" in message.text
        # The page may still have been loading or asking when the test stopped its server at its end.
        excused = network and (self.network_fails or self.url in stopped or not listening(self.url))
        if message.type in ("error", "warning") and not excused:
            self.bad.append(f"{message.type}: {message.text}")

    def _check(self, request: Request) -> None:
        target = urlsplit(request.url)
        if target.scheme not in ("data", "blob") and target.netloc != urlsplit(self.url).netloc:
            self.bad.append(f"asked {request.url}")

    def watch(self) -> None:
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.bad.append(f"uncaught: {error}"))
        self.page.on("request", self._check)


def listening(url: str) -> bool:
    """Whether there is a server at `url`; one of this machine answers or refuses at once."""
    server = urlsplit(url)
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex((server.hostname, server.port)) == 0


class Visits:
    """Everything a test opened, to be closed and judged at its end."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._visits: list[Visit] = []

    async def open(self, url: str, path: str = "/", *, network_fails: bool = False, **context: Any) -> Visit:
        """A new person with an empty browser, on the page at `url`. `context` is playwright's."""
        self._contexts.append(
            await self._browser.new_context(
                **{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"} | context
            )
        )
        return await self.tab(url, path, network_fails=network_fails)

    async def tab(self, url: str, path: str = "/", *, network_fails: bool = False) -> Visit:
        """Another tab of the same person."""
        page = await self._contexts[-1].new_page()
        visit = Visit(page, url, network_fails=network_fails)
        self._visits.append(visit)
        visit.watch()
        await page.add_init_script(CSP_LISTENER)
        await page.goto(url + path)
        while any("ERR_NETWORK_CHANGED" in complaint for complaint in visit.bad):
            # an interface of this machine came up or went, at which Chromium breaks every request it has
            visit.bad.clear()
            await page.goto(url + path)
        return visit

    async def leave(self) -> None:
        bad = [complaint for visit in self._visits for complaint in visit.bad]
        for context in self._contexts:
            await context.close()
        assert not bad, "\n".join(bad)


@asynccontextmanager
async def visiting(browser: Browser) -> AsyncIterator[Visits]:
    """Opens pages; at the end no page may have had an error, a CSP violation or asked another origin."""
    visits = Visits(browser)
    yield visits
    await visits.leave()
