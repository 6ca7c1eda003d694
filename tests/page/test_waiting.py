"""Honest waiting: what happens is said, with a clock; stop works in every phase; the context is watched."""

import asyncio
import re
import socket
from typing import Any

import pytest
from playwright.async_api import expect

from gateway.demo import Simulator
from tests.asks import chat, quick
from tests.gateways import gateway
from tests.page.pages import Visits
from tests.page.parrot import Parrot
from tests.servers import serve


async def test_the_phase_line_tells_every_phase(visits: Visits) -> None:
    """Loading, reading prompt, writing; then the figures."""
    simulator = Simulator(token_rate=25, load_seconds=1.5, prompt_seconds=1.5)
    async with gateway(simulator, status_interval=0.1) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Tell me something")
        await expect(visit.phase).to_have_text(re.compile(r"^loading model \d+ s$"))
        await expect(visit.phase).to_have_text(re.compile(r"loading model 1 s → reading prompt \d+ s$"))
        await expect(visit.phase).to_have_text(re.compile(r"→ \d+ tok/s$"))
        await visit.page.get_by_role("button", name="Stop").click()
        await expect(visit.turns.last).to_have_attribute("data-status", "cancelled")
        await visit.page.get_by_role("button", name="Regenerate", exact=True).click()
        await expect(visit.figures).to_have_text(
            re.compile(r"^\d+ tokens · \d+ tok/s · first token after [\d.]+ m?s · llama3.2:latest$"), timeout=60_000
        )


async def test_the_place_in_the_queue_is_told(visits: Visits) -> None:
    async with gateway(Simulator(token_rate=5), max_active=1, status_interval=0.1, attach_timeout=100) as gw:
        for number in range(2):
            await gw.start(chat={"model": "llama3.2", "messages": [{"role": "user", "content": str(number)}]})
        visit = await visits.open(gw.url)
        await visit.ask("Me too")
        await expect(visit.phase).to_have_text(re.compile(r"^queued #2, \d+ s$"))


async def test_how_long_the_wait_will_be_is_told_once_it_is_known(visits: Visits) -> None:
    async with serve(Parrot("word " * 60, rate=20)) as ollama, gateway(ollama, max_active=1, attach_timeout=100) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Once")
        await visit.answered()
        await gw.start(chat=chat("In between"))
        await visit.ask("Twice")
        await expect(visit.phase).to_have_text(re.compile(r"^queued #1, \d+ s · about \d+ s to go$"))
        await visit.answered()


async def test_that_another_model_is_in_use_is_told(visits: Visits) -> None:
    simulator = quick(max_loaded=1, parallel=1, load_seconds=0.1, token_rate=50)
    async with gateway(simulator, status_interval=0.1, attach_timeout=100) as gw:
        short = {"options": {"num_predict": 40}}
        both = [chat("Hi", **short) | {"model": model} for model in ("gemma3", "llama3.2")]
        await asyncio.gather(*(gw.read("/api/chat", json=body) for body in both))  # there is no room for both
        await gw.start(chat=chat("Go on", options={"num_predict": 100_000}) | {"model": "gemma3"})
        await simulator.until(lambda: simulator.states["generating"] == 1)
        visit = await visits.open(gw.url)
        await visit.ask("Me too")
        await expect(visit.phase).to_contain_text("llama3.2:latest must be loaded first")


async def test_an_ollama_that_is_away_is_told_and_waited_for(visits: Visits) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    async with gateway(f"http://127.0.0.1:{port}", reconnect_seconds=60, attach_timeout=100) as gw:
        async with serve((simulator := Simulator(load_seconds=300)).app, sock):
            visit = await visits.open(gw.url)
            await visit.ask("Are you there?")
            await simulator.until(lambda: simulator.running == 1)
        await expect(visit.phase).to_contain_text("waiting for Ollama to come back")
        async with serve(Parrot("Here I am."), socket.create_server(("127.0.0.1", port))):
            assert await visit.answered() == "Here I am."


PHASES: list[tuple[str, dict[str, int], dict[str, Any]]] = [
    ("queued", {"max_active": 1}, {"token_rate": 1.0}),
    ("loading", {}, {"load_seconds": 300.0}),
    ("reading", {}, {"load_seconds": 0.0, "prompt_seconds": 300.0}),
    ("tok/s", {}, {"load_seconds": 0.0, "prompt_seconds": 0.0, "token_rate": 5.0}),
]


@pytest.mark.parametrize("way", ["button", "Escape"])
@pytest.mark.parametrize(("phase", "settings", "simulated"), PHASES, ids=[phase for phase, *_ in PHASES])
async def test_stop_works_in_every_phase(
    visits: Visits, phase: str, settings: dict[str, int], simulated: dict[str, Any], way: str
) -> None:
    """Ollama's request ends at once, and what was written stays."""
    simulator = Simulator(**simulated)
    async with gateway(simulator, status_interval=0.1, attach_timeout=100, **settings) as gw:
        if phase == "queued":
            await gw.start(chat={"model": "llama3.2", "messages": [{"role": "user", "content": "long"}]})
        visit = await visits.open(gw.url)
        await visit.ask("Tell me something")
        await expect(visit.phase).to_contain_text(phase)
        before = await visit.text.inner_text()
        if way == "button":
            await visit.page.get_by_role("button", name="Stop").click()
        else:
            await visit.page.keyboard.press("Escape")
        await expect(visit.turns.last).to_have_attribute("data-status", "cancelled")
        await expect(visit.figures).to_contain_text("stopped")
        await simulator.until(lambda: simulator.running == (phase == "queued"))
        assert (await visit.text.inner_text()).startswith(before)
        await expect(visit.prompt).to_be_focused()


async def test_a_model_that_went_silent_is_told_from_one_that_writes(visits: Visits) -> None:
    async with gateway(Simulator(list_faults=True)) as gw:
        visit = await visits.open(gw.url)
        await visit.choose("fault:stall")
        await visit.ask("Tell me something")
        await expect(visit.phase).to_contain_text("No output for")


async def test_an_error_keeps_the_text_and_offers_retry(visits: Visits) -> None:
    async with gateway(Simulator(list_faults=True, token_rate=100)) as gw:
        visit = await visits.open(gw.url)
        await visit.choose("fault:crash")
        await visit.ask("Tell me something")
        failure = visit.page.locator(".failure")
        await expect(failure).to_contain_text("error was encountered while running the model")
        await expect(visit.text).to_have_text("This answer will not")
        await failure.get_by_role("button", name="Retry").click()
        await expect(visit.page.locator(".variants span")).to_have_text("2/2")


async def test_what_ended_too_early_is_not_passed_off_as_complete(visits: Visits) -> None:
    async with gateway(Simulator(list_faults=True, token_rate=100)) as gw:
        visit = await visits.open(gw.url)
        await visit.choose("fault:truncate")
        await visit.ask("Tell me something")
        await expect(visit.page.locator(".failure")).to_contain_text("Ollama ended the answer before it was complete")


async def test_a_full_context_is_told_and_the_oldest_turns_can_go(visits: Visits) -> None:
    """The gauge falls, the turns stay to be read, and the next request is without them."""
    parrot = Parrot("An answer.", prompt_eval_count=3_800, eval_count=100)
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.page.get_by_role("button", name="Settings").click()
        await visit.page.get_by_label("Context length").fill("4096")
        await visit.page.get_by_role("button", name="Done").click()
        for prompt in ("first", "second", "third"):
            await visit.ask(prompt)
            await visit.answered()
        await expect(visit.page.locator("#gauge")).to_have_text("context 95%")
        await expect(visit.page.locator("#full")).to_contain_text("95% full")
        await visit.page.get_by_role("button", name="Leave out the oldest messages").click()
        await expect(visit.page.locator(".turn.omitted")).to_have_count(2)
        await expect(visit.page.locator("#full")).to_be_hidden()
        await visit.ask("fourth")
        await visit.answered()
        sent = [message["content"] for message in parrot.bodies[-1]["messages"]]
        assert sent == ["third", "An answer.", "fourth"]
