"""An answer is never lost: cuts, reloads, sleep, the back/forward cache, a gateway that restarts."""

import os
import re
from shutil import which

import pytest
from playwright.async_api import expect

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.cutting import cutting
from tests.page.pages import Visits, chromium, visiting
from tests.page.parrot import Parrot
from tests.servers import serve

TEXT = " ".join(f"word{number} **bold** `code`" for number in range(100))


async def test_five_cuts_change_nothing_and_are_seen(visits: Visits) -> None:
    """The text is the uncut one, Ollama was asked once, and the person saw it happen."""
    parrot = Parrot(TEXT, rate=40)
    async with serve(parrot) as ollama, gateway(ollama) as gw, cutting(gw.url) as proxy:
        visit = await visits.open(proxy.url, network_fails=True)
        await visit.ask("Go on")
        await expect(visit.phase).to_contain_text("tok/s")  # what loads with the first answer has passed
        await visit.page.evaluate(
            """() => {
              window.seen = [];
              new MutationObserver(() => {
                const text = document.querySelector(".phase").textContent;
                for (const word of ["reconnecting…", "reconnected"])
                  if (text.includes(word) && window.seen.at(-1) !== word) window.seen.push(word);
              }).observe(document.querySelector("#turns"), { subtree: true, childList: true, characterData: true });
            }"""
        )
        for _ in range(5):
            await proxy.until_passed(proxy.passed + 3_000)
            proxy.cut()
            await expect(visit.phase).to_have_text("reconnecting…")
            await expect(visit.phase).to_contain_text("reconnected")
        assert await visit.answered() == TEXT
        assert await visit.page.evaluate("window.seen") == ["reconnecting…", "reconnected"] * 5
        assert len(parrot.bodies) == 1


async def test_a_reload_in_the_middle_goes_on(visits: Visits) -> None:
    """Twice; also the time before the first token survives."""
    parrot = Parrot(TEXT, rate=60)
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        await visit.saved(lambda turns: bool(turns[-1]["answers"][-1]["url"]))
        await visit.page.reload()
        await expect(visit.text).to_contain_text("word9")
        await visit.page.reload()
        await expect(visit.turns).to_have_count(1)
        assert await visit.answered() == TEXT
        assert len(parrot.bodies) == 1


async def test_the_back_forward_cache_gives_the_answer_back() -> None:
    """The page is kept as it was, and catches up with what it missed. Only Chromium with windows has this cache."""
    parrot = Parrot(TEXT, rate=60)
    async with (
        serve(parrot) as ollama,
        gateway(ollama) as gw,
        chromium(
            executable_path=os.environ.get("CHROMIUM") or which("chromium"),
            ignore_default_args=["--disable-back-forward-cache"],
        ) as browser,
        visiting(browser) as visits,
    ):
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        await expect(visit.text).to_contain_text("word5")
        await visit.page.evaluate("window.kept = true")
        await visit.page.goto("about:blank")
        await visit.page.go_back(wait_until="commit")  # a page that was kept does not load again
        assert await visit.page.evaluate("window.kept") is True
        assert await visit.answered() == TEXT


async def test_another_tab_reads_along(visits: Visits) -> None:
    parrot = Parrot(TEXT, rate=60)
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        await visit.saved(lambda turns: bool(turns[-1]["answers"][-1]["lastId"]))
        other = await visits.tab(gw.url, "/" + await visit.page.evaluate("location.hash"))
        await expect(other.text).to_contain_text("word5")
        assert await other.answered() == TEXT
        assert len(parrot.bodies) == 1


async def test_a_gateway_that_restarts_loses_the_stream_but_not_the_text(visits: Visits) -> None:
    """The partial text stays, it is said what happened, and Retry works with the new one."""
    parrot = Parrot(TEXT, rate=20)
    async with serve(parrot) as ollama, gateway(ollama) as first, cutting(first.url) as proxy:
        visit = await visits.open(proxy.url, network_fails=True)
        await visit.ask("Go on")
        await expect(visit.text).to_contain_text("word2")
        async with gateway(ollama) as second:
            proxy.cut()
            proxy.port = int(second.url.rpartition(":")[2])
            failure = visit.page.locator(".failure")
            await expect(failure).to_contain_text("the gateway no longer holds it")
            await expect(visit.text).to_contain_text("word2")
            parrot.rate = 0
            await failure.get_by_role("button", name="Retry").click()
            assert await visit.answered() == TEXT


@pytest.mark.timeout(120)
async def test_a_gateway_that_is_away_for_a_while(visits: Visits) -> None:
    """The page waits and goes on; nothing is asked twice."""
    parrot = Parrot(TEXT, rate=60)
    async with serve(parrot) as ollama, gateway(ollama) as gw, cutting(gw.url) as proxy:
        visit = await visits.open(proxy.url, network_fails=True)
        await visit.ask("Go on")
        await expect(visit.text).to_contain_text("word2")
        proxy.refusing = True
        proxy.cut()
        await expect(visit.phase).to_have_text("reconnecting…")
        proxy.refusing = False
        assert await visit.answered() == TEXT
        assert len(parrot.bodies) == 1


async def test_several_chats_at_once(visits: Visits) -> None:
    """Each goes on unseen and has its mark; a fourth is refused in words."""
    async with gateway(Simulator(token_rate=20, load_seconds=0, prompt_seconds=0)) as gw:
        visit = await visits.open(gw.url)
        for number in range(3):
            await visit.new_chat()
            await visit.ask(f"chat {number}")
            await expect(visit.page.locator(".chat .running:visible")).to_have_count(number + 1)
        await visit.new_chat()
        await visit.prompt.fill("one more")
        await visit.prompt.press("Enter")
        await expect(visit.toast).to_contain_text("3 answers or downloads are already running")
        await expect(visit.prompt).to_have_value("one more")
        await visit.page.get_by_role("link", name=re.compile("chat 1")).click()
        await expect(visit.page.locator(".asked .prompt")).to_have_text("chat 1")
        await visit.page.get_by_role("button", name="Stop").click()
        await expect(visit.page.locator(".chat .running:visible")).to_have_count(2)


async def test_an_answer_that_ended_unseen_is_there_after_a_reload(visits: Visits) -> None:
    parrot = Parrot(TEXT, rate=200)
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        await visit.saved(lambda turns: bool(turns[-1]["answers"][-1]["lastId"]))
        address = visit.page.url
        await visit.page.goto("about:blank")
        await parrot.told.wait()
        await visit.page.goto(address)
        assert await visit.answered() == TEXT
