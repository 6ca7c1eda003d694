"""Eyes and other senses: translators, right-to-left text, paper, screen readers; and lists that have become long."""

from dataclasses import replace
from typing import Any

from playwright.async_api import expect

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.pages import LONG, Visits
from tests.page.parrot import Parrot
from tests.servers import serve

KEY = "a-key-of-a-decent-length-0123456789"
TEXT = "\n\n".join(f"Paragraph {number} with **bold** and `code` in it.\n\n- one\n- two" for number in range(25))

TRANSLATOR = """() => {
  const translate = () => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const texts = [];
    while (walker.nextNode()) texts.push(walker.currentNode);
    for (const text of texts) {
      if (!text.data.trim() || text.parentElement.closest("font, script, textarea")) continue;
      const outer = document.createElement("font");
      const inner = document.createElement("font");
      inner.textContent = text.data.toUpperCase();
      outer.append(inner);
      text.replaceWith(outer);
    }
  };
  translate();
  window.translating = setInterval(translate, 100);
}"""
"""What Chromium's translator does to a page: each text becomes two `font` elements."""


async def test_a_translator_of_the_browser_breaks_nothing(visits: Visits) -> None:
    """While it streams, and in every other part of the page: no error, and the whole text in the end."""
    async with serve(parrot := Parrot(TEXT, rate=60)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.page.evaluate(TRANSLATOR)
        await visit.ask("Go on")
        await expect(visit.turns.last).to_have_attribute("data-status", "done", timeout=3 * LONG)
        await expect(visit.text.locator("li")).to_have_count(50)
        await expect(visit.text).to_contain_text("PARAGRAPH 24 WITH BOLD AND CODE IN IT.")
        await visit.page.evaluate("clearInterval(window.translating)")
        parrot.rate = 0
        await visit.ask("Again")
        assert await visit.answered() == TEXT
        await expect(visit.text.get_by_text("Paragraph 24 with bold and code in it.")).to_have_count(1)


async def test_one_part_that_fails_does_not_stop_the_others(visits: Visits) -> None:
    """Another program takes an element away: the rest of the page goes on, and the fault is on the console."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await expect(visit.page.locator("#model .name")).to_have_text("llama3.2:latest")
        await visit.page.evaluate("document.querySelector('#chat-title').remove()")
        await visit.prompt.fill("Hello")
        await visit.prompt.press("Enter")
        await expect(visit.page.locator(".chat .title")).to_have_text("Hello")
        await expect(visit.page).to_have_title("Hello · Gateway")
        assert visit.bad
        assert all("nothing matches #chat-title" in complaint for complaint in visit.bad)
        await visit.page.close()  # or the rest of the answer would complain again
        visit.bad.clear()


async def test_text_has_its_own_direction(visits: Visits) -> None:
    """A prompt, a title and each paragraph, list and table of an answer."""
    text = "مرحبا بالعالم\n\nHello\n\n- مرحبا\n\n> اقتباس"
    async with serve(Parrot(text)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("مرحبا")
        await visit.answered()
        for selector in (".asked .prompt", ".chat .title", ".turn .text p >> nth=0", ".turn .text li", "blockquote"):
            direction = await visit.page.locator(selector).first.evaluate("(e) => getComputedStyle(e).direction")
            assert direction == "rtl", selector
        english = visit.page.locator(".turn .text p", has_text="Hello")
        assert await english.evaluate("(e) => getComputedStyle(e).direction") == "ltr"
        await expect(visit.prompt).to_have_attribute("dir", "auto")


async def test_the_whole_chat_is_printed_and_nothing_else(visits: Visits) -> None:
    async with serve(parrot := Parrot(TEXT)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        await visit.answered()
        parrot.pieces = ["Short."]
        await visit.page.emulate_media(media="print")
        for selector in ("#sidebar", "#dock", "#page > header", ".tools"):
            await expect(visit.page.locator(selector).first).to_be_hidden()
        height = await visit.page.evaluate("document.documentElement.scrollHeight")
        assert height > 2_500
        assert height >= await visit.page.evaluate("document.querySelector('.turn .text').offsetHeight")


async def test_forced_colours_leave_every_control_visible(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, forced_colors="active")
        await visit.prompt.fill("Hello")
        for selector in ("#send", "#attach", "#settings", "#model"):
            width = await visit.page.locator(selector).evaluate("(e) => getComputedStyle(e).borderTopWidth")
            assert width != "0px", selector


HOLD_FRAMES = """() => {
  const held = [];
  const request = window.requestAnimationFrame;
  window.requestAnimationFrame = (frame) => held.push(frame);
  window.release = () => {
    window.requestAnimationFrame = request;
    held.forEach((frame) => request(frame));
  };
}"""
"""No frame before `release`, as on a machine that is busy."""


async def test_the_end_is_told_with_pauses_and_a_limit(visits: Visits) -> None:
    """Blocks do not run into each other, and nobody must listen to pages that cannot be stopped.

    The second answer begins and ends within one frame.
    """
    text = "# Title\n\nFirst\n\n- one\n  - two\n\n|a|b|\n|-|-|\n|c|$x$|"
    async with serve(parrot := Parrot(text)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        status = visit.page.get_by_role("status")
        await visit.ask("Hello")
        await expect(status).to_have_text("Response complete. Title. First. one. two. a. b. c. $x$.")
        parrot.pieces = [TEXT]
        await visit.page.evaluate(HOLD_FRAMES)
        await visit.prompt.fill("More")
        await visit.prompt.press("Enter")
        await visit.saved(lambda turns: len(turns) == 2 and turns[-1]["answers"][-1]["status"] == "done")
        await visit.page.evaluate("window.release()")
        await expect(status).to_contain_text("The rest is on the page.")
        assert len(await status.inner_text()) < 900
        await expect(visit.page.get_by_role("heading", level=1, name="Hello")).to_have_count(1)
        for landmark in ("banner", "main", "navigation"):
            await expect(visit.page.get_by_role(landmark)).to_have_count(1)


async def test_what_goes_on_out_of_sight_is_not_said_to_have_stopped(visits: Visits) -> None:
    """Who looks at another chat, and comes back, is told the end when it has come."""
    async with serve(Parrot("word " * 40, rate=10)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        status = visit.page.get_by_role("status")
        await visit.ask("Hello")
        await expect(visit.phase).to_contain_text("tok/s")
        await visit.page.evaluate(
            """() => {
              window.said = [];
              const status = document.querySelector("#status");
              new MutationObserver(() => window.said.push(status.textContent)).observe(status, { childList: true });
            }"""
        )
        await visit.new_chat()
        await visit.page.get_by_role("link", name="Hello").click()
        await visit.answered()
        await expect(status).to_contain_text("Response complete. word word")
        assert [text.split()[0] for text in await visit.page.evaluate("window.said")] == ["Generating…", "Response"]


async def test_the_key_can_be_given_later(visits: Visits) -> None:
    """The field has the focus, Enter sends, and who closed the dialog finds a way back to it."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama, api_keys=f"anna:{KEY}") as gw:
        visit = await visits.open(gw.url, network_fails=True)
        dialog = visit.page.get_by_role("dialog", name="This gateway requires a key")
        await expect(dialog.get_by_label("Key")).to_be_focused()
        await visit.page.keyboard.press("Escape")
        await visit.page.get_by_role("button", name="Enter key").click()
        await expect(dialog.get_by_label("Key")).to_be_focused()
        await visit.page.keyboard.type(KEY)
        await visit.page.keyboard.press("Enter")
        await expect(dialog).to_be_hidden()
        await visit.ask("Hello")
        await visit.answered()


async def test_many_models_are_filtered_by_typing(visits: Visits) -> None:
    """Also by what is typed before they have come."""
    simulator = Simulator()
    model = next(iter(simulator.models.values()))
    for number in range(80):
        simulator.models[f"extra-{number}:latest"] = replace(model, name=f"extra-{number}:latest")
    async with gateway(simulator) as gw:
        visit = await visits.open(gw.url)
        come = await visit.hold("**/api/models")
        await visit.page.reload()
        await visit.page.locator("#model").click()
        await visit.page.keyboard.type("a-7")
        come.set()
        visible = visit.page.locator("#models button:visible")
        await expect(visible).to_have_count(11)
        await visit.page.keyboard.type("9")
        await expect(visible).to_have_count(1)
        await visit.page.keyboard.press("ArrowDown")
        await visit.page.keyboard.press("Enter")
        await expect(visit.page.locator("#model .name")).to_have_text("extra-79:latest")


MANY: dict[str, Any] = {"chats": 1_000, "turns": 4}


async def test_the_search_leaves_the_page_free_among_a_thousand_chats(visits: Visits) -> None:
    """Typing a word searches once, and no task is long."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.page.evaluate(
            """async ({ chats, turns }) => {
              const { History } = await import("/static/js/history.js");
              const { newAnswer } = await import("/static/js/answer.js");
              const { newChat, newTurn, NO_SETTINGS } = await import("/static/js/state.js");
              const text = "some words of an answer ".repeat(80);
              const all = Array.from({ length: chats }, (_, n) => {
                const list = [];
                for (let i = 0; i < turns; i++) {
                  const answers = [{ ...newAnswer("m", {}, 0), status: "done", text: `${text} needle${n}` }];
                  list.push({ ...newTurn(`prompt ${i}`, [], [], list.at(-1)), answers });
                }
                return { chat: { ...newChat("m", NO_SETTINGS), title: `chat ${n}`, updated: n + 1 }, turns: list };
              });
              await new History().merge(all);
            }""",
            MANY,
        )
        await visit.page.reload()
        await expect(visit.page.locator(".chat")).to_have_count(MANY["chats"])
        await visit.page.evaluate(
            """() => {
              window.reads = 0;
              const transaction = IDBDatabase.prototype.transaction;
              IDBDatabase.prototype.transaction = function (...given) {
                window.reads++;
                return transaction.apply(this, given);
              };
            }"""
        )
        search = visit.page.get_by_role("searchbox", name="Search chats")
        await search.press_sequentially("needle777", delay=20)
        await expect(visit.page.locator(".chat .title")).to_have_text(["chat 777"])
        # each search reads in twenty transactions; one for each letter would be 180
        assert await visit.page.evaluate("window.reads") <= 60
