"""Chromium, Firefox and WebKit behind one small surface: open tabs, run scripts, press keys, take pictures.

Firefox speaks WebDriver BiDi over a WebSocket, WebKitGTK the WebDriver of old over HTTP: plain JSON, both of them.
"""

import asyncio
import base64
import itertools
import json
import os
import socket
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from playwright.async_api import BrowserContext, Page

from tests.page.pages import LONG, chromium

KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Shift": "\ue008"}
FIREFOX_SETTINGS = {
    "app.normandy.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.disable_open_during_load": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
}


class Tab(Protocol):
    """One tab."""

    async def goto(self, url: str) -> None: ...
    async def reload(self) -> None: ...
    async def evaluate(self, function: str, *arguments: Any) -> Any:
        """The JSON of what a JavaScript function, possibly async, returns."""

    async def press(self, text: str) -> None:
        """Type a text, or press one of `KEYS`, into what has the focus."""

    async def resize(self, width: int, height: int) -> None: ...
    async def screenshot(self, path: Path) -> None: ...
    async def close(self) -> None: ...


class Engine(Protocol):
    """A browser with one empty profile."""

    async def tab(self) -> Tab: ...


async def until(tab: Tab, function: str, *arguments: Any) -> Any:
    """What a function returns as soon as that is true for JavaScript."""
    for _ in range(LONG // 100):
        value = await tab.evaluate(function, *arguments)
        if value:
            return value
        await asyncio.sleep(0.1)
    page = await tab.evaluate("() => document.body.innerText")
    raise AssertionError(f"never true: {function} {arguments}\n{page}")


class ChromiumTab:
    def __init__(self, page: Page) -> None:
        self._page = page

    async def goto(self, url: str) -> None:
        await self._page.goto(url)

    async def reload(self) -> None:
        await self._page.reload()

    async def evaluate(self, function: str, *arguments: Any) -> Any:
        return await self._page.evaluate(f"(given) => ({function})(...given)", list(arguments))

    async def press(self, text: str) -> None:
        if text in KEYS:
            await self._page.keyboard.press(text)
        else:
            await self._page.keyboard.type(text)

    async def resize(self, width: int, height: int) -> None:
        await self._page.set_viewport_size({"width": width, "height": height})

    async def screenshot(self, path: Path) -> None:
        await self._page.screenshot(path=path)

    async def close(self) -> None:
        await self._page.close()


class Chromium:
    def __init__(self, context: BrowserContext) -> None:
        self._context = context

    async def tab(self) -> Tab:
        return ChromiumTab(await self._context.new_page())


class Firefox:
    """WebDriver BiDi: commands have numbers, and so have their answers."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def listen(self) -> None:
        async for message in self._socket:
            answer = message.json()
            waiting = self._answers.pop(answer.get("id"), None)
            if waiting and not waiting.done():
                waiting.set_result(answer)

    async def ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await asyncio.wait_for(self._answers[number], LONG / 1000)
        assert answer["type"] == "success", answer
        return answer["result"]

    async def tab(self) -> Tab:
        created = await self.ask("browsingContext.create", type="tab")
        return FirefoxTab(self, created["context"])


class FirefoxTab:
    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox = firefox
        self._context = context

    async def _ask(self, method: str, **params: Any) -> Any:
        return await self._firefox.ask(method, context=self._context, **params)

    async def goto(self, url: str) -> None:
        await self._ask("browsingContext.navigate", url=url, wait="complete")

    async def reload(self) -> None:
        await self._ask("browsingContext.reload", wait="complete")

    async def evaluate(self, function: str, *arguments: Any) -> Any:
        given = ", ".join(json.dumps(argument) for argument in arguments)
        expression = f"(async () => JSON.stringify(await ({function})({given})) ?? 'null')()"
        answer = await self._firefox.ask(
            "script.evaluate", expression=expression, target={"context": self._context}, awaitPromise=True
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    async def press(self, text: str) -> None:
        keys = [KEYS[text]] if text in KEYS else list(text)
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        await self._ask("input.performActions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    async def resize(self, width: int, height: int) -> None:
        await self._ask("browsingContext.setViewport", viewport={"width": width, "height": height})

    async def screenshot(self, path: Path) -> None:
        picture = await self._ask("browsingContext.captureScreenshot")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(picture["data"]))

    async def close(self) -> None:
        await self._ask("browsingContext.close")


class WebKit:
    """The WebDriver of old: one window at a time."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._lock = asyncio.Lock()
        self._first = True

    async def ask(self, method: str, path: str, **body: Any) -> Any:
        given = body if method == "POST" else None
        async with self._session.request(method, self._url + path, json=given) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer["value"]

    async def in_window(self, handle: str, method: str, path: str, **body: Any) -> Any:
        async with self._lock:
            await self.ask("POST", "/window", handle=handle)
            return await self.ask(method, path, **body)

    async def tab(self) -> Tab:
        async with self._lock:
            if self._first:
                self._first = False
                return WebKitTab(self, await self.ask("GET", "/window"))
            return WebKitTab(self, (await self.ask("POST", "/window/new", type="tab"))["handle"])


class WebKitTab:
    def __init__(self, webkit: WebKit, handle: str) -> None:
        self._webkit = webkit
        self._handle = handle

    async def _ask(self, method: str, path: str, **body: Any) -> Any:
        return await self._webkit.in_window(self._handle, method, path, **body)

    async def goto(self, url: str) -> None:
        await self._ask("POST", "/url", url=url)

    async def reload(self) -> None:
        await self._ask("POST", "/refresh")

    async def evaluate(self, function: str, *arguments: Any) -> Any:
        script = f"""const done = arguments[arguments.length - 1];
            (async () => JSON.stringify(await ({function})(...arguments[0])) ?? "null")()
              .then(done, (error) => done("!" + error));"""
        answer = await self._ask("POST", "/execute/async", script=script, args=[list(arguments)])
        assert not answer.startswith("!"), answer
        return json.loads(answer)

    async def press(self, text: str) -> None:
        element = await self._ask("GET", "/element/active")
        await self._ask("POST", f"/element/{next(iter(element.values()))}/value", text=KEYS.get(text, text))

    async def resize(self, width: int, height: int) -> None:
        await self._ask("POST", "/window/rect", width=width, height=height)

    async def screenshot(self, path: Path) -> None:
        picture = await self._ask("GET", "/screenshot")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(picture))

    async def close(self) -> None:
        await self._ask("DELETE", "/window")


async def _ended(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def open_chromium() -> AsyncIterator[Engine]:
    async with chromium() as browser:
        yield Chromium(await browser.new_context(viewport={"width": 1280, "height": 800}))


@asynccontextmanager
async def open_firefox() -> AsyncIterator[Engine]:
    async with AsyncExitStack() as stack:
        profile = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        settings = "".join(f"user_pref({json.dumps(n)}, {json.dumps(v)});\n" for n, v in FIREFOX_SETTINGS.items())
        await asyncio.to_thread((profile / "user.js").write_text, settings)
        process = await asyncio.create_subprocess_exec(
            *("firefox-esr", "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"),
            stdout=DEVNULL,
            stderr=PIPE,
            env=os.environ | {"HOME": str(profile)},
        )
        stack.push_async_callback(_ended, process)
        assert process.stderr
        async for line in process.stderr:
            if line.startswith(b"WebDriver BiDi listening on "):
                break
        drain = asyncio.create_task(process.stderr.read())
        stack.callback(drain.cancel)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = line.decode().split()[-1]
        firefox = Firefox(await stack.enter_async_context(session.ws_connect(f"{url}/session", max_msg_size=0)))
        listening = asyncio.create_task(firefox.listen())
        stack.callback(listening.cancel)
        await firefox.ask("session.new", capabilities={})
        yield firefox


@asynccontextmanager
async def open_webkit() -> AsyncIterator[Engine]:
    async with AsyncExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        screen = await asyncio.create_subprocess_exec(
            *("Xvfb", "-displayfd", "1", "-screen", "0", "1400x1000x24"), stdout=PIPE, stderr=DEVNULL
        )
        stack.push_async_callback(_ended, screen)
        assert screen.stdout
        display = (await screen.stdout.readline()).decode().strip()
        port = _free_port()
        environment = {"DISPLAY": f":{display}", "HOME": home, "XDG_RUNTIME_DIR": home, "LIBGL_ALWAYS_SOFTWARE": "1"}
        driver = await asyncio.create_subprocess_exec(
            *("WebKitWebDriver", f"--port={port}"), stdout=DEVNULL, stderr=DEVNULL, env=os.environ | environment
        )
        stack.push_async_callback(_ended, driver)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        root = WebKit(session, f"http://127.0.0.1:{port}")
        binary = await asyncio.to_thread(lambda: next(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser")))
        options = {"binary": str(binary), "args": ["--automation"]}
        for _ in range(LONG // 100):
            try:
                await root.ask("GET", "/status")
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.1)
        created = await root.ask(
            "POST", "/session", capabilities={"alwaysMatch": {"webkitgtk:browserOptions": options}}
        )
        url = f"http://127.0.0.1:{port}/session/{created['sessionId']}"
        webkit = WebKit(session, url)
        stack.push_async_callback(webkit.ask, "DELETE", "")
        await webkit.ask("POST", "/window/rect", width=1280, height=900)
        yield webkit


ENGINES = {"chromium": open_chromium, "firefox": open_firefox, "webkit": open_webkit}
