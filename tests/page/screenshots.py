"""Pictures of the page, for the README and to be looked at: python -m tests.page.screenshots FOLDER"""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

from playwright.async_api import expect

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.cutting import cutting
from tests.page.pages import Visits, chromium
from tests.page.parrot import Parrot
from tests.servers import serve

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}
DARK: dict[str, Any] = {"color_scheme": "dark"}

EARLIER = ["A name for a sourdough starter", "Regular expression for ISO dates", "Why is the sky blue?"]
QUESTION = "Which should I use to stream tokens to a browser, SSE or WebSocket?"
ANSWER = """**Server-Sent Events**, unless the client must talk back on the same connection.

| | SSE | WebSocket |
|---|---|---|
| Direction | server to browser | both |
| Reconnects | by itself, where it left off | you write it |
| Proxies | plain HTTP | need an upgrade |

A whole client is three lines:

```js
const source = new EventSource("/api/chat?prompt=Hello");
source.onmessage = ({ data }) => show(JSON.parse(data));
source.addEventListener("end", () => source.close());
```

When the network blinks, the browser sends the **last id it has read**, and the stream goes on from there:
no token is lost and nothing is generated twice.
"""


async def conversation(visits: Visits, folder: Path, name: str, **context: Any) -> None:
    """A few chats in the list, a whole answer in view."""
    parrot = Parrot("Yes.", prompt_eval_count=812, eval_count=196, eval_duration=5_600_000_000)
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, **context)
        for prompt in EARLIER if "viewport" in context and context["viewport"]["width"] > 1000 else []:
            await visit.ask(prompt)
            await visit.answered()
            await visit.page.keyboard.press("Control+Shift+O")
            await expect(visit.turns).to_have_count(0)
        parrot.pieces = re.findall(r"\s*\S{1,5}|\s+", ANSWER)
        parrot.rate, parrot.wait = 120, 0.4
        await visit.ask(QUESTION)
        await visit.answered()
        await visit.page.screenshot(path=folder / f"{name}.png")


async def thinking(visits: Visits, folder: Path) -> None:
    async with gateway(Simulator(token_rate=30, load_seconds=1.2)) as gw:
        visit = await visits.open(gw.url, **DESKTOP)
        await visit.choose("qwen3:latest")
        await visit.ask("How many rainy days make a wet summer?")
        await expect(visit.page.locator(".thoughts")).to_contain_text("Let me check for traps")
        await visit.page.screenshot(path=folder / "thinking.png")


async def error(visits: Visits, folder: Path) -> None:
    async with gateway(Simulator(list_faults=True, token_rate=100)) as gw:
        visit = await visits.open(gw.url, **DESKTOP)
        await visit.choose("fault:crash")
        await visit.ask("Tell me something")
        await expect(visit.page.locator(".failure")).to_be_visible()
        await visit.page.screenshot(path=folder / "error.png")


async def unreachable(visits: Visits, folder: Path) -> None:
    async with serve(Simulator().app) as ollama, cutting(ollama) as proxy, gateway(proxy.url) as gw:
        proxy.refusing = True
        visit = await visits.open(gw.url, network_fails=True, **DESKTOP)
        await expect(visit.page.locator("#welcome")).to_contain_text("not reachable")
        await visit.page.screenshot(path=folder / "unreachable.png")


async def pull(visits: Visits, folder: Path) -> None:
    async with gateway(Simulator(pull_seconds=20), allow_pull=True) as gw:
        visit = await visits.open(gw.url, **DESKTOP)
        await visit.page.locator("#model").click()
        await visit.page.locator("#models-dialog [name=model]").fill("phi4")
        await visit.page.locator("#models-dialog .pull-form button").click()
        await expect(visit.page.locator("#models-dialog .how")).to_contain_text("left")
        await visit.page.wait_for_function("() => document.querySelector('#models-dialog progress').value > 0.3")
        await visit.page.screenshot(path=folder / "pull.png")


async def markdown(visits: Visits, folder: Path, name: str, *, paper: bool = False, **context: Any) -> None:
    """A long answer with all that models write, from top to bottom."""
    text = (Path(__file__).parent / "answer.md").read_text()
    async with serve(Parrot(text, piece=r"(?s).{1,40}", rate=500)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, **context)
        await visit.ask("Show me everything")
        await visit.answered()
        await expect(visit.page.locator(".text math").first).to_be_visible()
        if paper:
            await visit.page.pdf(path=folder / f"{name}.pdf")
            return
        height = await visit.page.evaluate("document.querySelector('#turns').scrollHeight")
        await visit.page.set_viewport_size({"width": context["viewport"]["width"], "height": height + 300})
        await visit.page.screenshot(path=folder / f"{name}.png")


async def main(folder: Path) -> None:
    async with chromium() as browser:
        visits = Visits(browser)
        await conversation(visits, folder, "desktop", **DESKTOP)
        await conversation(visits, folder, "desktop-dark", **DESKTOP, **DARK)
        await conversation(visits, folder, "phone", **PHONE)
        await conversation(visits, folder, "phone-dark", **PHONE, **DARK)
        await markdown(visits, folder, "markdown", **DESKTOP)
        await markdown(visits, folder, "markdown-dark", **DESKTOP, **DARK)
        await markdown(visits, folder, "markdown-phone", **PHONE)
        await markdown(visits, folder, "markdown-print", paper=True, **DESKTOP)
        for picture in (thinking, error, unreachable, pull):
            await picture(visits, folder)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(folder))
