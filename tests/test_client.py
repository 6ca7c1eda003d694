"""`/client.js`: any frontend can import it, and it has the version of the gateway."""

import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from gateway import __version__
from gateway.demo import Simulator
from gateway.web.routes.page import STATIC
from tests.asks import quick
from tests.gateways import Gateway, gateway
from tests.page.pages import LAN, chromium
from tests.servers import serve

CLIENT = (STATIC / "client.js").read_text()

ASK = """
async ({url, key}) => {
  const {stream} = await import(url + "/client.js")
  let text = ""
  const answer = stream({model: "llama3.2", messages: [{role: "user", content: "Hi"}]}, {key})
  for await (const chunk of answer) text += chunk.message.content
  return text
}
"""


def test_it_has_the_version_of_the_gateway() -> None:
    assert re.findall(r'^export const VERSION = "(.+)";$', CLIENT, re.MULTILINE) == [__version__]


@pytest.mark.parametrize(
    ("path", "content_type"), [("/client.js", "text/javascript"), ("/client.d.ts", "text/typescript")]
)
async def test_its_headers(path: str, content_type: str) -> None:
    async with gateway(Simulator(), api_keys="ada:ada-0123456789abcdef") as gw:
        url, origin = gw.url + path, {"Origin": "http://localhost:3000"}
        async with gw.session.get(url, headers=origin) as response:
            assert response.status == 200
            assert response.content_type == content_type
            assert response.charset == "utf-8"
            assert response.headers["Cache-Control"] == "no-cache"
            assert response.headers["Access-Control-Allow-Origin"] == origin["Origin"]
            assert await response.text() == (STATIC / path[1:]).read_text()
            etag = response.headers["ETag"]
        async with gw.session.get(url, headers=origin | {"If-None-Match": etag}) as response:
            assert response.status == 304
            assert response.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        async with gw.session.get(url, headers={"Origin": "https://elsewhere.example"}) as response:
            assert response.status == 403
        async with gw.session.head(url) as response:
            assert response.status == 200


async def test_it_is_under_4_kb_on_the_wire() -> None:
    async with gateway(Simulator()) as gw, gw.session.get(gw.url + "/client.js", auto_decompress=False) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        body = await response.read()
        assert len(body) < 4096
        assert gzip.decompress(body).decode() == CLIENT


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@asynccontextmanager
async def frontend(browser: Browser, host: str, **settings: str) -> AsyncIterator[tuple[Page, Gateway]]:
    """A page of another origin and a gateway, both at `host`."""

    async def blank(request: object) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>Another frontend</title>")

    async with serve(Starlette(routes=[Route("/", blank)])) as url:
        origin = url.replace("127.0.0.1", host)
        settings = {name: value.replace("ORIGIN", origin) for name, value in settings.items()}
        async with gateway(quick(), **settings) as gw:
            context = await browser.new_context()
            page = await context.new_page()
            await page.goto(origin)
            gw.url = gw.url.replace("127.0.0.1", host)
            yield page, gw
            await context.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("host", "settings"),
    [
        ("localhost", {}),
        (LAN, {"cors_origins": "ORIGIN"}),
        (LAN, {"cors_origins": "ORIGIN", "api_keys": "ada:" + 20 * "k"}),
    ],
    ids=["localhost", "LAN", "LAN with a key"],
)
async def test_a_page_of_another_origin_imports_it_and_asks(
    browser: Browser, host: str, settings: dict[str, str]
) -> None:
    async with frontend(browser, host, **settings) as (page, gw):
        text = await page.evaluate(ASK, {"url": gw.url, "key": 20 * "k" if "api_keys" in settings else None})
        assert len(text) > 20


@pytest.mark.asyncio(loop_scope="module")
async def test_a_copy_that_was_cached_for_the_own_origin_serves_another_one(browser: Browser) -> None:
    """The cached answer to a request without an Origin allows no origin to read it."""
    async with frontend(browser, "localhost") as (page, gw):
        own = await page.context.new_page()
        await own.goto(gw.url + "/healthz")
        await own.evaluate("(url) => import(url + '/client.js').then(() => null)", gw.url)
        await own.close()
        assert len(await page.evaluate(ASK, {"url": gw.url, "key": None})) > 20


@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_whose_origin_is_not_allowed_cannot_import_it(browser: Browser) -> None:
    async with frontend(browser, LAN) as (page, gw):
        assert (
            await page.evaluate("(url) => import(url + '/client.js').catch((error) => error.name)", gw.url)
            == "TypeError"
        )
