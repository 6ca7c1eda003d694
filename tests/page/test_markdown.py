"""What people do with an answer: read it as it is meant, copy its parts, wrap its lines, follow its notes."""

import re

from playwright.async_api import expect

from tests.gateways import gateway
from tests.page.pages import Visits
from tests.page.parrot import Parrot
from tests.servers import serve


async def test_what_renders_answers_is_loaded_when_it_is_needed(visits: Visits) -> None:
    """Not for the empty page; mathematics and colours not for an answer without them."""
    parrot = Parrot("Only **text**.")
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        loaded = "performance.getEntriesByType('resource').map((entry) => entry.name.split('/').pop())"
        await expect(visit.page.locator("#welcome")).to_be_visible()
        assert {"markdown.js", "maths.js", "colours.js"}.isdisjoint(await visit.page.evaluate(loaded))
        await visit.ask("Text")
        await visit.answered()
        await expect(visit.text.locator("strong")).to_have_text("text")
        assert {"maths.js", "colours.js"}.isdisjoint(await visit.page.evaluate(loaded))
        parrot.pieces = ["So $x^2$:\n\n```js\nlet x;\n```\n"]
        await visit.ask("More")
        await visit.answered()
        await expect(visit.text.locator("math msup")).to_have_text("x2")
        await expect(visit.text.locator(".code .keyword")).to_have_text("let")


async def test_what_could_not_be_loaded_is_shown_as_written_and_later_as_meant(visits: Visits) -> None:
    """The gateway is away when mathematics and colours are needed: with the next text they are tried again."""
    parrot = Parrot("So $x^2$:\n\n$$\\frac{a}{b}$$\n\n```js\nlet x;\n```\n")
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, network_fails=True)
        modules = re.compile(r"/(maths|colours)\.js$")
        await visit.page.route(modules, lambda route: route.abort())
        await visit.ask("Formulas")
        await visit.answered()
        await expect(visit.page.locator(".math code")).to_have_text(["x^2", "\\frac{a}{b}"])
        await expect(visit.page.locator(".turn .code code")).to_have_text("let x;")
        await expect(visit.page.locator("math, .keyword")).to_have_count(0)
        await visit.page.unroute(modules)
        parrot.pieces = ["Only text."]
        await visit.ask("And?")
        await visit.answered()
        await expect(visit.page.locator("math")).to_have_count(2)
        await expect(visit.page.locator(".math code")).to_have_count(0)
        await expect(visit.page.locator(".code .keyword")).to_have_text("let")


async def test_parts_of_an_answer_are_copied_as_what_they_are(visits: Visits) -> None:
    """Code as text, a table as tab-separated values, formulas as LaTeX; a selection as well."""
    table = "| a | b |\n|---|---|\n| **1** | $x^2$ |\n| 2<br>3 | `c` |\n\n"
    text = table + "```py\nx = 1\n```\n\nSo $\\frac{a}{b}$ is\n\n$$c_1$$\n"
    async with serve(Parrot(text)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, permissions=["clipboard-read", "clipboard-write"])
        await visit.ask("Parts")
        await visit.answered()
        await expect(visit.text.locator("math")).to_have_count(3)
        await visit.text.locator(".table").hover()
        for place, expected in ((".table", "a\tb\n1\t$x^2$\n2 3\tc"), (".code", "x = 1")):
            await visit.text.locator(f"{place} [data-do=copy-block]").click()
            await expect(visit.text.locator(f"{place} use[href='#i-check']")).to_have_count(1)
            assert await visit.page.evaluate("navigator.clipboard.readText()") == expected
        copied = await visit.page.evaluate(
            """() => {
              const paragraphs = document.querySelectorAll(".text > p");
              getSelection().setBaseAndExtent(paragraphs[0], 0, document.querySelector(".math.block"), 1);
              const data = new DataTransfer();
              const about = { clipboardData: data, bubbles: true, cancelable: true };
              paragraphs[0].dispatchEvent(new ClipboardEvent("copy", about));
              return data.getData("text/plain");
            }"""
        )
        assert copied.split() == ["So", "$\\frac{a}{b}$", "is", "$$c_1$$"]


async def test_code_names_its_file_and_wraps_its_lines(visits: Visits) -> None:
    async with serve(Parrot(f'```python title="app.py"\n{"word " * 200}\n```\n')) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Long lines")
        await visit.answered()
        await expect(visit.text.locator(".code-head > span")).to_have_text("app.py python")
        scrolls = "(pre) => pre.scrollWidth > pre.clientWidth"
        assert await visit.text.locator("pre").evaluate(scrolls)
        await visit.text.get_by_role("button", name="Wrap lines").click()
        assert not await visit.text.locator("pre").evaluate(scrolls)


async def test_a_note_is_reached_from_its_mark(visits: Visits) -> None:
    async with serve(Parrot("Yes.[^a]\n\n- x\n\n[^a]: Because.\n")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Why?")
        await visit.answered()
        before = visit.page.url
        await visit.text.locator("button.note-mark").click()
        await expect(visit.text.locator(".note")).to_be_focused()
        assert visit.page.url == before  # the fragment names the chat


async def test_thoughts_in_tags_are_shown_as_thoughts_and_not_sent_back(visits: Visits) -> None:
    parrot = Parrot("<think>\nHm, **why**?\n</think>\n\nBecause.", piece=r"(?s).{1,3}", rate=25)
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Why?")
        assert (await visit.answered()).strip() == "Because."
        await expect(visit.text).to_have_text("Because.")
        await expect(visit.page.locator(".thoughts strong")).to_have_text("why")
        await visit.ask("And?")
        await visit.answered()
        assert [message["content"].strip() for message in parrot.bodies[-1]["messages"]] == ["Why?", "Because.", "And?"]


async def test_each_block_has_the_direction_of_its_script_and_room_for_its_numbers(visits: Visits) -> None:
    text = "Text\n\nهذه فقرة\n\n998. a\n999. b\n1000. c\n"
    async with serve(Parrot(text)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Directions")
        await visit.answered()
        directions = "(element) => getComputedStyle(element).direction"
        assert await visit.text.locator("p").first.evaluate(directions) == "ltr"
        assert await visit.text.locator("p").last.evaluate(directions) == "rtl"
        room = await visit.text.locator("ol").evaluate(
            "(list) => [parseFloat(getComputedStyle(list).paddingLeft), parseFloat(getComputedStyle(list).fontSize)]"
        )
        assert room[0] > 2.8 * room[1]
