"""What a page of another site can do to a gateway on this machine, in a real Chromium: nothing.

Whether Ollama was asked is checked after the same browser has had an answer by a path that is
allowed, so that a request that was still on its way would have been seen.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from gateway.demo import Simulator
from tests.asks import quick
from tests.gateways import Gateway, gateway
from tests.page.pages import LAN, Visit, chromium
from tests.servers import serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = "evil.example"

KEY = "ada-0123456789abcdef"

FETCH = """
(url) => fetch(url, {mode: "no-cors", credentials: "include", headers: {Accept: "text/event-stream"}})
  .then((response) => response.text(), String)
"""
FETCH_CORS = '(url) => fetch(url).then((response) => "read " + response.status, () => "refused")'
FETCH_POST = """
(url) => fetch(url, {method: "POST", mode: "no-cors", body: JSON.stringify({model: "llama3.2", prompt: "x"})})
  .then(String, String)
"""
BEACON = '(url) => navigator.sendBeacon(url, JSON.stringify({model: "llama3.2", prompt: "x"}))'
EVENT_SOURCE = """
([url, withCredentials]) => new Promise((resolve) => {
  const source = new EventSource(url, {withCredentials})
  let text = ""
  source.onmessage = ({data}) => {
    const {message, done} = JSON.parse(data)
    text += message?.content ?? ""
    if (done) { source.close(); resolve(text) }
  }
  source.onerror = () => source.readyState === EventSource.CLOSED && resolve(null)
})
"""
ELEMENT = """
([html, url]) => new Promise((resolve) => {
  const holder = document.createElement("div")
  holder.innerHTML = html.replace("URL", url.replaceAll("&", "&amp;"))
  const element = holder.firstElementChild
  for (const name of ["load", "error"]) element.addEventListener(name, () => resolve(name))
  document.body.append(element)
})
"""
SCRIPT = """
([type, url]) => new Promise((resolve) => {
  const script = document.createElement("script")
  Object.assign(script, {src: url, type, onload: () => resolve("load"), onerror: () => resolve("error")})
  document.body.append(script)
})
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium("*.example") as browser:
        yield browser


@dataclass
class Attack:
    """A page of another site, at `origin`, and the gateway that it attacks."""

    page: Page
    origin: str
    gw: Gateway
    ollama: Simulator

    @property
    def chat(self) -> str:
        return self.gw.url + "/api/chat?model=llama3.2&prompt=x"

    async def stopped(self) -> None:
        """Check that Ollama was asked nothing, after the browser has had another answer."""
        other = await self.page.context.new_page()
        await other.goto(self.gw.url + "/healthz")
        assert not [request for request in self.ollama.requests if request.path.startswith("/api/")]


@asynccontextmanager
async def attack(browser: Browser, host: str = EVIL, **settings: str) -> AsyncIterator[Attack]:
    async def blank(request: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>Somebody else's page</title><body>")

    ollama = quick()
    async with serve(Starlette(routes=[Route("/", blank)])) as url:
        origin = url.replace("127.0.0.1", host)
        settings = {name: value.replace("ORIGIN", origin) for name, value in settings.items()}
        async with gateway(ollama, **settings) as gw:
            context = await browser.new_context()
            page = await context.new_page()
            await page.goto(origin)
            yield Attack(page, origin, gw, ollama)
            await context.close()


@pytest.mark.parametrize(
    "html",
    [
        '<img src="URL">',
        '<img src="URL" referrerpolicy="no-referrer" crossorigin="use-credentials">',
        '<iframe src="URL"></iframe>',
        '<link rel="stylesheet" href="URL">',
        '<object data="URL"></object>',
        '<video src="URL"></video>',
        '<embed src="URL">',
    ],
)
async def test_no_element_of_another_site_starts_anything(browser: Browser, html: str) -> None:
    async with attack(browser) as attacked:
        outcome = await attacked.page.evaluate(ELEMENT, [html, attacked.chat])
        # a frame "loads" the browser's own error page
        assert outcome == "error" or "iframe" in html or "embed" in html
        await attacked.stopped()


@pytest.mark.parametrize("kind", ["prefetch", "preload"])
async def test_no_hint_of_another_site_starts_anything(browser: Browser, kind: str) -> None:
    async with attack(browser) as attacked:
        async with attacked.page.expect_event("request", predicate=lambda r: "/done" in r.url):
            await attacked.page.evaluate(
                """([rel, url, origin]) => {
                  document.head.append(Object.assign(document.createElement("link"), {rel, as: "fetch", href: url}))
                  fetch(origin + "/done")
                }""",
                [kind, attacked.chat, attacked.origin],
            )
        await attacked.stopped()


@pytest.mark.parametrize("type_", ["text/javascript", "module"])
async def test_no_script_of_another_site_starts_anything(browser: Browser, type_: str) -> None:
    async with attack(browser) as attacked:
        assert await attacked.page.evaluate(SCRIPT, [type_, attacked.chat]) == "error"
        await attacked.stopped()


@pytest.mark.parametrize("script", [FETCH, FETCH_CORS, FETCH_POST, BEACON], ids=["no-cors", "cors", "POST", "beacon"])
async def test_no_fetch_of_another_site_starts_anything(browser: Browser, script: str) -> None:
    async with attack(browser) as attacked:
        await attacked.page.evaluate(script, attacked.chat)
        for path in ("/api/generate", "/ollama/api/chat", "/ollama/api/generate", "/ollama/api/show"):
            await attacked.page.evaluate(script, attacked.gw.url + path)
        assert await attacked.page.evaluate(FETCH_CORS, attacked.gw.url + "/") == "refused"
        await attacked.stopped()


@pytest.mark.parametrize("with_credentials", [False, True])
async def test_no_event_source_of_another_site_starts_anything(browser: Browser, with_credentials: bool) -> None:
    async with attack(browser) as attacked:
        assert await attacked.page.evaluate(EVENT_SOURCE, [attacked.chat, with_credentials]) is None
        await attacked.stopped()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("target", ["_self", "_blank"])
async def test_no_form_of_another_site_starts_anything(browser: Browser, method: str, target: str) -> None:
    async with attack(browser) as attacked:
        submit = """([action, method, target]) => {
          const form = Object.assign(document.createElement("form"), {action, method, target, enctype: "text/plain"})
          form.innerHTML = '<input name="model" value="llama3.2"><input name="prompt" value="x">'
          form.innerHTML += `<input name='{"model":"llama3.2","prompt":"x","a":"' value='"}'>`
          document.body.append(form)
          form.submit()
        }"""
        async with attacked.page.context.expect_event(
            "response", predicate=lambda each: "/api/generate" in each.url
        ) as answered:
            await attacked.page.evaluate(submit, [attacked.gw.url + "/api/generate", method, target])
        assert (await answered.value).status == 403
        await attacked.stopped()


async def test_no_link_of_another_site_starts_anything(browser: Browser) -> None:
    async with attack(browser) as attacked:
        async with attacked.page.expect_navigation() as navigation:
            await attacked.page.evaluate("(url) => { location.href = url }", attacked.chat)
        response = await navigation.value
        assert response.status == 403
        await attacked.stopped()


async def test_a_link_to_the_page_works_and_a_frame_of_it_does_not(browser: Browser) -> None:
    """A framed page could be disguised, and clicked."""
    async with attack(browser) as attacked:
        await attacked.page.evaluate(ELEMENT, ['<iframe src="URL"></iframe>', attacked.gw.url + "/"])
        frame = attacked.page.frames[-1]
        assert await frame.title() != "Gateway"
        await attacked.page.evaluate("(url) => { location.href = url }", attacked.gw.url + "/")
        await attacked.page.wait_for_url(attacked.gw.url + "/**")
        assert await attacked.page.title() != "Somebody else's page"


async def test_a_name_made_to_point_here_is_refused(browser: Browser) -> None:
    """With DNS rebinding the foreign page's own name and port lead to the gateway, so all is same-origin."""
    async with attack(browser) as attacked:
        rebound = attacked.gw.url.replace("127.0.0.1", "rebound.example")
        response = await attacked.page.goto(rebound + "/")
        assert response
        assert response.status == 403
        assert (await response.json())["code"] == "forbidden_host"
        chat = rebound + "/api/chat?model=llama3.2&prompt=x"
        assert await attacked.page.evaluate(EVENT_SOURCE, [chat, False]) is None
        assert await attacked.page.evaluate(FETCH_CORS, chat) == "read 403"
        await attacked.stopped()


async def test_on_plain_http_in_a_lan_nothing_is_started_either(browser: Browser) -> None:
    """There the browser sends no Sec-Fetch-Site. The gateway's own pages can still ask."""
    async with attack(browser) as attacked:
        lan = attacked.gw.url.replace("127.0.0.1", LAN)
        chat = attacked.chat.replace("127.0.0.1", LAN)
        for html in ('<img src="URL">', '<img src="URL" referrerpolicy="no-referrer">'):
            assert await attacked.page.evaluate(ELEMENT, [html, chat]) == "error"
        await attacked.page.evaluate(FETCH, chat)
        assert await attacked.page.evaluate(EVENT_SOURCE, [chat, False]) is None
        await attacked.stopped()
        await attacked.page.goto(lan + "/")
        assert await attacked.page.evaluate(EVENT_SOURCE, [chat, False])
        visit = Visit(attacked.page, lan)
        await visit.ask("Hello")
        await visit.answered()


# Pages that are let in


@pytest.mark.parametrize("with_credentials", [False, True])
@pytest.mark.parametrize(("host", "settings"), [("localhost", {}), (EVIL, {"cors_origins": "ORIGIN"})])
async def test_an_allowed_page_reads(
    browser: Browser, host: str, settings: dict[str, str], with_credentials: bool
) -> None:
    """This includes requests with a preflight, and every header that the page needs."""
    async with attack(browser, host, **settings) as allowed:
        assert await allowed.page.evaluate(EVENT_SOURCE, [allowed.chat, with_credentials])
        post = """([url, credentials]) => fetch(url, {
          method: "POST", credentials, body: '{"chat": {"model": "llama3.2", "messages": []}}',
          headers: {"Content-Type": "application/json", Authorization: "Bearer x", "Last-Event-ID": ""},
        }).then((response) => response.headers.get("Location"))"""
        credentials = "include" if with_credentials else "same-origin"
        url = await allowed.page.evaluate(post, [allowed.gw.url + "/api/streams", credentials])
        assert url.startswith("/api/streams/")
        delete = "(url) => fetch(url, {method: 'DELETE'}).then((response) => response.status)"
        assert await allowed.page.evaluate(delete, allowed.gw.url + url) == 204


async def test_a_session_stays_on_its_own_site(browser: Browser) -> None:
    """The page's cookie: no script sees it, another site's request does not carry it, its own does."""
    async with attack(browser, cors_origins="ORIGIN", api_keys=f"ada:{KEY}") as attacked:
        await attacked.page.goto(attacked.gw.url + "/healthz")
        sign_in = "(key) => fetch('/api/session', {method: 'POST', headers: {Authorization: 'Bearer ' + key}})"
        await attacked.page.evaluate(f"(key) => ({sign_in})(key).then((response) => response.status)", KEY)
        assert await attacked.page.evaluate("document.cookie") == ""
        assert await attacked.page.evaluate(EVENT_SOURCE, [attacked.chat, False])
        await attacked.page.goto(attacked.origin)
        # its origin is allowed, but it has no key
        assert await attacked.page.evaluate(EVENT_SOURCE, [attacked.chat, True]) is None
        assert await attacked.page.evaluate(FETCH_CORS, attacked.gw.url + "/api/models") == "read 401"


async def test_a_session_is_of_use_only_until_it_is_forgotten(browser: Browser) -> None:
    async with attack(browser, api_keys=f"ada:{KEY}") as attacked:
        await attacked.page.goto(attacked.gw.url + "/healthz")
        statuses = await attacked.page.evaluate(
            """async (key) => {
              const status = async (path, init) => (await fetch(path, init)).status
              const before = await status("/api/models")
              await status("/api/session", {method: "POST", headers: {Authorization: `Bearer ${key}`}})
              const during = await status("/api/models")
              await status("/api/session", {method: "DELETE"})
              return [before, during, await status("/api/models")]
            }""",
            KEY,
        )
        assert statuses == [401, 200, 401]


async def test_the_page_works_under_its_own_policy(browser: Browser) -> None:
    """Nothing that the page does is refused by the headers that it is sent with."""
    ollama = quick()
    async with gateway(ollama) as gw:
        page = await browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(gw.url + "/")
        visit = Visit(page, gw.url)
        await visit.ask("Hello")
        await visit.answered()
        assert complaints == []
        blocked = "import('data:text/javascript,export default 1').then(() => 'ran', () => 'blocked')"
        assert await page.evaluate(blocked) == "blocked"
        await page.close()
