"""The main path of a conversation in three engines, each the real browser: Chromium, Firefox ESR and WebKitGTK."""

import re
from collections.abc import AsyncIterator

import pytest

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.cutting import cutting
from tests.page.engines import ENGINES, Engine, Tab, until
from tests.page.hostile import FOUND, HOSTILE, assert_harmless
from tests.page.parrot import Parrot
from tests.servers import serve

TEXT = " ".join(f"word{number} **bold** `code`" for number in range(80))

STATUS = "(wanted) => [...document.querySelectorAll('.turn')].at(-1)?.dataset.status === wanted"
SHOWN = "(text) => [...document.querySelectorAll('.turn .text')].at(-1)?.textContent.includes(text)"
KEPT = """async () => {
  const { History } = await import("/static/js/history.js");
  window.stored ??= new History();
  return (await window.stored.turns(location.hash.slice(1))).at(-1)?.answers.at(-1);
}"""
FITS = "() => document.documentElement.scrollWidth <= innerWidth && document.querySelector('#send').offsetWidth > 0"
DIALOGS = {
    "#model": "#models li",
    "#settings": "#settings-dialog textarea",
    "[data-do=code]": "#code-panel code",
    "#shortcuts": "#shortcut-list dd",
}
SEEN = """(selector) => {
  const element = document.querySelector(selector);
  const { x, y } = element.getBoundingClientRect();
  return element.contains(document.elementFromPoint(x + 9, y + 9));
}"""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=list(ENGINES))
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    async with ENGINES[request.param]() as engine:
        yield engine


async def visit(engine: Engine, url: str) -> Tab:
    """The page in a new tab; what goes wrong on it is noted from then on."""
    tab = await engine.tab()
    await tab.goto(url)
    await until(tab, "() => document.querySelector('#model .name').textContent")
    await watch(tab)
    return tab


async def watch(tab: Tab) -> None:
    await tab.evaluate(
        """() => {
          window.bad ??= [];
          addEventListener("error", ({ message }) => window.bad.push(message));
          addEventListener("unhandledrejection", ({ reason }) => window.bad.push(String(reason)));
          addEventListener("securitypolicyviolation", ({ violatedDirective }) => window.bad.push(violatedDirective));
        }"""
    )


async def ask(tab: Tab, prompt: str) -> None:
    await tab.evaluate("() => document.querySelector('#prompt').focus()")
    await tab.press(prompt)
    await until(tab, "() => !document.querySelector('#send').disabled")
    await tab.press("Enter")
    await until(tab, "(text) => [...document.querySelectorAll('.asked .prompt')].at(-1)?.textContent === text", prompt)


async def complete(tab: Tab) -> None:
    """The last answer is whole, on the screen and in the database."""
    await until(tab, STATUS, "done")
    await until(tab, f"async () => (await ({KEPT})())?.status === 'done'")
    assert (await tab.evaluate(KEPT))["text"] == TEXT
    shown = "(text) => [...document.querySelectorAll('.turn .text')].at(-1).textContent === text"
    await until(tab, shown, re.sub(r"[*`]", "", TEXT))  # what renders it may still be loading
    assert await tab.evaluate("() => window.bad") == []


async def test_ask_and_stop(engine: Engine) -> None:
    async with gateway(simulator := Simulator(token_rate=10, load_seconds=0, prompt_seconds=0)) as gw:
        tab = await visit(engine, gw.url)
        await ask(tab, "Go on")
        await until(tab, "() => document.querySelector('.phase').textContent.includes('tok/s')")
        await tab.press("Escape")
        await until(tab, STATUS, "cancelled")
        await simulator.until(lambda: simulator.running == 0)
        await until(tab, "() => document.activeElement.id === 'prompt'")
        assert await tab.evaluate("() => window.bad") == []


async def test_a_reload_in_the_middle(engine: Engine) -> None:
    async with serve(parrot := Parrot(TEXT, rate=40)) as ollama, gateway(ollama) as gw:
        tab = await visit(engine, gw.url)
        await ask(tab, "Go on")
        await until(tab, SHOWN, "word9")
        await tab.reload()
        await watch(tab)
        await complete(tab)
        assert len(parrot.bodies) == 1


async def test_a_cut_of_the_network(engine: Engine) -> None:
    async with serve(parrot := Parrot(TEXT, rate=40)) as ollama, gateway(ollama) as gw, cutting(gw.url) as proxy:
        tab = await visit(engine, proxy.url)
        await ask(tab, "Go on")
        for word in ("word5", "word20"):
            await until(tab, SHOWN, word)
            proxy.cut()
        await complete(tab)
        assert len(parrot.bodies) == 1


async def test_two_tabs_read_one_stream(engine: Engine) -> None:
    """The second follows the first, and goes on when that is closed."""
    async with serve(parrot := Parrot(TEXT, rate=40)) as ollama, gateway(ollama) as gw:
        reader = await visit(engine, gw.url)
        await ask(reader, "Go on")
        await until(reader, f"async () => (await ({KEPT})())?.url")
        follower = await visit(engine, gw.url + "/" + await reader.evaluate("() => location.hash"))
        await until(follower, SHOWN, "word9")
        await reader.close()
        await complete(follower)
        assert len(parrot.bodies) == 1


async def test_a_hostile_answer_is_text(engine: Engine) -> None:
    async with serve(Parrot(HOSTILE, piece=r"(?s).{1,40}")) as ollama, gateway(ollama) as gw:
        tab = await visit(engine, gw.url)
        await ask(tab, "Go on")
        await until(tab, STATUS, "done")
        await until(tab, "() => document.querySelectorAll('.text math').length === 3")
        await until(tab, "() => document.querySelectorAll('.text .code .keyword').length > 0")
        assert_harmless(await tab.evaluate(FOUND))
        assert await tab.evaluate("() => window.bad") == []


async def test_dialogs_and_a_phone(engine: Engine) -> None:
    """Each opens with the focus inside and shows what it has, and Escape closes it; nothing is wider than a phone."""
    async with serve(Parrot(TEXT)) as ollama, gateway(ollama) as gw:
        tab = await visit(engine, gw.url)
        await ask(tab, "Go on")
        await complete(tab)
        for opener, content in DIALOGS.items():
            await tab.evaluate("(opener) => document.querySelector(opener).click()", opener)
            await until(tab, "() => document.querySelector('dialog[open]')?.contains(document.activeElement)")
            await until(tab, SEEN, content)
            await tab.press("Escape")
            await until(tab, "() => !document.querySelector('dialog[open]')")
        await tab.resize(400, 800)
        await until(tab, "() => innerWidth < 760")
        await until(tab, "() => document.querySelector('#sidebar').offsetWidth === 0")
        assert await tab.evaluate(FITS)
        await tab.evaluate("() => document.querySelector('#toggle-sidebar').click()")
        await until(tab, "() => document.querySelector('#sidebar').offsetWidth > 200")
        assert await tab.evaluate("() => window.bad") == []
