"""Whatever a model writes, it stays text: nothing runs, nothing is asked for, in bounded time."""

import pytest
from playwright.async_api import expect

from tests.gateways import gateway
from tests.page.hostile import FOUND, HOSTILE, assert_harmless
from tests.page.pages import Visits
from tests.page.parrot import Parrot
from tests.servers import serve


async def test_hostile_markdown_is_text(visits: Visits) -> None:
    """Also in thinking and in the title of the chat. No request leaves: every page in these tests is watched."""
    async with serve(Parrot(HOSTILE, piece=r"(?s).{1,7}", rate=300)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("<img src=x onerror='window.owned = 1'>")
        assert await visit.answered() == HOSTILE
        await expect(visit.page.locator(".text math")).to_have_count(3)  # the formulas that are known are shown
        assert_harmless(await visit.page.evaluate(FOUND))
        await expect(visit.page.locator(".chat .title")).to_have_text("<img src=x onerror='window.owned = 1'>")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "![" * 10_000 + "](x)" * 5_000,
        "*a " * 6_600,
        "> " * 10_000,
        "- " * 10_000,
        "|" * 20_000,
        "`" * 20_000,
    ],
    ids=["brackets", "images", "stars", "quotes", "lists", "pipes", "backticks"],
)
async def test_20_000_hostile_characters_do_not_stop_the_page(visits: Visits, text: str) -> None:
    """Streamed in pieces; the prompt still takes a key between them."""
    async with serve(Parrot(text, piece=r"(?s).{1,100}", rate=200)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        await visit.prompt.press_sequentially("typing goes on")
        assert await visit.answered() == text
        await expect(visit.prompt).to_have_value("typing goes on")
