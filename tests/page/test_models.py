"""Choosing a model, getting one, and what is said when there is none or no Ollama."""

import re

from playwright.async_api import expect

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.cutting import cutting
from tests.page.pages import LONG, Visits
from tests.page.parrot import Parrot
from tests.servers import serve


async def test_the_picker_tells_what_a_model_is_and_remembers(visits: Visits) -> None:
    async with gateway(Simulator(token_rate=400, load_seconds=0, prompt_seconds=0)) as gw:
        visit = await visits.open(gw.url)
        await visit.page.locator("#model").click()
        qwen = visit.page.locator("#models [data-model='qwen3:latest']")
        await expect(qwen).to_contain_text("thinking")
        await expect(qwen).to_contain_text("8.2B · Q4_K_M · 5.2 GB · 40K context")
        await expect(visit.page.locator(".mark.loaded")).to_have_count(0)
        await qwen.click()
        await expect(visit.page.locator("#model")).to_have_text("qwen3:latest")
        await visit.ask("Hello")
        await visit.answered()
        await visit.page.locator("#model").click()
        await expect(qwen.locator(".loaded")).to_have_text("loaded")
        await visit.page.keyboard.press("Escape")
        await visit.page.get_by_role("button", name="New chat").click()
        await visit.page.reload()
        await expect(visit.page.locator("#model")).to_have_text("qwen3:latest")


async def test_a_model_is_pulled_with_one_progress_over_all_layers(visits: Visits) -> None:
    """The bar never goes back, a reload goes on with it, and the model is chosen in the end."""
    async with gateway(Simulator(pull_seconds=6), allow_pull=True) as gw:
        visit = await visits.open(gw.url)
        await visit.page.locator("#model").click()
        dialog = visit.page.locator("#models-dialog")
        await dialog.get_by_label("Download a model from the Ollama library").fill("phi4")
        await dialog.get_by_role("button", name="Download").click()
        how = re.compile(r"[\d.]+ [GM]B of [\d.]+ GB · \d+ MB/s · \d+ s left")
        await expect(dialog.locator(".how")).to_have_text(how)
        await visit.page.reload()
        await expect(visit.page.locator("#pull-mark")).to_have_text(re.compile(r"downloading [1-9]\d?%"))
        await visit.page.evaluate(
            """() => {
              window.values = [];
              const bar = document.querySelector("#models-dialog progress");
              new MutationObserver(() => window.values.push(bar.value))
                .observe(bar.closest(".pulling"), { subtree: true, childList: true, characterData: true });
            }"""
        )
        await expect(visit.page.locator("#model")).to_have_text("phi4:latest")
        values = await visit.page.evaluate("window.values")
        assert values == sorted(values)
        assert len(values) > 3


async def test_a_pull_that_fails_says_why_and_one_can_be_stopped(visits: Visits) -> None:
    async with gateway(simulator := Simulator(pull_seconds=300), allow_pull=True) as gw:
        visit = await visits.open(gw.url)
        await visit.page.locator("#model").click()
        dialog = visit.page.locator("#models-dialog")
        name = dialog.get_by_label("Download a model from the Ollama library")
        await name.fill("nope")
        await dialog.get_by_role("button", name="Download").click()
        await expect(dialog.locator(".error")).to_contain_text("file does not exist")
        await name.fill("phi4")
        await dialog.get_by_role("button", name="Download").click()
        await dialog.get_by_role("button", name="Stop").click()
        await simulator.until(lambda: simulator.running == 0)
        await expect(name).to_be_visible()


async def test_without_a_model_the_page_says_what_to_do_and_notices_when_it_is_done(visits: Visits) -> None:
    simulator = Simulator()
    installed = simulator.models.copy()
    simulator.models.clear()
    async with gateway(simulator) as gw:
        visit = await visits.open(gw.url)
        welcome = visit.page.locator("#welcome")
        await expect(welcome).to_contain_text("No models installed yet")
        await expect(welcome).to_contain_text("ollama pull llama3.2")
        await visit.prompt.fill("Hello")
        await expect(visit.page.get_by_role("button", name="Send")).to_be_disabled()
        simulator.models.update(installed)
        await expect(welcome).to_contain_text("What can I help with?")
        await expect(visit.prompt).to_have_value("Hello")
        await expect(visit.page.get_by_role("button", name="Send")).to_be_enabled()


async def test_without_a_model_one_can_be_pulled_where_that_is_allowed(visits: Visits) -> None:
    simulator = Simulator(pull_seconds=0)
    simulator.models.clear()
    async with gateway(simulator, allow_pull=True) as gw:
        visit = await visits.open(gw.url)
        welcome = visit.page.locator("#welcome")
        await welcome.get_by_label("Download a model from the Ollama library").fill("llama3.2")
        await welcome.get_by_role("button", name="Download").click()
        await expect(welcome).to_contain_text("What can I help with?")
        await expect(visit.page.locator("#model")).to_have_text("llama3.2:latest")


async def test_without_ollama_the_page_names_the_setting_and_recovers(visits: Visits) -> None:
    """On the empty page as a screen, in a conversation as a line above it."""
    async with serve(Parrot("Yes.")) as ollama, cutting(ollama) as proxy, gateway(proxy.url) as gw:
        proxy.refusing = True
        visit = await visits.open(gw.url, network_fails=True)
        welcome = visit.page.locator("#welcome")
        await expect(welcome).to_contain_text("Ollama is not reachable")
        await expect(welcome).to_contain_text("GATEWAY_OLLAMA_URL")
        await expect(welcome).to_contain_text("ollama serve")
        proxy.refusing = False
        await expect(welcome).to_contain_text("What can I help with?")
        await visit.ask("Hello")
        await visit.answered()
        proxy.refusing = True
        proxy.cut()
        gw.state["streams"].upstreams.answers.forget()  # which are kept for a second
        await visit.page.locator("#model").click()
        await visit.page.keyboard.press("Escape")
        await expect(visit.page.locator("#banner")).to_contain_text("Ollama is not reachable")
        proxy.refusing = False
        await expect(visit.page.locator("#banner")).to_be_hidden(timeout=LONG)
        await expect(visit.text).to_have_text("Yes.")


async def test_a_gateway_that_is_gone_is_told_from_ollama_that_is(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw, cutting(gw.url) as proxy:
        visit = await visits.open(proxy.url, network_fails=True)
        await expect(visit.page.locator("#welcome")).to_contain_text("What can I help with?")
        proxy.refusing = True
        proxy.cut()
        await visit.page.locator("#model").click()
        await visit.page.keyboard.press("Escape")
        await expect(visit.page.locator("#welcome")).to_contain_text("The gateway is not responding")
        proxy.refusing = False
        await expect(visit.page.locator("#welcome")).to_contain_text("What can I help with?")
