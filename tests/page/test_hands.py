"""Hands: trackpads, keyboards of any layout, input methods, clipboards, files, phones."""

import asyncio
import base64
import json
from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.pages import Visits
from tests.page.parrot import Parrot
from tests.page.test_conversation import PIXEL
from tests.servers import serve

LONG_TEXT = "\n\n".join(f"Paragraph {number} of a long answer." for number in range(150))

PASTE = """([text, name, type, base64]) => {
  const data = new DataTransfer();
  if (text) data.setData("text/plain", text);
  if (base64 !== null)
    data.items.add(new File([Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))], name, { type }));
  const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
  return document.querySelector("#prompt").dispatchEvent(event);
}"""
"""Whether the browser goes on with its own paste of the text."""


async def test_small_steps_of_a_trackpad_are_not_pulled_back(visits: Visits) -> None:
    """60 times 6 pixels upwards while text streams."""
    async with serve(Parrot(LONG_TEXT, rate=150)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        await expect(visit.text).to_contain_text("Paragraph 30")
        await visit.page.mouse.move(700, 400)
        place = "document.querySelector('#conversation').scrollTop"
        await visit.page.mouse.wheel(0, -6)
        await expect(visit.page.get_by_role("button", name="Jump to latest")).to_be_visible()
        before = await visit.page.evaluate(place)
        for _ in range(59):
            await visit.page.mouse.wheel(0, -6)
        await visit.page.wait_for_function(f"(before) => {place} <= before - 300", arg=before)
        after = await visit.page.evaluate(place)
        await expect(visit.text).to_contain_text("Paragraph 60")
        assert await visit.page.evaluate(place) == after
        await visit.page.mouse.wheel(0, 100_000)
        await visit.answered()
        await expect(visit.text.get_by_text("Paragraph 149")).to_be_in_viewport()


async def test_thoughts_can_be_read_again_while_they_stream(visits: Visits) -> None:
    """A small step up in their box is not pulled back, and does not let go of the conversation around it.

    The thoughts of another answer are followed again.
    """
    async with serve(parrot := Parrot("", rate=60)) as ollama, gateway(ollama) as gw:
        parrot.pieces = ["<think>", *(f"Thought {number}.\n\n" for number in range(3_000))]
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        thoughts = visit.page.locator(".thoughts")
        await expect(thoughts).to_contain_text("Thought 40.")
        await thoughts.hover()
        await visit.page.mouse.wheel(0, -6)
        left = "({ scrollTop, scrollHeight, clientHeight }) => scrollHeight - scrollTop - clientHeight"
        await visit.page.wait_for_function(f"() => ({left})(document.querySelector('.thoughts')) > 300")
        await expect(visit.page.get_by_role("button", name="Jump to latest")).to_be_hidden()
        await visit.page.mouse.wheel(0, 100_000)
        await visit.page.wait_for_function(f"() => ({left})(document.querySelector('.thoughts')) < 60")
        before = await thoughts.locator("p").count()
        await expect(thoughts).to_contain_text(f"Thought {before + 30}.")
        assert await thoughts.evaluate(left) < 60
        await visit.page.mouse.wheel(0, -6)
        await visit.page.get_by_role("button", name="Stop").click()
        await visit.page.get_by_role("button", name="Regenerate", exact=True).click()
        await expect(thoughts).to_contain_text("Thought 40.")
        assert await thoughts.evaluate(left) < 60


async def test_text_with_a_picture_of_itself_is_pasted_as_text(visits: Visits) -> None:
    """Excel and Word put both on the clipboard; a file manager gives a file and its name; a screenshot has no text."""
    pixel = base64.b64encode(PIXEL).decode()
    async with gateway(Simulator()) as gw:
        visit = await visits.open(gw.url)
        await visit.choose("gemma3:latest")
        assert await visit.page.evaluate(PASTE, ["1\t2", "image.png", "image/png", pixel])
        assert not await visit.page.evaluate(PASTE, ["", "image.png", "image/png", pixel])
        await expect(visit.page.locator("#thumbs img")).to_have_count(1)
        assert not await visit.page.evaluate(PASTE, ["/home/anna/photo.png", "photo.png", "image/png", pixel])
        await expect(visit.page.locator("#thumbs img")).to_have_count(2)
        assert await visit.page.evaluate(PASTE, ["only text", "", "", None])
        await expect(visit.page.locator("#thumbs img")).to_have_count(2)


async def test_text_files_go_with_the_prompt(visits: Visits) -> None:
    """Named, with their size, removable, counted in the context; what is neither text nor picture is refused."""
    async with serve(parrot := Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await expect(visit.page.locator("#model .name")).to_have_text("llama3.2:latest")
        files = {
            "notes.md": "# Grüße\r\n```\ncode\n```".encode(),
            "gone.txt": b"gone",
            "program.txt": b"\x7fELF\x00\x01\xff",
        }
        await visit.attach(files)
        await expect(visit.page.locator("#thumbs .file")).to_have_text(["notes.md 22 B", "gone.txt 4 B"])
        await expect(visit.toast).to_contain_text("program.txt is neither an image nor text")
        await expect(visit.page.locator("#gauge .text")).to_have_text("context 1%")
        large = {"large.txt": b"word " * 20_000}
        await visit.attach(large)
        await expect(visit.page.locator("#gauge .text")).to_have_text("context 19%")
        await visit.page.get_by_role("button", name="Remove this file").last.click()
        await expect(visit.page.locator("#gauge .text")).to_have_text("context 1%")
        await visit.page.get_by_role("button", name="Remove this file").last.click()
        await visit.ask("Read this")
        await visit.answered()
        content = "notes.md:\n````\n# Grüße\n```\ncode\n```\n````\n\nRead this"
        assert parrot.bodies[-1]["messages"] == [{"role": "user", "content": content}]
        await expect(visit.turns.locator(".file")).to_have_text("notes.md 22 B")
        await visit.page.reload()
        await expect(visit.turns.locator(".file")).to_have_text("notes.md 22 B")
        await visit.ask("And again")
        await visit.answered()
        assert parrot.bodies[-1]["messages"][0]["content"] == content


async def test_bytes_decide_what_a_file_is(visits: Visits) -> None:
    """A picture named as text, a text named as a picture; and a clear picture is white, not black, as JPEG."""
    async with gateway(simulator := Simulator(token_rate=400, load_seconds=0, prompt_seconds=0)) as gw:
        visit = await visits.open(gw.url)
        await visit.choose("gemma3:latest")
        files = {"picture.txt": PIXEL, "text.png": b"only text"}
        await visit.attach(files)
        await expect(visit.page.locator("#thumbs img")).to_have_count(1)
        await expect(visit.page.locator("#thumbs .file")).to_have_text("text.png 9 B")
        colour = await visit.page.evaluate(
            """async () => {
              const { readPicture } = await import("/static/js/files.js");
              const canvas = document.createElement("canvas");
              canvas.width = 3000;
              canvas.height = 10;
              const blob = await new Promise((resolve) => canvas.toBlob(resolve));
              const image = new Image();
              image.src = await readPicture(blob);
              await image.decode();
              const context = document.createElement("canvas").getContext("2d");
              context.drawImage(image, 0, 0);
              return [image.src.slice(0, 15), image.width, ...context.getImageData(0, 0, 1, 1).data];
            }"""
        )
        assert colour == ["data:image/jpeg", 2048, 255, 255, 255, 255]
        await visit.ask("What is this?")
        await visit.answered()
        assert json.loads(simulator.requests[-1].body)["messages"][0]["images"] == [base64.b64encode(PIXEL).decode()]


LAYOUTS = [
    ("Cyrillic", {"key": "Щ", "code": "KeyO", "shiftKey": True, "ctrlKey": True}, "mod shift o"),
    ("Greek", {"key": "κ", "code": "KeyK", "ctrlKey": True}, "mod k"),
    ("Russian comma", {"key": "б", "code": "Comma", "ctrlKey": True}, "mod ,"),
    ("German slash", {"key": "/", "code": "Digit7", "shiftKey": True}, "/"),
    ("German list", {"key": "/", "code": "Digit7", "shiftKey": True, "ctrlKey": True}, "mod /"),
    ("Dvorak", {"key": "o", "code": "KeyS", "ctrlKey": True, "shiftKey": True}, "mod shift o"),
    ("French", {"key": ",", "code": "KeyM", "ctrlKey": True}, "mod ,"),
]


@pytest.mark.parametrize(("key", "meaning"), [layout[1:] for layout in LAYOUTS], ids=[name for name, *_ in LAYOUTS])
async def test_shortcuts_work_on_any_layout(visits: Visits, key: dict[str, object], meaning: str) -> None:
    async with gateway(Simulator()) as gw:
        visit = await visits.open(gw.url)
        found = await visit.page.evaluate(
            """async (key) => (await import("/static/js/keys.js")).pressedKeys(new KeyboardEvent("keydown", key))""",
            key,
        )
        assert found == meaning


async def test_an_input_method_composes_in_every_field(visits: Visits) -> None:
    """Safari ends a composition before the Enter that chose the word, and tells by the key code alone."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("apples")
        await visit.answered()
        enter = """(selector) => document.querySelector(selector).dispatchEvent(
          new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true }))"""
        await visit.prompt.press("ArrowUp")
        await visit.page.locator(".editing textarea").fill("日本")
        assert await visit.page.evaluate(enter, ".editing textarea")
        await expect(visit.page.locator(".editing textarea")).to_have_value("日本")
        await visit.page.keyboard.press("Escape")
        await visit.page.locator(".chat").hover()
        await visit.page.get_by_role("button", name="Rename: apples").click()
        await visit.page.locator(".chat input").fill("日本")
        assert await visit.page.evaluate(enter, ".chat input")
        await expect(visit.page.locator(".chat input")).to_have_value("日本")
        await visit.page.keyboard.press("Enter")
        await expect(visit.page.locator(".chat .title")).to_have_text("日本")


async def test_enter_is_a_new_line_where_fingers_type(visits: Visits) -> None:
    """There is no Shift+Enter on a phone; the button sends."""
    async with serve(parrot := Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        await expect(visit.prompt).to_have_attribute("enterkeyhint", "enter")
        await visit.prompt.fill("  one")
        await visit.prompt.press("Enter")
        await visit.page.keyboard.type("two")
        await visit.page.get_by_role("button", name="Send").tap()
        await visit.answered()
        assert parrot.bodies[-1]["messages"][0]["content"] == "  one\ntwo"


async def test_a_prompt_that_is_edited_stays_in_view_beside_a_keyboard(visits: Visits) -> None:
    """On a phone it takes half of the page; and a message in passing hides nothing that is listed at the prompt."""
    async with serve(Parrot("Word.\n\n" * 12)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        await visit.ask("Hello")
        await visit.answered()
        await visit.page.get_by_role("button", name="Save this prompt").tap()
        await visit.prompt.fill("/")
        await expect(visit.page.get_by_role("option")).to_be_visible()
        await visit.page.wait_for_function(
            """() => document.querySelector(".toast").getBoundingClientRect().bottom
              <= document.querySelector("#composer").getBoundingClientRect().top"""
        )
        await visit.prompt.fill("")
        await visit.page.get_by_role("button", name="Edit and resend").tap()
        await visit.page.set_viewport_size({"width": 390, "height": 420})
        await visit.page.evaluate("() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")
        await expect(visit.page.locator(".editing textarea")).to_be_in_viewport()
        await visit.page.set_viewport_size({"width": 390, "height": 844})
        await visit.page.get_by_role("button", name="Cancel").tap()
        await expect(visit.page.get_by_role("button", name="Jump to latest")).to_be_hidden()


async def test_a_chat_is_saved_and_copied_as_markdown(visits: Visits) -> None:
    """With the names of what was attached."""
    async with serve(Parrot("**Yes.**")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, permissions=["clipboard-read", "clipboard-write"])
        save = visit.page.get_by_role("button", name="Save chat as Markdown")
        copy = visit.page.get_by_role("button", name="Copy chat as Markdown")
        await expect(save.or_(copy)).to_have_count(0)
        await visit.choose("gemma3:latest")
        files = {"photo.png": PIXEL, "notes.md": b"# Notes"}
        await visit.attach(files)
        await expect(visit.page.locator("#thumbs li")).to_have_count(2)
        await visit.ask("a/b: c?")
        await visit.answered()
        async with visit.page.expect_download() as download:
            await save.click()
        saved = await download.value
        assert saved.suggested_filename == "a b c.md"
        text = await asyncio.to_thread(Path(await saved.path()).read_text)
        attached = "*Image 1*\n\n*notes.md*"
        assert text == f"# a/b: c?\n\n## You\n\n{attached}\n\na/b: c?\n\n## gemma3:latest\n\n**Yes.**\n"
        await copy.click()
        await expect(visit.toast).to_contain_text("Copied")
        assert await visit.page.evaluate("navigator.clipboard.readText()") == text


async def test_the_page_can_be_installed(visits: Visits) -> None:
    """Chromium reads the manifest without a complaint, and every icon is a picture; the one of iOS must be a PNG."""
    async with gateway(Simulator()) as gw:
        visit = await visits.open(gw.url)
        client = await visit.page.context.new_cdp_session(visit.page)
        answer = await client.send("Page.getAppManifest")
        manifest = answer["manifest"]
        assert answer["errors"] == []
        assert (manifest["startUrl"], manifest["display"]) == (gw.url + "/", "kStandalone")
        links = "(links) => links.map(({ rel, href }) => [rel, href])"
        icons = dict(await visit.page.locator("link[rel~=icon], link[rel=apple-touch-icon]").evaluate_all(links))
        assert icons["apple-touch-icon"].endswith(".png")
        listed = [icon["url"] for icon in manifest["icons"]]
        assert set(listed) == set(icons.values())
        widths = """async (urls) => Promise.all(urls.map(async (url) => {
          const image = new Image();
          image.src = url;
          await image.decode();
          return image.naturalWidth;
        }))"""
        assert min(await visit.page.evaluate(widths, listed)) > 0


async def test_saved_prompts_come_back_by_a_slash(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.prompt.press("/")
        await expect(visit.page.get_by_role("listbox")).to_contain_text("No saved prompts yet")
        await visit.prompt.fill("")
        for prompt in ("Translate into French:\n", "Explain like I am five:"):
            await visit.ask(prompt + "x")
            await visit.answered()
            await visit.turns.last.hover()
            await visit.turns.last.get_by_role("button", name="Save this prompt").click()
        await visit.page.reload()
        await visit.prompt.press("/")
        options = visit.page.get_by_role("option")
        await expect(options).to_have_text(["Explain like I am five:x", "Translate into French:"])
        await visit.page.keyboard.type("fren")
        await expect(options).to_have_count(1)
        await visit.page.keyboard.press("Enter")
        await expect(visit.prompt).to_have_value("Translate into French:\nx")
        await visit.prompt.fill("/")
        await visit.page.keyboard.press("ArrowDown")
        await expect(options.last).to_have_attribute("aria-selected", "true")
        await options.last.get_by_role("button").click()
        await expect(options).to_have_count(1)
        await visit.page.keyboard.press("Escape")
        await expect(options).to_have_count(0)
        await expect(visit.prompt).to_have_value("/")
