"""Native `EventSource` in a real Chromium: from the gateway's own origin, from another port, and from elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.gateways import Gateway, gateway
from tests.page.pages import chromium
from tests.servers import serve
from tests.test_replay import Replay
from tests.transcripts import load
from tests.upstreams import ONCE_DONE, Upstream, silence, streams, token, upstream

THREE_LINES = """
(url) => new Promise((resolve) => {
  let text = ""
  const source = new EventSource(url)
  source.onmessage = ({data}) => {
    const {message, done, error} = JSON.parse(data)
    text += message?.content ?? ""
    if (done || error) resolve({text, error, closed: source.close()})
  }
})
"""
"""The client of the README: parse, append, close at the end."""

FORGETFUL = """
(url) => new Promise((resolve) => {
  const data = [], names = []
  const source = new EventSource(url)
  source.onmessage = (event) => data.push(event.data)
  for (const name of ["meta", "end"]) source.addEventListener(name, () => names.push(name))
  source.onerror = () => source.readyState === EventSource.CLOSED && resolve({data, names})
})
"""
"""A client that never closes: it reconnects until it is told to stop, which the browser shows as an error."""

OPEN = "(url) => { window.source = new EventSource(url); return new Promise((r) => { source.onopen = () => r() }) }"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium("elsewhere.example") as browser:
        yield browser


@asynccontextmanager
async def page_at(browser: Browser, url: str) -> AsyncIterator[Page]:
    page = await browser.new_page()
    await page.goto(url)
    yield page
    await page.close()


async def blank(request: object) -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>Another app</title>")


@asynccontextmanager
async def page_of(browser: Browser, origin: str, gw: Gateway) -> AsyncIterator[Page]:
    """A page of the gateway, or of another app's server on this machine, also under a foreign name."""
    if origin == "gateway":
        async with page_at(browser, gw.url + "/") as page:
            yield page
        return
    async with (
        serve(Starlette(routes=[Route("/", blank)])) as url,
        page_at(browser, url.replace("127.0.0.1", origin)) as page,
    ):
        yield page


ORIGINS = ["gateway", "127.0.0.1", "localhost"]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("name", ["chat-unicode", "chat-long-line-tool-arguments"])
async def test_reads_what_ollama_said(browser: Browser, name: str, origin: str) -> None:
    """Split emoji, `<>&`, U+2028, text that looks like SSE and a line of 1 MB arrive unchanged, and once."""
    transcript = load(name)
    lines = [line.decode() for line in transcript.body.split(b"\n") if line]
    said = "".join(orjson.loads(line)["message"]["content"] for line in lines)
    async with upstream(Replay(transcript)) as ollama, gateway(ollama.url) as gw, page_of(browser, origin, gw) as page:
        url = f"{gw.url}/api/chat?model=m&prompt=Hi"
        assert (await page.evaluate(THREE_LINES, url))["text"] == said
        assert await page.evaluate(FORGETFUL, url) == {"data": lines, "names": ["meta", "end"]}
        assert len(ollama.asked("/api/chat")) == 2


@pytest.mark.parametrize("origin", ORIGINS)
async def test_forgetful_client_runs_nothing_again(browser: Browser, origin: str) -> None:
    """It reconnects after the end with the end's id, gets 204, and is closed for good."""
    async with standing(browser, origin) as (gw, ollama, page):
        url = f"{gw.url}/api/generate?model=m&prompt=Hi"
        seen = await page.evaluate(FORGETFUL, url)
        assert [orjson.loads(data).get("done") for data in seen["data"]] == [False, True]
        assert len(ollama.asked("/api/generate")) == 1


@asynccontextmanager
async def standing(browser: Browser, origin: str, **settings: Any) -> AsyncIterator[tuple[Gateway, Upstream, Page]]:
    async with (
        upstream(streams(token("a"), ONCE_DONE)) as ollama,
        gateway(ollama.url, **settings) as gw,
        page_of(browser, origin, gw) as page,
    ):
        yield gw, ollama, page


@pytest.mark.parametrize("query", ["", "prompt=Hi&prompt=Ho", "prompt=%ff", "prompt=Hi&last_event_id=x"])
async def test_error_before_a_stream_is_shown_once(browser: Browser, query: str) -> None:
    """The page learns the reason, which no status would tell it, and a client that never closes is stopped."""
    async with standing(browser, "localhost") as (gw, ollama, page):
        url = f"{gw.url}/api/chat?model=m&{query}"
        assert (await page.evaluate(THREE_LINES, url))["error"]
        seen = await page.evaluate(FORGETFUL, url)
        assert [orjson.loads(data)["code"] for data in seen["data"]] == ["invalid_request"]
        assert ollama.requests == []


async def test_foreign_page_starts_nothing(browser: Browser) -> None:
    """Another site's page is refused before anything runs, not only kept from reading."""
    async with standing(browser, "elsewhere.example") as (gw, ollama, page):
        seen = await page.evaluate(FORGETFUL, f"{gw.url}/api/chat?model=m&prompt=Hi")
        assert seen == {"data": [], "names": []}
        assert ollama.requests == []


async def test_allowed_foreign_page(browser: Browser) -> None:
    async with upstream(streams(token("a"), ONCE_DONE)) as ollama, serve(Starlette(routes=[Route("/", blank)])) as url:
        origin = url.replace("127.0.0.1", "elsewhere.example")
        async with gateway(ollama.url, cors_origins=origin) as gw, page_at(browser, origin) as page:
            assert (await page.evaluate(THREE_LINES, f"{gw.url}/api/chat?model=m&prompt=Hi"))["text"] == "a"


@pytest.mark.parametrize("leave", ["close()", "reload", "close the tab"])
async def test_leaving_stops_ollama(browser: Browser, leave: str) -> None:
    """`close()`, a reload and a closed tab each end the upstream request, though Ollama is silent."""
    async with upstream(silence) as ollama, gateway(ollama.url) as gw, page_of(browser, "localhost", gw) as page:
        await page.evaluate(OPEN, f"{gw.url}/api/chat?model=m&prompt=Hi")
        await ollama.until(lambda: ollama.open == 1)
        match leave:
            case "close()":
                await page.evaluate("source.close()")
            case "reload":
                await page.reload()
            case _:
                await page.close()
        await ollama.until(lambda: ollama.open == 0)


async def test_reload_goes_on_by_the_query(browser: Browser) -> None:
    """A new page has no Last-Event-ID; it reads on by `last_event_id`, and the browser's own header wins later."""
    async with standing(browser, "localhost") as (gw, ollama, page):
        sid = await gw.start(chat={"model": "m", "messages": []})
        whole = await page.evaluate(FORGETFUL, f"{gw.url}/api/streams/{sid}")
        rest = await page.evaluate(FORGETFUL, f"{gw.url}/api/streams/{sid}?last_event_id={sid}-1")
        assert len(whole["data"]) == 2
        assert rest["data"] == whole["data"][1:]
        assert len(ollama.asked("/api/chat")) == 1
