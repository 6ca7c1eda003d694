"""A conversation as a person has it: ask, read, ask again."""

import base64
import re
from pathlib import Path
from typing import Any

from playwright.async_api import Request, Route, expect

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.pages import Visits
from tests.page.parrot import Parrot
from tests.servers import serve

FAST: dict[str, Any] = {"token_rate": 400, "load_seconds": 0, "prompt_seconds": 0}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def test_an_answer_streams_as_markdown(visits: Visits) -> None:
    """Text is there before the answer ends, and every construct is an element in the end."""
    text = (
        "# Title\n\nSome **bold** and `code`.\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nx = 1\n```\n"
    )
    async with serve(Parrot(text, rate=15)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Hello **you**")
        await expect(visit.page.locator(".asked .prompt")).to_have_text("Hello **you**")
        await expect(visit.text.locator("h1")).to_have_text("Title")
        await expect(visit.turns.last).to_have_attribute("data-status", "streaming")
        assert await visit.answered() == text
        await expect(visit.text.locator("strong")).to_have_text("bold")
        await expect(visit.text.locator("li")).to_have_count(2)
        await expect(visit.text.locator("tbody td")).to_have_text(["1", "2"])
        await expect(visit.text.locator(".code")).to_contain_text("x = 1")
        await expect(visit.page).to_have_title("Hello **you** · Gateway")


async def test_code_is_copied(visits: Visits) -> None:
    """The button of a code block copies the block, that of the answer its Markdown."""
    text = "Look:\n\n```py\nx = 1\n\ny = 2\n```"
    async with serve(Parrot(text)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, permissions=["clipboard-read", "clipboard-write"])
        await visit.ask("Code")
        await visit.answered()
        await visit.text.get_by_role("button", name="Copy").click()
        await expect(visit.page.get_by_role("status")).to_have_text("Copied")
        assert await visit.page.evaluate("navigator.clipboard.readText()") == "x = 1\n\ny = 2"
        await visit.page.get_by_role("button", name="Copy answer as Markdown").click()
        await visit.page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('Look:')")


async def test_thinking_opens_while_it_thinks_and_closes_at_the_answer(visits: Visits) -> None:
    # slow: the wait for an attribute looks only once a second
    async with gateway(Simulator(token_rate=25, load_seconds=0, prompt_seconds=0)) as gw:
        visit = await visits.open(gw.url)
        await visit.choose("qwen3:latest")
        await visit.ask("Why?")
        thinking = visit.page.locator(".thinking")
        await expect(thinking).to_have_attribute("open", "")
        await expect(thinking.locator("summary")).to_have_text("Thinking…")
        await visit.answered()
        await expect(thinking).not_to_have_attribute("open", "")
        await expect(thinking.locator("summary")).to_have_text(re.compile(r"Thought for [\d.]+ m?s"))
        await thinking.locator("summary").click()
        await expect(thinking.locator(".thoughts")).to_contain_text("The user says")


async def test_tool_calls_are_shown(visits: Visits) -> None:
    """With a preset that brings tools; here the request is given them on its way out."""
    async with gateway(Simulator(**FAST)) as gw:
        visit = await visits.open(gw.url)

        async def with_tools(route: Route, request: Request) -> None:
            body: Any = request.post_data_json
            tool = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
            body["chat"]["tools"] = [{"type": "function", "function": tool}]
            await route.continue_(post_data=body)

        await visit.page.route("**/api/streams", with_tools)
        await visit.ask("What is the weather in Toronto?")
        await visit.answered()
        await expect(visit.page.locator(".calls li")).to_contain_text("get_weather")
        await expect(visit.page.locator(".calls pre")).to_contain_text('"city"')


async def test_answer_again_keeps_the_earlier_answer(visits: Visits) -> None:
    """Also with another model; one can go back and forth."""
    async with gateway(Simulator(**FAST)) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Tell me something")
        await visit.answered()
        await visit.page.get_by_role("button", name="Regenerate", exact=True).click()
        await expect(visit.page.locator(".variants span")).to_have_text("2/2")
        await visit.page.get_by_role("button", name="Regenerate with another model").click()
        await visit.page.locator("#models [data-model='gemma3:latest']").click()
        await expect(visit.page.locator(".variants span")).to_have_text("3/3")
        await expect(visit.figures).to_contain_text("gemma3")
        await expect(visit.page.locator("#model")).to_contain_text("llama3.2")
        await visit.page.get_by_role("button", name="Previous answer").click()
        await expect(visit.page.locator(".variants span")).to_have_text("2/3")
        await expect(visit.figures).to_contain_text("llama3.2")


async def test_an_edited_prompt_stands_beside_the_old_one(visits: Visits) -> None:
    """With its own continuation and title; the old one and what followed it are a click away, also after a reload."""
    async with serve(parrot := Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        prompts = visit.page.locator(".asked .prompt")
        for prompt in ("first", "second"):
            await visit.ask(prompt)
            await visit.answered()
        await visit.turns.first.hover()
        await visit.turns.first.get_by_role("button", name="Edit and resend").click()
        await visit.page.locator(".editing textarea").fill("changed")
        await visit.page.keyboard.press("Enter")
        await expect(prompts).to_have_text(["changed"])
        await visit.answered()
        await expect(visit.page.locator(".chat .title")).to_have_text("changed")
        await visit.ask("third")
        await visit.answered()
        assert [message["content"] for message in parrot.bodies[-1]["messages"]] == ["changed", "Yes.", "third"]
        await expect(visit.page.locator(".versions:visible span")).to_have_text("2/2")
        await visit.page.get_by_role("button", name="Previous version of this prompt").click()
        await expect(prompts).to_have_text(["first", "second"])
        await visit.saved(lambda turns: len(turns) == 4)
        await visit.page.reload()
        await expect(prompts).to_have_text(["first", "second"])
        await visit.page.get_by_role("button", name="Next version of this prompt").click()
        await expect(prompts).to_have_text(["changed", "third"])
        await visit.ask("fourth")
        await visit.answered()
        asked = [message["content"] for message in parrot.bodies[-1]["messages"]]
        assert asked == ["changed", "Yes.", "third", "Yes.", "fourth"]


async def test_a_turn_is_deleted_and_brought_back(visits: Visits) -> None:
    async with serve(parrot := Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        for prompt in ("first", "second"):
            await visit.ask(prompt)
            await visit.answered()
        await visit.turns.first.hover()
        await visit.turns.first.get_by_role("button", name="Delete this exchange").click()
        await expect(visit.turns).to_have_count(1)
        await visit.ask("third")
        await visit.answered()
        assert [message["content"] for message in parrot.bodies[-1]["messages"]] == ["second", "Yes.", "third"]
        await visit.turns.last.hover()
        await visit.turns.last.get_by_role("button", name="Delete this exchange").click()
        await visit.toast.get_by_role("button", name="Undo").click()
        await expect(visit.page.locator(".asked .prompt")).to_have_text(["second", "third"])


async def test_images_go_to_a_model_that_sees(visits: Visits) -> None:
    """By picker, paste and drop; another model says who could see them."""
    async with gateway(simulator := Simulator(**FAST)) as gw:
        visit = await visits.open(gw.url)
        await expect(visit.page.locator("#model .name")).to_have_text("llama3.2:latest")
        picture = {"a.png": PIXEL}
        await visit.attach(picture)
        await expect(visit.toast).to_contain_text("llama3.2:latest cannot see images")
        await visit.choose("gemma3:latest")
        await visit.attach(picture)
        await expect(visit.page.locator("#thumbs img")).to_have_count(1)
        event = """(kind) => {
          const data = new DataTransfer();
          const bytes = Uint8Array.from(atob("%s"), (char) => char.charCodeAt(0));
          data.items.add(new File([bytes], "b.png", { type: "image/png" }));
          const target = document.querySelector("#prompt");
          target.dispatchEvent(kind === "paste"
            ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
            : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }"""
        for count, kind in enumerate(("paste", "drop"), start=2):
            await visit.page.evaluate(event % base64.b64encode(PIXEL).decode(), kind)
            await expect(visit.page.locator("#thumbs img")).to_have_count(count)
        await visit.page.get_by_role("button", name="Remove this image").first.click()
        await visit.ask("What is this?")
        await visit.answered()
        await expect(visit.page.locator(".asked .images img")).to_have_count(2)
        body = simulator.requests[-1].body
        assert body.count(base64.b64encode(PIXEL)) == 2


async def test_settings_shape_the_request(visits: Visits) -> None:
    """Only what was set is sent; new chats begin with it when the person wants that."""
    async with serve(parrot := Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.page.get_by_role("button", name="Settings").click()
        await visit.page.get_by_label("System prompt").fill("Be brief.")
        await visit.page.get_by_label("Temperature").fill("0.3")
        await visit.page.get_by_label("Seed").fill("7")
        await visit.page.get_by_role("button", name="Use for new chats").click()
        await visit.page.get_by_role("button", name="Done").click()
        await visit.ask("Hello")
        await visit.answered()
        assert parrot.bodies[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
        assert parrot.bodies[-1]["options"] == {"temperature": 0.3, "seed": 7}
        await visit.page.reload()
        await visit.new_chat()
        await visit.ask("Hello")
        await visit.answered()
        assert parrot.bodies[-1]["messages"][0] == {"role": "system", "content": "Be brief."}


async def test_a_preset_and_its_variables(visits: Visits, tmp_path: Path) -> None:
    """What the preset does not leave to the client cannot be set, and is not sent; its variables are."""
    config = tmp_path / "gateway.toml"
    config.write_text(
        """[presets.pirate]
        description = "Talks like one"
        system = "You are {name}."
        options = { temperature = 0.9 }
        variables = { name = "Anne" }
        overrides = ["model", "options.seed"]
        """
    )
    async with serve(parrot := Parrot("Arr.")) as ollama, gateway(ollama, config=str(config)) as gw:
        visit = await visits.open(gw.url)
        await visit.page.get_by_role("button", name="Settings").click()
        await visit.page.get_by_label("System prompt").fill("Be brief.")
        await visit.page.get_by_label("Seed").fill("7")
        await visit.page.get_by_label("Preset").select_option("pirate")
        await expect(visit.page.locator(".preset-field .about")).to_have_text("Talks like one")
        await expect(visit.page.get_by_label("System prompt")).to_be_disabled()
        await expect(visit.page.get_by_label("Temperature")).to_be_disabled()
        await expect(visit.page.get_by_label("Temperature")).to_have_attribute("placeholder", "Set by the preset")
        await visit.page.get_by_label("name", exact=True).fill("Mary")
        await visit.page.get_by_label("Preset").select_option("")
        await expect(visit.page.get_by_label("Temperature")).to_have_attribute("placeholder", "Model default")
        await visit.page.get_by_label("Preset").select_option("pirate")
        await expect(visit.page.get_by_label("name", exact=True)).to_have_value("Mary")
        await visit.page.get_by_role("button", name="Done").click()
        await visit.ask("Hello")
        await visit.answered()
        assert parrot.bodies[-1]["messages"][0] == {"role": "system", "content": "You are Mary."}
        assert parrot.bodies[-1]["options"] == {"temperature": 0.9, "seed": 7}


async def test_settings_opened_before_the_server_has_answered(visits: Visits, tmp_path: Path) -> None:
    """The presets come to the open panel; a field changed before that keeps the preset and its variables."""
    config = tmp_path / "gateway.toml"
    config.write_text(
        """[presets.pirate]
        system = "You are {name}."
        variables = { name = "Anne" }
        overrides = ["options.seed"]
        """
    )
    async with serve(parrot := Parrot("Arr.")) as ollama, gateway(ollama, config=str(config)) as gw:
        visit = await visits.open(gw.url)
        answered = await visit.hold("**/api/presets")
        await visit.page.reload()
        await visit.page.get_by_role("button", name="Settings").click()
        preset, name = visit.page.get_by_label("Preset"), visit.page.get_by_label("name", exact=True)
        await expect(preset).to_be_hidden()
        answered.set()
        await preset.select_option("pirate")
        await name.fill("Mary")
        await visit.page.get_by_role("button", name="Done").click()
        await visit.ask("Hello")
        await visit.answered()
        answered.clear()
        await visit.page.reload()
        await visit.page.get_by_role("button", name="Settings").click()
        await expect(preset).to_have_value("pirate")
        await expect(name).to_be_hidden()
        await visit.page.get_by_label("Seed").fill("7")
        answered.set()
        await expect(name).to_have_value("Mary")
        await visit.page.get_by_role("button", name="Done").click()
        await visit.ask("Again")
        await visit.answered()
        assert parrot.bodies[-1]["messages"][0] == {"role": "system", "content": "You are Mary."}
        assert parrot.bodies[-1]["options"] == {"seed": 7}


async def test_variables_of_a_preset_that_was_not_chosen(visits: Visits, tmp_path: Path) -> None:
    """Where presets must be used, the first is in force; what is typed for it is kept from the first character."""
    config = tmp_path / "gateway.toml"
    config.write_text(
        """presets_only = true
        [presets.pirate]
        system = "You are {name}."
        variables = { name = "Anne" }
        """
    )
    async with serve(parrot := Parrot("Arr.")) as ollama, gateway(ollama, config=str(config)) as gw:
        visit = await visits.open(gw.url)
        await visit.page.get_by_role("button", name="Settings").click()
        await visit.page.get_by_label("name", exact=True).press_sequentially("Mary")
        await visit.page.get_by_role("button", name="Done").click()
        await visit.ask("Hello")
        await visit.answered()
        assert parrot.bodies[-1]["messages"][0] == {"role": "system", "content": "You are Mary."}


async def test_back_while_the_settings_are_open(visits: Visits) -> None:
    """The panel shows the chat that is open now: a change goes to it, and nothing of the other one with it."""
    async with serve(parrot := Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("First")
        await visit.answered()
        await visit.new_chat()
        await visit.ask("Second")
        await visit.answered()
        await visit.page.get_by_role("button", name="Settings").click()
        await visit.page.get_by_label("System prompt").fill("Be brief.")
        await visit.page.go_back()
        await visit.page.go_back()
        await expect(visit.page.locator(".asked .prompt")).to_have_text("First")
        await expect(visit.page.get_by_label("System prompt")).to_have_value("")
        await visit.page.get_by_label("Seed").fill("7")
        await visit.page.get_by_role("button", name="Done").click()
        await visit.ask("Third")
        await visit.answered()
        assert [message["content"] for message in parrot.bodies[-1]["messages"]] == ["First", "Yes.", "Third"]
        assert parrot.bodies[-1]["options"] == {"seed": 7}


async def test_images_added_before_the_models_are_known(visits: Visits) -> None:
    """They wait for the model as the prompt does; one that cannot see them says so then."""
    async with gateway(simulator := Simulator(**FAST)) as gw:
        visit = await visits.open(gw.url)
        answered = await visit.hold("**/api/models")
        await visit.page.reload()
        picture = {"a.png": PIXEL}
        await visit.attach(picture)
        await expect(visit.page.locator("#thumbs img")).to_have_count(1)
        await visit.prompt.fill("What is this?")
        answered.set()
        await expect(visit.page.locator("#send")).to_be_enabled()
        await visit.prompt.press("Enter")
        await expect(visit.toast).to_contain_text("llama3.2:latest cannot see images")
        await expect(visit.prompt).to_have_value("What is this?")
        await visit.choose("gemma3:latest")
        await visit.ask("What is this?")
        await visit.answered()
        assert simulator.requests[-1].body.count(base64.b64encode(PIXEL)) == 1
