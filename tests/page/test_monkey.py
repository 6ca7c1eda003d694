"""A monkey at four tabs: whatever it does, what is on the screen is what is stored, and both are what was said.

A seed repeats its steps, though not their exact moments. `MONKEY_SEEDS=1-20 MONKEY_STEPS=200` is the whole run.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.cutting import Proxy, cutting
from tests.page.pages import LONG, Visit, Visits
from tests.servers import serve

FIRST, _, LAST = os.environ.get("MONKEY_SEEDS", "1-3").partition("-")
SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)
STEPS = int(os.environ.get("MONKEY_STEPS", "60"))
TABS = 4

STORED = """async () => {
  const { History } = await import("/static/js/history.js");
  const { pathOf } = await import("/static/js/tree.js");
  window.stored ??= new History();
  const { chats, running } = await window.stored.chats();
  const all = {};
  for (const { id } of chats) {
    const turns = await window.stored.turns(id);
    all[id] = {
      answers: turns.flatMap((turn) => turn.answers.map(({ status, text }) => ({ prompt: turn.prompt, status, text }))),
      path: pathOf(turns).map((turn) => [turn.prompt, turn.answers[turn.shown]?.text.trim() ?? ""]),
    };
  }
  return { all, running: running.length };
}"""
"""All answers of all chats in the database, and what of them is on display."""

SHOWN = """(id) => {
  if (!document.querySelector(`[data-chat="${id}"] [aria-current]`)) return null;
  return [...document.querySelectorAll(".turn")].map((turn) =>
    [turn.querySelector(".prompt").textContent, turn.querySelector(".text").textContent.trim()]);
}"""
"""The open chat as it is on the screen; null while it is another one."""

CLICK = """([selector, choice]) => {
  const found = [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility());
  found[Math.floor(choice * found.length)]?.click();
}"""


def said(prompt: str) -> str:
    """What this Ollama answers."""
    return " ".join(f"{prompt}/{number}" for number in range(5 + sum(map(ord, prompt)) % 60))


class Echo:
    """An Ollama whose answer follows from the prompt."""

    def __init__(self) -> None:
        self.simulator = Simulator(load_seconds=0, prompt_seconds=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/api/chat":
            await self.simulator.app(scope, receive, send)
            return
        body = orjson.loads(await Request(scope, receive).body())
        lines = self._lines(body["messages"][-1]["content"])
        await StreamingResponse(lines, media_type="application/x-ndjson")(scope, receive, send)

    async def _lines(self, prompt: str) -> AsyncIterator[bytes]:
        for word in said(prompt).split(" "):
            await asyncio.sleep(0.02)
            space = "" if word.endswith("/0") else " "
            message = {"role": "assistant", "content": space + word}
            yield orjson.dumps({"model": "echo", "message": message, "done": False}) + b"\n"
        yield orjson.dumps({"model": "echo", "message": {"content": ""}, "done": True, "eval_count": 9}) + b"\n"


class Monkey:
    def __init__(self, seed: int, visits: Visits, proxy: Proxy, restart: Callable[[], Awaitable[None]]) -> None:
        self.random = random.Random(seed)
        self._visits = visits
        self._proxy = proxy
        self._restart = restart
        self._prompts = 0
        self._backup: Any = None
        self.tabs: list[Visit] = []
        self.steps: list[str] = []

    async def open(self) -> None:
        self.tabs.append(await self._visits.tab(self._proxy.url, network_fails=True))

    async def step(self) -> None:
        actions: dict[Callable[[Visit], Awaitable[None]], int] = {
            self.ask: 10,
            self.switch: 6,
            self.stop: 4,
            self.edit: 3,
            self.regenerate: 3,
            self.new_chat: 3,
            self.reload: 3,
            self.close: 2,
            self.cut: 2,
            self.delete_turn: 2,
            self.delete: 1,
            self.undo: 2,
            self.version: 2,
            self.back_up: 1,
            self.import_: 1,
            self.kill: 1,
        }
        tab = self.random.choice(self.tabs)
        [action] = self.random.choices(list(actions), list(actions.values()))
        self.steps.append(f"{self.tabs.index(tab)} {action.__name__}")
        await action(tab)
        await asyncio.sleep(self.random.choice([0, 0.01, 0.05, 0.2]))  # the rhythm of a hand

    async def _click(self, tab: Visit, selector: str) -> None:
        await tab.page.evaluate(CLICK, [selector, self.random.random()])

    async def ask(self, tab: Visit) -> None:
        self._prompts += 1
        await tab.page.evaluate(
            """(text) => {
              const field = document.querySelector("#prompt");
              field.value = text;
              field.dispatchEvent(new Event("input"));
              document.querySelector("#send").click();
            }""",
            f"p{self._prompts}",
        )

    async def switch(self, tab: Visit) -> None:
        await self._click(tab, ".chat a")

    async def stop(self, tab: Visit) -> None:
        await self._click(tab, "#stop")

    async def new_chat(self, tab: Visit) -> None:
        await self._click(tab, "#new-chat")

    async def regenerate(self, tab: Visit) -> None:
        await self._click(tab, "[data-do=regenerate], [data-do=retry]")

    async def edit(self, tab: Visit) -> None:
        self._prompts += 1
        await self._click(tab, "[data-do=edit]")
        await tab.page.evaluate(
            """(text) => {
              const form = document.querySelector(".editing");
              if (!form) return;
              form.querySelector("textarea").value = text;
              form.requestSubmit();
            }""",
            f"p{self._prompts}",
        )

    async def version(self, tab: Visit) -> None:
        await self._click(tab, ".steps button:enabled")

    async def delete_turn(self, tab: Visit) -> None:
        await self._click(tab, ".asked [data-do=delete]")

    async def delete(self, tab: Visit) -> None:
        await tab.page.evaluate("document.querySelector('.chat [data-do=delete]')?.click()")

    async def undo(self, tab: Visit) -> None:
        await self._click(tab, ".toast .plain")

    async def reload(self, tab: Visit) -> None:
        await tab.page.reload()

    async def close(self, tab: Visit) -> None:
        await tab.page.close()
        self.tabs.remove(tab)
        await self.open()

    async def cut(self, tab: Visit) -> None:
        self._proxy.cut()

    async def kill(self, tab: Visit) -> None:
        await self._restart()

    async def back_up(self, tab: Visit) -> None:
        async with tab.page.expect_download() as download:
            await tab.page.evaluate("document.querySelector('#export').click()")
        path = await (await download.value).path()
        self._backup = await asyncio.to_thread(path.read_bytes)

    async def import_(self, tab: Visit) -> None:
        if self._backup:
            file: Any = {"name": "chats.json", "mimeType": "application/json", "buffer": self._backup}
            await tab.page.locator("#import-file").set_input_files(file)


async def settled(monkey: Monkey) -> dict[str, Any]:
    """The database, once nothing runs any more and it has stopped changing."""
    page = monkey.tabs[0].page
    before = None
    for _ in range(4 * LONG // 500):
        stored = await page.evaluate(STORED)
        marks = [await tab.page.locator(".chat .running:visible").count() for tab in monkey.tabs]
        if not stored["running"] and not any(marks) and stored == before:
            return dict(stored["all"])
        before = stored
        await page.wait_for_timeout(500)
    raise AssertionError(f"still running: {stored['running']}, {marks}\n{monkey.steps}")


async def shown_as_stored(tab: Visit, chat: str, path: list[list[str]]) -> None:
    await tab.page.evaluate("(id) => { location.hash = id; }", chat)
    for _ in range(LONG // 100):
        shown = await tab.page.evaluate(SHOWN, chat)
        if shown == path:
            return
        await tab.page.wait_for_timeout(100)
    raise AssertionError(f"shown {shown}\nstored {path}")


@pytest.mark.timeout(60 + 3 * STEPS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_what_a_monkey_leaves_is_whole(visits: Visits, seed: int) -> None:
    """Every chat on every screen equals the database equals what the gateway sent; nothing is stuck."""
    async with AsyncExitStack() as stack:
        ollama = await stack.enter_async_context(serve(Echo()))
        gw = await stack.enter_async_context(gateway(ollama))
        proxy = await stack.enter_async_context(cutting(gw.url))

        async def restart() -> None:
            fresh = await stack.enter_async_context(gateway(ollama))
            proxy.port = int(fresh.url.rpartition(":")[2])
            proxy.cut()

        monkey = Monkey(seed, visits, proxy, restart)
        first = await visits.open(proxy.url, network_fails=True, reduced_motion="reduce")
        monkey.tabs.append(first)
        while len(monkey.tabs) < TABS:
            await monkey.open()
        for _ in range(STEPS):
            await monkey.step()
        chats = await settled(monkey)
        assert any(answer["status"] == "done" for chat in chats.values() for answer in chat["answers"])
        for chat, stored in chats.items():
            for answer in stored["answers"]:
                whole = said(answer["prompt"])
                assert answer["status"] in ("done", "failed", "cancelled"), (answer, monkey.steps)
                assert whole == answer["text"] if answer["status"] == "done" else whole.startswith(answer["text"])
            for tab in monkey.tabs:
                await shown_as_stored(tab, chat, stored["path"])
