"""The guide's pages on streaming, resuming, stopping and queueing: every line shown is run."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
from playwright.async_api import expect

from gateway.demo import Simulator
from tests.asks import quick
from tests.gateways import gateway
from tests.page.cutting import cutting
from tests.page.pages import chromium
from tests.processes import ROOT, Process, process
from tests.servers import serve
from tests.snippets import blocks, module, other_origin, page_of, sh
from tests.sse import messages, parse, text

STREAM, RESUME, STOP, QUEUE = [(ROOT / f"docs/{name}.md").read_text() for name in ("stream", "resume", "stop", "queue")]

SKY = "Why is the sky blue?"
ANSWER = re.compile(".{100}", re.DOTALL)


@asynccontextmanager
async def running(simulator: Simulator, directory: Path, *flags: str) -> AsyncIterator[Process]:
    async with serve(simulator.app) as url, process(directory, f"--ollama-url={url}", *flags) as gw:
        yield gw


def test_there_is_no_snippet_that_is_not_run() -> None:
    """A further snippet, or one of another kind, would be run by none of the tests below."""
    languages = ("sh", "js", "html")
    shown = [[len(blocks(language, page)) for language in languages] for page in (STREAM, RESUME, STOP, QUEUE)]
    assert shown == [[3, 2, 0], [1, 3, 0], [1, 0, 1], [0, 1, 0]]
    for page in (STREAM, RESUME, STOP, QUEUE):
        assert page.count("```") == 2 * sum(len(blocks(language, page)) for language in (*languages, "mermaid"))


async def test_streaming_to_pages(tmp_path: Path) -> None:
    simulator = quick()
    async with running(simulator, tmp_path) as gw, chromium() as browser:
        for script in blocks("js", STREAM):
            async with other_origin(browser, module(script), gw.url) as page:
                await expect(page.locator("body")).to_have_text(ANSWER)
    asked = [orjson.loads(request.body) for request in simulator.requests if request.path == "/api/chat"]
    assert asked[0] == {
        "model": "llama3.2",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SKY}],
    }
    assert [message["role"] for message in asked[1]["messages"]] == ["user", "assistant", "user"]
    assert asked[1]["options"] == {"temperature": 0}


async def test_an_error_on_a_page(tmp_path: Path) -> None:
    _, script = blocks("js", STREAM)
    async with running(quick(), tmp_path) as gw, page_of(module(script.replace("llama3.2", "nope")), gw.url) as page:
        await expect(page.locator("body")).to_contain_text("(model_not_found)")


async def test_streaming_by_commands(tmp_path: Path) -> None:
    async with running(quick(), tmp_path) as gw:
        chat, generate, start = blocks("sh", STREAM)
        assert '"done":true' in await sh(chat, gw)
        assert '"response":' in await sh(generate, gw)
        created = orjson.loads(await sh(start, gw))
        assert created.keys() == {"id", "url", "kind", "model"}
        assert (
            f'answers `{{"id": …, "url": "/api/streams/…", "kind": "chat", "model": "{created["model"]}"}}`' in STREAM
        )


async def answer() -> str:
    """A new simulator's answer to the question of the pages."""
    async with gateway(quick()) as gw:
        return text(await gw.read(f"/api/chat?prompt={SKY}"))


def chats(simulator: Simulator) -> int:
    return sum(request.path == "/api/chat" for request in simulator.requests)


async def test_resuming_after_a_cut(tmp_path: Path) -> None:
    simulator = quick(token_rate=50)
    script, *_ = blocks("js", RESUME)
    async with (
        running(simulator, tmp_path) as gw,
        cutting(gw.url) as proxy,
        page_of(module(script), proxy.url) as page,
    ):
        await page.wait_for_function("document.body.textContent.length > 100")
        proxy.cut()
        await simulator.until(lambda: simulator.running == 0)
        assert (chats(simulator), simulator.states["cancelled"]) == (1, 0)
        await expect(page.locator("body")).to_have_text(await answer())


KEEP = 'addEventListener("pagehide", () => sessionStorage.setItem("before", document.body.textContent))'


async def test_resuming_after_a_reload(tmp_path: Path) -> None:
    """What was shown before and after is the whole answer; the model ran once."""
    simulator = quick(token_rate=50)
    _, script, _ = blocks("js", RESUME)
    async with running(simulator, tmp_path) as gw, page_of(module(script), gw.url, prepare=KEEP) as page:
        await page.wait_for_function("document.body.textContent.length > 100")
        await page.reload()
        await simulator.until(lambda: simulator.running == 0)
        await page.wait_for_function("!sessionStorage.getItem('last')")
        assert chats(simulator) == 1
        before, after = await page.evaluate("[sessionStorage.getItem('before'), document.body.textContent]")
        assert before
        assert before + after == await answer()


async def test_a_start_that_is_asked_again(tmp_path: Path) -> None:
    """The page's question, asked by two connections with one key."""
    simulator = quick()
    *_, script = blocks("js", RESUME)
    twice = f"{script}\nwindow.again = new EventSource(`http://127.0.0.1:8000/api/chat?${{question}}`)"
    seen = "window.again.onmessage = ({ data }) => JSON.parse(data).done && (document.body.textContent = 'done')"
    async with running(simulator, tmp_path) as gw, page_of(module(f"{twice}\n{seen}"), gw.url) as page:
        await expect(page.locator("body")).to_have_text("done")
        assert chats(simulator) == 1


async def test_resuming_by_hand(tmp_path: Path) -> None:
    (command,) = blocks("sh", RESUME)
    async with running(quick(), tmp_path) as gw:
        rest = await sh(command, gw, tmp_path)
    whole = messages_of((tmp_path / "whole").read_text())
    assert messages_of(rest) == whole[3:]
    assert len(whole) > 10


def messages_of(stream: str) -> list[bytes]:
    events = [event for block in stream.encode().split(b"\n\n")[:-1] if (event := parse(block))]
    return [event.data for event in messages(events)]


async def test_a_stop_button(tmp_path: Path) -> None:
    simulator = quick(token_rate=20)
    (html,) = blocks("html", STOP)
    async with running(simulator, tmp_path) as gw, page_of(html, gw.url) as page:
        await page.wait_for_function("document.querySelector('#answer').textContent")
        await page.locator("#stop").click()
        await simulator.until(lambda: simulator.running == 0)
        assert simulator.states["cancelled"] == 1


async def test_stopping_from_anywhere(tmp_path: Path) -> None:
    simulator = quick(token_rate=1)
    (command,) = blocks("sh", STOP)
    async with running(simulator, tmp_path) as gw:
        assert '"code":"cancelled"' in await sh(command, gw)
        assert simulator.states["done"] == 0


async def test_showing_the_queue(tmp_path: Path) -> None:
    simulator = quick()
    (script,) = blocks("js", QUEUE)
    async with (
        running(simulator, tmp_path, "--max-active=1") as gw,
        aiohttp.ClientSession() as session,
        session.get(f"{gw.url}/api/chat?prompt=x&model=fault:stall") as before,
    ):
        await simulator.until(lambda: simulator.running == 1)
        async with page_of(module(script), gw.url) as page:
            await expect(page).to_have_title("queued: 1")
            before.close()
            await expect(page.locator("body")).to_have_text(ANSWER)
            await expect(page).not_to_have_title("queued: 1")
