"""What makes it pleasant, or usable at all: keyboard, screen reader, language, phone, LAN."""

import re
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from pathlib import Path

from playwright.async_api import ConsoleMessage, Page, expect

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.cutting import cutting
from tests.page.pages import LONG, Visits
from tests.page.parrot import Parrot
from tests.servers import serve

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
KEY = "a-key-of-a-decent-length-0123456789"
LONG_TEXT = "\n\n".join(f"Paragraph {number} of a long answer." for number in range(120))


async def violations(page: Page) -> list[str]:
    """What axe-core finds wrong and calls serious or critical."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{violation['id']}: {node['html']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


async def test_axe_finds_nothing_serious(visits: Visits) -> None:
    """On every screen and dialog, light and dark, desktop and phone."""
    text = "# T\n\n[link](https://example.org) `code`\n\n> quote\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nx\n```"
    async with serve(Parrot(text)) as ollama, gateway(ollama, allow_pull=True) as gw:
        for scheme in ("light", "dark"):
            phone = scheme == "dark"
            size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 800}
            visit = await visits.open(gw.url, color_scheme=scheme, viewport=size, reduced_motion="reduce")
            await expect(visit.page.locator("#welcome")).to_be_visible()
            assert await violations(visit.page) == []
            await visit.ask("Hello")
            await visit.answered()
            assert await violations(visit.page) == []
            await visit.page.locator(".turn").hover()
            for opener in ("#model", "#settings", "[data-do=code]"):
                await visit.page.locator(opener).first.click()
                await expect(visit.page.locator("dialog[open]")).to_be_visible()
                assert await violations(visit.page) == []
                await visit.page.keyboard.press("Escape")
            if phone:
                await visit.page.get_by_role("button", name="Chats", exact=True).click()
            await visit.page.get_by_role("button", name="Shortcuts").click()
            assert await violations(visit.page) == []


async def test_axe_finds_nothing_serious_when_things_go_wrong(visits: Visits) -> None:
    simulator = Simulator(list_faults=True, token_rate=100)
    async with serve(simulator.app) as ollama, cutting(ollama) as proxy, gateway(proxy.url) as gw:
        visit = await visits.open(gw.url, network_fails=True, reduced_motion="reduce")
        await visit.choose("fault:crash")
        await visit.ask("Hello")
        await expect(visit.page.locator(".failure")).to_be_visible()
        await visit.page.locator(".turn").hover()
        assert await violations(visit.page) == []
        proxy.refusing = True
        proxy.cut()
        gw.state["streams"].upstreams.answers.forget()  # which are kept for a second
        await visit.page.keyboard.press("Control+Shift+O")
        await visit.page.keyboard.press("Control+Shift+M")
        await visit.page.keyboard.press("Escape")
        await expect(visit.page.locator("#welcome")).to_contain_text("Ollama is not reachable")
        assert await violations(visit.page) == []


async def test_the_keyboard_alone_suffices(visits: Visits) -> None:
    """Ask, stop, answer again, edit, switch chats, choose a model, settings: without a mouse."""
    async with gateway(Simulator(token_rate=30, load_seconds=0, prompt_seconds=0)) as gw:
        visit = await visits.open(gw.url)
        keyboard = visit.page.keyboard
        await expect(visit.prompt).to_be_focused()
        await expect(visit.page.locator("#model")).to_contain_text("llama3.2")
        await keyboard.type("first line")
        await keyboard.press("Shift+Enter")
        await keyboard.type("second line")
        await keyboard.press("Enter")
        await expect(visit.page.locator(".asked .prompt")).to_have_text("first line\nsecond line", use_inner_text=True)
        await expect(visit.phase).to_contain_text("tok/s")
        await keyboard.press("Escape")
        await expect(visit.turns.last).to_have_attribute("data-status", "cancelled")
        await keyboard.press("ArrowUp")
        await expect(visit.page.locator(".editing textarea")).to_be_focused()
        await keyboard.press("Control+A")
        await keyboard.type("edited")
        await keyboard.press("Enter")
        await expect(visit.page.locator(".asked .prompt")).to_have_text("edited")
        await visit.answered()
        await keyboard.press("Control+Shift+O")
        await expect(visit.turns).to_have_count(0)
        await expect(visit.prompt).to_be_focused()
        await keyboard.press("Control+Shift+M")
        await keyboard.press("ArrowDown")
        await keyboard.press("Enter")
        await expect(visit.page.locator("#model")).to_have_text("qwen3:latest")
        await keyboard.press("Control+Comma")
        await expect(visit.page.locator("#settings-dialog")).to_be_visible()
        await keyboard.press("Escape")
        await visit.prompt.focus()
        await keyboard.type("another")
        await keyboard.press("Enter")
        await expect(visit.page.locator(".chat")).to_have_count(2)
        await keyboard.press("Alt+ArrowDown")
        await expect(visit.page.locator(".asked .prompt")).to_have_text("edited")
        await keyboard.press("Control+K")
        await expect(visit.page.get_by_role("searchbox")).to_be_focused()
        await keyboard.press("Control+Slash")
        await expect(visit.page.locator("#shortcut-list")).to_contain_text("Stop the answer")


async def test_everything_can_be_reached_with_tab(visits: Visits) -> None:
    """No control is left out, and the focus can be seen on each."""
    async with serve(Parrot("```py\nx\n```")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Hello")
        await visit.answered()
        await visit.page.evaluate("document.activeElement.blur()")
        reached = set()
        for _ in range(45):
            await visit.page.keyboard.press("Tab")
            name, outlined = await visit.page.evaluate(
                """() => {
                  const element = document.activeElement;
                  const style = getComputedStyle(element);
                  const bordered = element.id === "prompt";
                  const name = element.getAttribute("aria-label") || element.textContent.trim() || element.id;
                  return [name, bordered || element === document.body || style.outlineStyle !== "none"];
                }"""
            )
            assert outlined, name
            reached.add(name)
        wanted = {
            *("New chat", "Search chats", "Hello", "Rename: Hello", "Delete: Hello", "Export", "Import", "Shortcuts"),
            *("Chats", "Model: llama3.2:latest", "Settings", "Edit and resend", "Delete this exchange", "Copy"),
            *("Copy answer as Markdown", "Regenerate", "Regenerate with another model", "Copy as code"),
            *("Ask anything", "Add images or text files"),
        }
        assert wanted <= reached


async def test_a_screen_reader_is_told_the_beginning_and_the_whole_end(visits: Visits) -> None:
    """Tokens are in no live region."""
    async with serve(Parrot("One **two** three.", rate=8)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        status = visit.page.get_by_role("status")
        await visit.ask("Hello")
        await expect(status).to_have_text("Generating…")
        await expect(visit.text).to_contain_text("One")
        assert await visit.page.locator("[aria-live] .text, [role=log] .text, [role=status] .text").count() == 0
        await expect(status).to_have_text("Response complete. One two three.")
        await expect(visit.prompt).to_be_focused()


async def test_enter_that_ends_a_composition_does_not_send(visits: Visits) -> None:
    """As typed with an input method: the composition is real, through the browser's own protocol."""
    async with serve(Parrot("はい。")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, locale="ja-JP")
        await expect(visit.prompt).to_have_attribute("placeholder", "質問を入力")
        client = await visit.page.context.new_cdp_session(visit.page)
        await visit.prompt.focus()
        await client.send("Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3})
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
        await client.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})
        await client.send("Input.insertText", {"text": "日本"})
        await expect(visit.prompt).to_have_value("日本")
        await expect(visit.page.locator("#send")).to_be_enabled()
        await expect(visit.turns).to_have_count(0)
        await visit.prompt.press("Enter")
        await expect(visit.turns).to_have_count(1)
        await visit.answered()
        await expect(visit.page.locator("html")).to_have_attribute("lang", "ja")
        await expect(visit.figures).to_contain_text("トークン")


async def test_scrolling_back_is_not_fought(visits: Visits) -> None:
    """While it streams the reader stays where they are; a pill leads to the end, and there it follows again."""
    async with serve(Parrot(LONG_TEXT, rate=120)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        latest = visit.page.get_by_role("button", name="Jump to latest")
        await expect(visit.text).to_contain_text("Paragraph 25")
        await expect(visit.text.get_by_text("Paragraph 25 of")).to_be_in_viewport()
        await expect(latest).to_be_hidden()
        await visit.page.mouse.move(700, 400)
        await visit.page.mouse.wheel(0, -600)
        await expect(latest).to_be_visible()
        place = "document.querySelector('#conversation').scrollTop"
        before = await visit.page.evaluate(place)
        await expect(visit.text).to_contain_text("Paragraph 50")
        assert await visit.page.evaluate(place) == before
        await latest.click()
        await expect(latest).to_be_hidden()
        await visit.answered()
        await expect(visit.text.get_by_text("Paragraph 119")).to_be_in_viewport()


async def test_on_a_phone_the_list_covers_the_page_and_gives_way(visits: Visits) -> None:
    async with serve(Parrot("| a | b |\n|---|---|\n| 1 | 2 |")) as ollama, gateway(ollama) as gw:
        phone = {"width": 390, "height": 844}
        visit = await visits.open(gw.url, viewport=phone, has_touch=True, is_mobile=True)
        await expect(visit.page.locator("#sidebar")).to_be_hidden()
        await visit.ask("Hello")
        await visit.answered()
        for region in ("html", "#page", "#conversation"):
            assert await visit.page.locator(region).evaluate("(element) => element.scrollWidth <= innerWidth")
        await visit.page.get_by_role("button", name="Chats", exact=True).tap()
        await expect(visit.page.locator("#sidebar")).to_be_visible()
        await visit.page.get_by_role("link", name="Hello").tap()
        await expect(visit.page.locator("#sidebar")).to_be_hidden()


async def test_a_lan_over_plain_http_works(visits: Visits) -> None:
    """No secure context there: no clipboard, no randomUUID."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url.replace("127.0.0.1", "192.0.2.1"))
        assert await visit.page.evaluate("[isSecureContext, 'clipboard' in navigator]") == [False, False]
        await visit.ask("Hello")
        assert await visit.answered() == "Yes."
        await visit.page.get_by_role("button", name="Copy answer as Markdown").click()
        await expect(visit.page.get_by_role("status")).to_have_text("Copied")
        await visit.page.get_by_role("button", name="Copy as code").click()
        await visit.page.locator("#copy-code").click()
        await expect(visit.page.locator("#copy-code")).to_have_text("Copied")
        await visit.page.keyboard.press("Escape")
        await visit.prompt.press("Control+V")
        await expect(visit.prompt).to_have_value(re.compile(r"new EventSource\(`http://192\.0\.2\.1:\d+/api/chat"))


async def test_the_theme_follows_the_system_and_can_be_set(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, color_scheme="dark")
        background = "getComputedStyle(document.body).backgroundColor"
        assert await visit.page.evaluate(background) == "rgb(23, 23, 21)"
        await visit.page.get_by_role("button", name="Theme: auto").click()
        await expect(visit.page.get_by_role("button", name="Theme: light")).to_be_visible()
        assert await visit.page.evaluate(background) == "rgb(251, 250, 248)"
        await visit.page.reload()
        assert await visit.page.evaluate(background) == "rgb(251, 250, 248)"


async def test_what_is_typed_survives_a_look_at_another_chat(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Hello")
        await visit.answered()
        await visit.prompt.fill("half a thought")
        await visit.page.get_by_role("button", name="New chat").click()
        await expect(visit.prompt).to_have_value("")
        await visit.page.get_by_role("link", name="Hello").click()
        await expect(visit.prompt).to_have_value("half a thought")


async def test_what_is_typed_right_after_a_new_chat_is_kept(visits: Visits) -> None:
    """On a slow machine that is before the page shows the new chat."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("First")
        await visit.answered()
        value = await visit.page.evaluate(
            """async () => {
              document.querySelector("#new-chat").click();
              document.execCommand("insertText", false, "early words");
              await new Promise((shown) => requestAnimationFrame(() => requestAnimationFrame(shown)));
              return document.querySelector("#prompt").value;
            }"""
        )
        assert value == "early words"


async def test_what_is_typed_while_the_page_starts_is_kept(visits: Visits) -> None:
    """On a slow connection the prompt can be typed before the scripts are there; with a chat's address, into it."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        arrived = await visit.hold("**/js/main.js")
        for turns, prompt in enumerate(["first words", "more words"], start=1):
            arrived.clear()
            await visit.page.reload(wait_until="commit")
            await visit.prompt.fill(prompt)
            arrived.set()
            await expect(visit.page.locator("#send")).to_be_enabled()
            await visit.prompt.press("Enter")
            await visit.answered()
            await expect(visit.turns).to_have_count(turns)
            await expect(visit.page.locator(".asked .prompt").last).to_have_text(prompt)


async def test_the_code_of_an_exchange_runs_as_it_is(visits: Visits) -> None:
    """Python as a program, EventSource and fetch in this very page: they print the answer."""
    async with serve(Parrot("Forty-two.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask('It\'s <b>"what"</b>?\n`x`')
        await visit.answered()
        await visit.page.get_by_role("button", name="Copy as code").click()
        await visit.page.get_by_role("tab", name="Python").click()
        code = await visit.page.locator("#code-panel code").inner_text()
        python = await create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)
        assert (await python.communicate())[0] == b"Forty-two."
        for kind in ("EventSource", "fetch"):
            await visit.page.get_by_role("tab", name=kind).click()
            code = await visit.page.locator("#code-panel code").inner_text()
            printed: list[str] = []

            def note(message: ConsoleMessage, printed: list[str] = printed) -> None:
                printed.append(message.text)

            visit.page.on("console", note)
            client = await visit.page.context.new_cdp_session(visit.page)
            await client.send("Runtime.evaluate", {"expression": f"(async () => {{ {code} }})()", "awaitPromise": True})
            for _ in range(LONG // 50):
                if "".join(printed).startswith("Forty-two."):
                    break
                await visit.page.wait_for_timeout(50)
            assert "".join(printed).startswith("Forty-two.")


async def test_a_key_is_asked_for_once(visits: Visits) -> None:
    """Not again and again when the person has none; a wrong one is said to be wrong; a reload needs none."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama, api_keys=f"anna:{KEY}") as gw:
        visit = await visits.open(gw.url, network_fails=True)
        dialog = visit.page.get_by_role("dialog", name="This gateway requires a key")
        await dialog.get_by_role("button", name="Close").click()
        await expect(visit.page.locator("#welcome")).to_contain_text("The gateway requires a key.")
        await visit.page.keyboard.press("Control+Shift+M")
        await dialog.get_by_label("Key").fill("wrong")
        await visit.page.keyboard.press("Enter")
        await expect(dialog.get_by_role("alert")).to_have_text("This key was not accepted.")
        await dialog.get_by_label("Key").fill(KEY)
        await visit.page.keyboard.press("Enter")
        await expect(dialog).to_be_hidden()
        await visit.page.keyboard.press("Escape")
        await visit.ask("Hello")
        await visit.answered()
        await visit.page.reload()
        await expect(visit.page.locator("#model")).to_contain_text("llama3.2")
        await visit.ask("Again")
        await visit.answered()


async def test_a_key_is_asked_for_again_when_the_session_has_ended(visits: Visits) -> None:
    """In the middle of a chat, by a logout in another browser; what was asked is answered then."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama, api_keys=f"anna:{KEY}") as gw:
        visit = await visits.open(gw.url, network_fails=True)
        key = visit.page.get_by_role("dialog", name="This gateway requires a key").get_by_label("Key")
        await key.fill(KEY)
        await visit.page.keyboard.press("Enter")
        await visit.ask("Hello")
        await visit.answered()
        gw.state["keys"].end_sessions("anna")
        await visit.ask("Again")
        await key.fill(KEY)
        await visit.page.keyboard.press("Enter")
        await visit.answered()
