"""Several tabs of one person: each stream is read once, all tabs show the same, and none undoes what another did."""

import asyncio
from collections.abc import Callable

import pytest
from playwright.async_api import Locator, expect

from gateway.demo import Simulator
from tests.exposition import parse
from tests.gateways import Gateway, gateway
from tests.page.pages import LONG, Visit, Visits
from tests.page.parrot import Parrot
from tests.servers import serve

TEXT = " ".join(f"word{number} **bold** `code`" for number in range(100))

lan_too = pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"], ids=["localhost", "lan"])
"""On plain HTTP in a LAN there are no Web Locks."""


async def gauge(gw: Gateway, name: str, until: Callable[[float], bool]) -> None:
    """Wait until a gauge of the gateway has a value that is wanted."""
    for _ in range(3 * LONG // 50):  # thirty tabs start at one moment
        async with gw.session.get(gw.url + "/metrics") as response:
            value = parse(await response.text())[name].value()
        if until(value):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} is {value}")


def titles(visit: Visit) -> Locator:
    return visit.page.locator(".chat .title")


async def hash_of(visit: Visit) -> str:
    """The address of the open chat, once it is kept."""
    await visit.saved(lambda turns: bool(turns[-1]["answers"][-1]["url"]))
    return str(await visit.page.evaluate("location.hash"))


@pytest.mark.timeout(240)
@lan_too
async def test_thirty_tabs_with_three_answers_are_all_usable(visits: Visits, host: str) -> None:
    """Three connections in all; a fourth question is refused in any tab; Stop in another tab stops at once."""
    async with serve(Parrot("word " * 5_000, rate=1)) as ollama, gateway(ollama) as gw:
        url = gw.url.replace("127.0.0.1", host)
        first = await visits.open(url)
        tabs = [first]
        for number in range(3):
            tab = await visits.tab(url) if number else first
            await tab.ask(f"question {number}")
            tabs.append(tab)
        chat = await hash_of(first)
        tabs += [await visits.tab(url, f"/{chat}") for _ in range(27)]
        await gauge(gw, "gateway_viewers_active", lambda viewers: viewers == 3)
        last = tabs[-1]
        await expect(last.page.locator(".chat .running:visible")).to_have_count(3)
        await expect(last.page.locator("#model")).to_contain_text("llama3.2")
        await expect(last.phase).to_contain_text("tok/s")
        await last.page.get_by_role("button", name="New chat").click()
        await last.prompt.fill("one more")
        await last.prompt.press("Enter")
        await expect(last.toast).to_contain_text("3 answers or downloads are already running")
        await tabs[-2].page.get_by_role("button", name="Stop").click()
        await gauge(gw, "gateway_streams_active", lambda streams: streams == 2)
        await expect(first.turns.last).to_have_attribute("data-status", "cancelled")
        await expect(last.page.locator(".chat .running:visible")).to_have_count(2)
        await last.prompt.press("Enter")
        await expect(last.phase).to_contain_text("tok/s")
        await gauge(gw, "gateway_viewers_active", lambda viewers: viewers == 3)


async def test_a_fourth_question_of_a_tab_that_knows_of_no_other_is_refused_and_over(visits: Visits) -> None:
    """It heard nothing of three answers: the transaction counts them. The refused answer is none that runs."""
    async with gateway(Simulator(token_rate=5, load_seconds=0, prompt_seconds=0)) as gw:
        one = await visits.open(gw.url)
        await one.page.context.add_init_script("delete window.BroadcastChannel")
        deaf = await visits.tab(gw.url)
        for number in range(3):
            await one.ask(f"question {number}")
            await one.new_chat()
        await expect(one.page.locator(".chat .running:visible")).to_have_count(3)
        await deaf.ask("one more")
        await expect(deaf.page.locator(".failure")).to_contain_text("Three answers are already running")
        await expect(deaf.page.locator(".chat .running:visible")).to_have_count(0)
        await expect(deaf.page.locator("#stop")).to_be_hidden()
        await deaf.saved(lambda turns: turns[-1]["answers"][-1]["status"] == "failed")


async def test_a_stream_is_closed_before_its_stop_is_asked_for(visits: Visits) -> None:
    """Where all connections are taken by streams, a stop would wait behind what it is to stop."""
    async with gateway(Simulator(token_rate=5, load_seconds=0, prompt_seconds=0)) as gw:
        visit = await visits.open(gw.url)
        await visit.page.evaluate(
            """() => {
              window.order = [];
              const close = EventSource.prototype.close;
              EventSource.prototype.close = function () {
                if (this.readyState !== 2) window.order.push("close");
                close.call(this);
              };
              const fetched = window.fetch;
              window.fetch = (url, options) => {
                if (options?.method === "DELETE") window.order.push("DELETE");
                return fetched(url, options);
              };
            }"""
        )
        await visit.ask("Go on")
        await expect(visit.phase).to_contain_text("tok/s")
        await visit.page.get_by_role("button", name="Stop").click()
        await gauge(gw, "gateway_streams_active", lambda streams: streams == 0)
        assert await visit.page.evaluate("window.order") == ["close", "DELETE"]


@lan_too
async def test_another_tab_goes_on_when_the_reader_is_closed(visits: Visits, host: str) -> None:
    """Word for word, without asking Ollama again."""
    parrot = Parrot(TEXT, rate=40)
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        url = gw.url.replace("127.0.0.1", host)
        reader = await visits.open(url)
        await reader.ask("Go on")
        follower = await visits.tab(url, f"/{await hash_of(reader)}")
        await expect(follower.text).to_contain_text("word5")
        await reader.page.close()
        assert await follower.answered() == TEXT
        assert len(parrot.bodies) == 1


async def test_another_tab_goes_on_when_the_reader_crashes(visits: Visits) -> None:
    """A crash says no goodbye: the silence is noticed."""
    parrot = Parrot(TEXT, rate=20)
    async with serve(parrot) as ollama, gateway(ollama) as gw:
        reader = await visits.open(gw.url)
        await reader.ask("Go on")
        follower = await visits.tab(gw.url, f"/{await hash_of(reader)}")
        await expect(follower.text).to_contain_text("word5")
        client = await reader.page.context.new_cdp_session(reader.page)
        crash = asyncio.ensure_future(client.send("Page.crash"))
        assert await follower.answered() == TEXT
        crash.cancel()
        assert len(parrot.bodies) == 1


async def test_tabs_hear_of_each_other_and_undo_nothing(visits: Visits) -> None:
    """A rename, new turns, a deletion: seen in the other tab, and not brought back by it."""
    async with serve(parrot := Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        one = await visits.open(gw.url)
        await one.ask("apples")
        await one.answered()
        other = await visits.tab(gw.url, f"/{await hash_of(one)}")
        await expect(other.text).to_have_text("Yes.")
        await one.page.locator(".chat").hover()
        await one.page.get_by_role("button", name="Rename: apples").click()
        await one.page.locator(".chat input").fill("Fruit")
        await one.page.keyboard.press("Enter")
        await expect(titles(other)).to_have_text("Fruit")
        await one.ask("pears")
        await one.answered()
        await expect(other.turns).to_have_count(2)
        await expect(other.text).to_have_text("Yes.")
        await other.ask("plums")
        await other.answered()
        asked = [message["content"] for message in parrot.bodies[-1]["messages"]]
        assert asked == ["apples", "Yes.", "pears", "Yes.", "plums"]
        await expect(one.turns).to_have_count(3)
        await expect(titles(one)).to_have_text("Fruit")
        await one.page.locator(".chat").hover()
        await one.page.get_by_role("button", name="Delete: Fruit").click()
        await expect(titles(other)).to_have_count(0)
        await expect(other.toast).to_contain_text("deleted in another tab")
        await other.page.get_by_role("button", name="Settings").click()
        await other.page.get_by_label("Seed").fill("7")
        await other.page.get_by_role("button", name="Done").click()
        await other.page.reload()
        await expect(other.page.locator("#no-chats")).to_be_visible()
        await one.toast.get_by_role("button", name="Undo").click()
        await expect(titles(other)).to_have_text("Fruit")


async def test_a_tab_that_missed_a_deletion_does_not_bring_the_chat_back(visits: Visits) -> None:
    """Its page was frozen, say: it heard nothing, and everything it does is refused."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        one = await visits.open(gw.url)
        await one.ask("apples")
        await one.answered()
        await one.page.context.add_init_script("delete window.BroadcastChannel")
        deaf = await visits.tab(gw.url, f"/{await hash_of(one)}")
        await expect(deaf.text).to_have_text("Yes.")
        await one.page.locator(".chat").hover()
        await one.page.get_by_role("button", name="Delete: apples").click()
        await expect(titles(one)).to_have_count(0)
        await deaf.page.locator(".chat").hover()
        await deaf.page.get_by_role("button", name="Rename: apples").click()
        await deaf.page.locator(".chat input").fill("Fruit")
        await deaf.page.keyboard.press("Enter")
        await deaf.prompt.fill("pears")
        await deaf.prompt.press("Enter")
        await expect(deaf.toast).to_contain_text("deleted in another tab")
        await one.page.reload()
        await expect(one.page.locator("#no-chats")).to_be_visible()


async def test_a_chat_that_was_just_made_can_be_opened_by_its_address(visits: Visits) -> None:
    """In a tab that has not heard of it, which must not take the address away."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        one = await visits.open(gw.url)
        await one.page.context.add_init_script("delete window.BroadcastChannel")
        deaf = await visits.tab(gw.url)
        await one.ask("apples")
        await one.answered()
        chat = await hash_of(one)
        await deaf.page.evaluate("(chat) => { location.hash = chat; }", chat)
        await expect(deaf.text).to_have_text("Yes.")
        assert await deaf.page.evaluate("location.hash") == chat


async def test_a_pull_is_read_once_and_shown_in_all_tabs(visits: Visits) -> None:
    async with gateway(simulator := Simulator(pull_seconds=300), allow_pull=True) as gw:
        one = await visits.open(gw.url)
        await one.page.locator("#model").click()
        dialog = one.page.locator("#models-dialog")
        await dialog.get_by_label("Download a model from the Ollama library").fill("phi4")
        await dialog.get_by_role("button", name="Download").click()
        await expect(one.page.locator("#pull-mark")).to_be_visible()
        others = [await visits.tab(gw.url) for _ in range(3)]
        for other in others:
            await expect(other.page.locator("#pull-mark")).to_contain_text("downloading")
        await gauge(gw, "gateway_viewers_active", lambda viewers: viewers == 1)
        await others[0].page.locator("#model").click()
        await others[0].page.locator("#models-dialog").get_by_role("button", name="Stop").click()
        await simulator.until(lambda: simulator.running == 0)
        for tab in (one, *others):
            await expect(tab.page.locator("#pull-mark")).to_be_hidden()


@pytest.mark.parametrize("what", ["chat", "turn"])
async def test_what_another_tab_deletes_is_stopped_where_it_is_answered(visits: Visits, what: str) -> None:
    """Even where that tab had not heard that it is being answered: nothing stays marked as running."""
    async with gateway(simulator := Simulator(token_rate=5, load_seconds=0, prompt_seconds=0)) as gw:
        one = await visits.open(gw.url)
        await one.ask("apples")
        place = {"chat": (await hash_of(one))[1:], "what": what}
        other = await visits.tab(gw.url)
        await other.page.evaluate(
            """async ({ chat, what }) => {
              const { History } = await import("/static/js/history.js");
              const history = new History();
              const [turn] = await history.turns(chat);
              await (what === "chat" ? history.deleteChat(chat) : history.deleteTurn(chat, turn.id, []));
              new BroadcastChannel("gateway").postMessage({ type: "saved", body: chat, tab: "" });
            }""",
            place,
        )
        await simulator.until(lambda: simulator.running == 0)
        await expect(one.turns).to_have_count(0)
        await expect(one.page.locator(".chat .running:visible")).to_have_count(0)


async def test_a_stream_that_has_ended_unheard_is_read_by_nobody(visits: Visits) -> None:
    """A tab that took it, and had nothing to read, would answer for it for ever, and others would wait for that tab."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        await visits.open(gw.url)
        other = await visits.tab(gw.url, "/client.js", network_fails=True)  # it has no icon
        answers: list[str] = await other.page.evaluate(
            """async () => {
                const channel = new BroadcastChannel("gateway");
                const heard = [];
                channel.onmessage = ({ data }) => data.body === "ended" && heard.push(data.type);
                channel.postMessage({ type: "mine", body: "ended", tab: "~" });
                while (!heard.includes("who")) await new Promise((resolve) => setTimeout(resolve, 50));
                await new Promise((resolve) => setTimeout(resolve, 4000));
                channel.postMessage({ type: "who", body: "ended", tab: "~" });
                await new Promise((resolve) => setTimeout(resolve, 500));
                return heard;
            }"""
        )
        assert "mine" not in answers
