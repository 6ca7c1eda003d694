"""Chats that are kept: listed, named, found, deleted, exported and imported."""

import json
from pathlib import Path

from playwright.async_api import Locator, expect

from tests.gateways import gateway
from tests.page.pages import Visit, Visits
from tests.page.parrot import Parrot
from tests.servers import serve


def titles(visit: Visit) -> Locator:
    return visit.page.locator(".chat .title")


async def ask_in_new_chat(visit: Visit, prompt: str) -> None:
    await visit.new_chat()
    await visit.ask(prompt)
    await visit.answered()


async def test_chats_are_listed_newest_first_and_survive_a_reload(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await expect(visit.page.locator("#no-chats")).to_contain_text("stay in this browser")
        for prompt in ("apples", "pears\nand more"):
            await ask_in_new_chat(visit, prompt)
        await expect(titles(visit)).to_have_text(["pears", "apples"])
        await visit.page.reload()
        await expect(titles(visit)).to_have_text(["pears", "apples"])
        await expect(visit.page.locator(".asked .prompt")).to_have_text("pears\nand more", use_inner_text=True)
        await visit.page.get_by_role("link", name="apples").click()
        await expect(visit.page.locator(".asked .prompt")).to_have_text("apples")
        await visit.page.go_back()
        await expect(visit.page.locator(".asked .prompt")).to_contain_text("pears")


async def test_a_chat_is_renamed(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await ask_in_new_chat(visit, "apples")
        await visit.page.locator(".chat").hover()
        await visit.page.get_by_role("button", name="Rename: apples").click()
        await visit.page.locator(".chat input").fill("Fruit")
        await visit.page.keyboard.press("Enter")
        await expect(titles(visit)).to_have_text("Fruit")
        await visit.page.reload()
        await expect(titles(visit)).to_have_text("Fruit")


async def test_search_looks_into_prompts_and_answers(visits: Visits) -> None:
    async with serve(Parrot("The moon is far away.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        for prompt in ("apples", "pears"):
            await ask_in_new_chat(visit, prompt)
        search = visit.page.get_by_role("searchbox", name="Search chats")
        for query, found in [("pear", ["pears"]), ("MOON far", ["pears", "apples"]), ("moon apple", ["apples"])]:
            await search.fill(query)
            await expect(titles(visit)).to_have_text(found)
        await search.fill("nothing like it")
        await expect(visit.page.locator("#no-chats")).to_have_text("No chats found.")
        await search.fill("")
        await expect(titles(visit)).to_have_count(2)


async def test_a_chat_is_deleted_and_brought_back(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await ask_in_new_chat(visit, "apples")
        await visit.page.locator(".chat").hover()
        await visit.page.get_by_role("button", name="Delete: apples").click()
        await expect(titles(visit)).to_have_count(0)
        await expect(visit.turns).to_have_count(0)
        await visit.toast.get_by_role("button", name="Undo").click()
        await expect(titles(visit)).to_have_text("apples")
        await expect(visit.text).to_have_text("Yes.")
        await visit.saved(lambda turns: len(turns) == 1)
        await visit.page.reload()
        await expect(visit.text).to_have_text("Yes.")


async def test_export_and_import(visits: Visits, tmp_path: Path) -> None:
    """What one browser exports, another one shows; a foreign file is refused and fetches nothing."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await ask_in_new_chat(visit, "apples")
        async with visit.page.expect_download() as download:
            await visit.page.get_by_role("button", name="Export").click()
        exported = tmp_path / "chats.json"
        await (await download.value).save_as(exported)
        data = json.loads(exported.read_text())
        assert [turn["prompt"] for turn in data["chats"][0]["turns"]] == ["apples"]

        other = await visits.open(gw.url)
        await other.page.locator("#import-file").set_input_files(exported)
        await expect(titles(other)).to_have_text("apples")
        await other.page.get_by_role("link", name="apples").click()
        await expect(other.text).to_have_text("Yes.")

        data["chats"][0] |= {"id": "hostile", "title": "<img src=x>"}
        data["chats"][0]["turns"][0]["images"] = ["https://evil.example/x.png"]
        data["chats"][0]["turns"][0]["answers"][0] = {"text": "<img src=https://evil.example/y.png>"}
        exported.write_text(json.dumps(data))
        await other.page.locator("#import-file").set_input_files(exported)
        await other.page.get_by_role("link", name="<img src=x>").click()
        await expect(other.text).to_have_text("<img src=https://evil.example/y.png>")

        exported.write_text('{"chats": "no"}')
        await other.page.locator("#import-file").set_input_files(exported)
        await expect(other.toast).to_contain_text("not an export")


async def test_another_chat_can_be_opened_while_tokens_arrive(visits: Visits) -> None:
    """Again and again: no token undoes the click."""
    async with serve(parrot := Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await ask_in_new_chat(visit, "apples")
        parrot.pieces, parrot.rate = ["word "] * 2_000, 300
        await visit.new_chat()
        await visit.ask("pears")
        await expect(visit.text).to_contain_text("word")
        for prompt in ("apples", "pears") * 4:
            await visit.page.get_by_role("link", name=prompt).click()
            await expect(visit.page.locator(".asked .prompt")).to_have_text(prompt)
