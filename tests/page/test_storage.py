"""What is kept, survives: crashes at any moment, hands on the data, a storage that fails, and other versions."""

import asyncio
import json
import re
from typing import Any

import pytest
from playwright.async_api import FilePayload, Locator, expect

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.page.pages import Visit, Visits
from tests.page.parrot import Parrot
from tests.page.test_conversation import PIXEL
from tests.page.test_history import ask_in_new_chat
from tests.servers import serve

TEXT = " ".join(f"word{number}" for number in range(60))

STORED = """async () => {
  const db = await new Promise((resolve) => {
    const request = indexedDB.open("gateway");
    request.onsuccess = () => resolve(request.result);
  });
  const stores = {};
  for (const name of db.objectStoreNames)
    stores[name] = await new Promise((resolve) => {
      const request = db.transaction(name).objectStore(name).getAll();
      request.onsuccess = () => resolve(request.result);
    });
  db.close();
  return stores;
}"""
"""Everything in the browser's database, by store."""


def titles(visit: Visit) -> Locator:
    return visit.page.locator(".chat .title")


async def import_file(visit: Visit, data: object) -> None:
    text = data if isinstance(data, str) else json.dumps(data)
    file: FilePayload = {"name": "chats.json", "mimeType": "application/json", "buffer": text.encode()}
    await visit.page.locator("#import-file").set_input_files(file)


async def export(visit: Visit) -> Any:
    async with visit.page.expect_download() as download:
        await visit.page.get_by_role("button", name="Export").click()
    path = await (await download.value).path()
    return json.loads(await asyncio.to_thread(path.read_text))


@pytest.mark.parametrize("moment", [0, 20, 40, 60, 80, 100, 200, 300])
async def test_a_reload_right_after_the_end_loses_nothing(visits: Visits, moment: int) -> None:
    """And nothing goes on streaming for ever, whichever write was the last that came through."""
    async with serve(Parrot(TEXT, rate=300)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Go on")
        async with visit.page.expect_event("load"):
            await visit.page.evaluate(
                """(ms) => {
                  const look = () => document.querySelector(".turn").dataset.status === "done"
                    ? setTimeout(() => location.reload(), ms) : requestAnimationFrame(look);
                  requestAnimationFrame(look);
                }""",
                moment,
            )
        assert await visit.answered() == TEXT
        await expect(visit.page.locator(".chat .running:visible")).to_have_count(0)


async def test_an_answer_that_nobody_holds_any_more_is_closed_honestly(visits: Visits) -> None:
    """The browser was closed in the middle, and opened later: whatever its records say, nothing is running."""
    async with serve(parrot := Parrot(TEXT, rate=30)) as ollama, gateway(ollama, retain_seconds=0.1) as gw:
        visit = await visits.open(gw.url, network_fails=True)
        await visit.ask("Go on")
        turns = await visit.saved(lambda turns: "word5" in turns[-1]["answers"][-1]["text"])
        address, stream = visit.page.url, turns[-1]["answers"][-1]["url"]
        await visit.page.goto("about:blank")
        await parrot.told.wait()
        while True:
            async with gw.session.get(gw.url + stream) as response:
                if response.status == 404:
                    break
        await visit.page.goto(address)
        await expect(visit.page.locator(".failure")).to_contain_text("the gateway no longer holds it")
        await expect(visit.text).to_contain_text("word5")
        await expect(visit.page.locator(".chat .running:visible")).to_have_count(0)
        await visit.page.reload()
        await expect(visit.turns.last).to_have_attribute("data-status", "failed")


async def test_what_version_1_kept_is_still_there(visits: Visits) -> None:
    """Its turns held their images, their answers and every request; one of them was being answered."""
    async with serve(parrot := Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url, "/static/favicon.svg", network_fails=True)
        await visit.page.evaluate(
            """() => new Promise((resolve) => {
              const request = indexedDB.open("gateway", 1);
              request.onupgradeneeded = () => {
                const chats = request.result.createObjectStore("chats", { keyPath: "id" });
                const turns = request.result.createObjectStore("turns", { keyPath: ["chat", "id"] });
                chats.put({ id: "c", title: "Old", renamed: false, created: 1, updated: 2, model: "llama3.2:latest",
                  settings: { system: "Be brief.", preset: "", variables: {}, think: "", temperature: 0.5,
                    num_ctx: null, num_predict: null, seed: null }, running: true });
                const answer = (id, status, text) => ({ id, model: "llama3.2:latest", status, text, thinking: "",
                  url: "", request: { chat: { messages: ["x".repeat(9999)] } } });
                turns.put({ chat: "c", id: "b", at: 2, prompt: "second", images: [], shown: 0, omitted: false,
                  answers: [answer("3", "streaming", "Half")] });
                turns.put({ chat: "c", id: "a", at: 1, prompt: "first", images: ["data:image/png;base64,QUJD"],
                  shown: 1, omitted: false, answers: [answer("1", "done", "One"), answer("2", "done", "Two")] });
              };
              request.onsuccess = () => { request.result.close(); resolve(); };
            })"""
        )
        await visit.page.goto(gw.url + "/#c")
        await expect(visit.page.locator(".asked .prompt")).to_have_text(["first", "second"])
        await expect(visit.page.locator(".turn .text")).to_have_text(["Two", "Half"])
        await expect(visit.page.locator(".variants:visible span")).to_have_text("2/2")
        await expect(visit.page.locator(".images img")).to_have_attribute("src", "data:image/png;base64,QUJD")
        await expect(visit.turns.last).to_have_attribute("data-status", "failed")
        await visit.ask("third")
        await visit.answered()
        contents = [message["content"] for message in parrot.bodies[-1]["messages"]]
        assert contents == ["Be brief.", "first", "Two", "second", "Half", "third"]
        assert "x" * 9999 not in json.dumps(await visit.page.evaluate(STORED))


async def test_an_import_merges_and_says_what_it_took(visits: Visits) -> None:
    """An old backup brings back what is missing, and undoes nothing that came later."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await ask_in_new_chat(visit, "apples")
        old = await export(visit)
        await visit.ask("more apples")
        await visit.answered()
        await visit.page.locator(".chat").hover()
        await visit.page.get_by_role("button", name="Rename: apples").click()
        await visit.page.locator(".chat input").fill("Fruit")
        await visit.page.keyboard.press("Enter")
        old["chats"].append(old["chats"][0] | {"id": "pears", "title": "pears"})
        await import_file(visit, old)
        await expect(visit.toast).to_contain_text("Imported: 1 new, 0 updated, 1 unchanged")
        await expect(titles(visit)).to_have_count(2)
        await expect(titles(visit).first).to_have_text("Fruit")
        await expect(visit.turns).to_have_count(2)
        whole = await export(visit)
        await visit.turns.last.hover()
        await visit.turns.last.get_by_role("button", name="Delete this exchange").click()
        await expect(visit.turns).to_have_count(1)
        await import_file(visit, whole)
        await expect(visit.toast).to_contain_text("Imported: 0 new, 1 updated, 1 unchanged")
        await expect(visit.turns).to_have_count(2)
        await visit.page.reload()
        await expect(visit.page.locator(".asked .prompt")).to_have_text(["apples", "more apples"])


DAMAGED: list[Any] = [
    {"id": "bare"},
    {"id": "odd", "title": 7, "settings": "no", "updated": None, "turns": "no"},
    {"id": "turns", "title": "turns", "turns": [None, 3, {"id": "t1"}, {"id": "t2", "answers": {"a": 1}, "prompt": 5}]},
    {
        "id": "answers",
        "title": "answers",
        "settings": {"temperature": "hot", "variables": {"a": 1}},
        "turns": [
            {
                "id": "t",
                "prompt": "p",
                "shown": 99,
                "answers": [None, {"text": 1}, {"status": "odd", "tools": [1, {}]}],
            },
            {"id": "u", "parent": "v", "answers": [{"figures": 1, "failure": 2, "steps": "x", "thinking": None}]},
            {"id": "v", "parent": "u", "images": [None, "https://evil.example/x.png", {"url": 1}], "files": [{}]},
        ],
    },
    {"title": "no id"},
    "no chat",
    None,
]


async def test_a_file_of_another_hand_breaks_nothing(visits: Visits) -> None:
    """What can be shown is, the rest is counted; every chat opens, the search works, nothing was emptied."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await ask_in_new_chat(visit, "apples")
        backup = await export(visit)
        for text in ("", "null", "[]", '{"format": "other", "chats": []}', "{" * 9):
            await import_file(visit, text)
            await expect(visit.toast).to_contain_text("not an export")
            await visit.toast.get_by_role("button", name="Close").click()
        same = backup["chats"][0] | {"turns": [None, "no"]}
        await import_file(visit, backup | {"chats": [*DAMAGED, same]})
        await expect(visit.toast).to_contain_text("4 new, 0 updated, 1 unchanged. 7 damaged entries were skipped.")
        await expect(titles(visit)).to_have_count(5)
        for chat in ("bare", "odd", "turns", "answers"):
            await visit.page.evaluate("(id) => { location.hash = id; }", chat)
            await expect(visit.page.locator(f"[data-chat={chat}] [aria-current]")).to_be_visible()
        await expect(visit.turns).to_have_count(3)
        await visit.page.get_by_role("searchbox").fill("apples")
        await expect(titles(visit)).to_have_text(["apples"])
        await visit.page.get_by_role("link", name="apples").click()
        await expect(visit.text).to_have_text("Yes.")


async def test_records_of_another_hand_in_the_database_break_nothing(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("apples")
        await visit.answered()
        await visit.page.evaluate(
            """async () => {
              const { Database } = await import("/static/js/database.js");
              await new Database("gateway").run(["chats", "turns", "answers", "pieces"], "readwrite", async (tx) => {
                tx.objectStore("chats").put({ id: "bare" });
                tx.objectStore("turns").put({ chat: "bare", id: "t" });
                tx.objectStore("answers").put({ chat: "bare", turn: "t", id: "a", active: 1 });
                tx.objectStore("answers").put({ chat: "nowhere", turn: "t", id: "a", active: 1, status: "streaming" });
                tx.objectStore("pieces").put({ chat: "bare", turn: "t", answer: "a", number: 1 });
              });
            }"""
        )
        await visit.page.reload()
        await expect(titles(visit)).to_have_count(2)
        await visit.page.evaluate("location.hash = 'bare'")
        await expect(visit.turns).to_have_count(1)
        await visit.page.get_by_role("searchbox").fill("apples")
        await expect(titles(visit)).to_have_text(["apples"])
        await visit.ask("pears")
        await visit.answered()


async def test_a_storage_that_is_denied(visits: Visits) -> None:
    """The page works, says so, and its chats can be exported and imported."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.page.context.add_init_script(
            """Object.defineProperty(window, "indexedDB", { get() { throw new DOMException("no", "SecurityError"); } });
            for (const name of ["localStorage", "sessionStorage"])
              Object.defineProperty(window, name, { get() { throw new DOMException("no", "SecurityError"); } });"""
        )
        visit = await visits.tab(gw.url)
        await expect(visit.toast).to_contain_text("does not store chats here")
        await visit.ask("apples")
        await expect(visit.text).to_have_text("Yes.")
        await expect(visit.turns.last).to_have_attribute("data-status", "done")
        data = await export(visit)
        assert data["chats"][0]["turns"][0]["answers"][0]["text"] == "Yes."
        await expect(visit.page.locator(".chat .running:visible")).to_have_count(0)


HOLD = """{
  const open = indexedDB.open.bind(indexedDB);
  const held = new Promise((resolve) => (window.release = resolve));
  IDBFactory.prototype.open = function (name, version) {
    const request = new EventTarget();
    held.then(() => {
      const real = open(name, version);
      real.onsuccess = () => {
        request.result = real.result;
        request.onsuccess();
      };
    });
    return request;
  };
}"""
"""A database that does not open before `release`."""


WAITED = """{
  window.waited = 0;
  const set = window.setTimeout;
  window.setTimeout = (run, ms) => {
    if (!document.querySelector("#settings")?.ariaLabel) window.waited += ms;
    return set(run, ms);
  };
}"""
"""How long the page wants to wait before it shows itself, in milliseconds."""


async def test_the_address_of_a_chat_waits_for_a_slow_storage(visits: Visits) -> None:
    """The page does not: it is there within two seconds."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("apples")
        await visit.answered()
        chat = await visit.page.evaluate("location.hash")
        await visit.page.context.add_init_script(HOLD + WAITED)
        visit = await visits.tab(gw.url, f"/{chat}")
        await expect(visit.toast).to_contain_text("storage is not responding")
        assert 1_000 < await visit.page.evaluate("window.waited") <= 2_000
        assert await visit.page.evaluate("location.hash") == chat
        await visit.page.evaluate("window.release()")
        await expect(visit.text).to_have_text("Yes.")
        assert await visit.page.evaluate("location.hash") == chat


async def test_a_storage_that_never_answers_and_then_does(visits: Visits) -> None:
    """The page starts within two seconds without it; what was asked meanwhile is kept when it is there."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("apples")
        await visit.answered()
        await visit.page.context.add_init_script(HOLD)
        visit = await visits.tab(gw.url)
        await expect(visit.toast).to_contain_text("storage is not responding")
        await visit.ask("pears")
        await expect(visit.text).to_have_text("Yes.")
        await visit.page.evaluate("window.release()")
        await expect(titles(visit)).to_have_text(["pears", "apples"])
        await visit.saved(lambda turns: [turn["prompt"] for turn in turns] == ["pears"])


async def test_a_storage_that_is_full(visits: Visits) -> None:
    """The page says so, and exports from memory; with room again everything is kept."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("apples")
        await visit.answered()
        await visit.page.evaluate(
            """() => {
              const put = IDBObjectStore.prototype.put;
              IDBObjectStore.prototype.put = function (value) {
                if (!window.room) throw new DOMException("full", "QuotaExceededError");
                return put.call(this, value);
              };
            }"""
        )
        await visit.ask("pears")
        await expect(visit.toast).to_contain_text("storage is full")
        await expect(visit.turns.last).to_have_attribute("data-status", "done")
        prompts = [turn["prompt"] for turn in (await export(visit))["chats"][0]["turns"]]
        assert prompts == ["apples", "pears"]
        await visit.page.evaluate("window.room = true")
        await visit.ask("plums")
        await visit.saved(lambda turns: [turn["prompt"] for turn in turns] == ["apples", "pears", "plums"])


async def test_a_storage_that_is_cleared_under_the_page(visits: Visits) -> None:
    """It says so; what is on the screen can be exported, and is kept again when the person goes on with it."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("apples")
        await visit.answered()
        client = await visit.page.context.new_cdp_session(visit.page)
        await client.send("Storage.clearDataForOrigin", {"origin": gw.url, "storageTypes": "indexeddb"})
        await expect(visit.toast).to_contain_text("storage was cleared")
        assert [turn["prompt"] for turn in (await export(visit))["chats"][0]["turns"]] == ["apples"]
        await visit.ask("pears")
        await expect(visit.turns.last).to_have_attribute("data-status", "done")
        await visit.page.reload()
        await expect(visit.page.locator(".asked .prompt")).to_have_text(["apples", "pears"])


async def test_a_connection_that_is_lost_is_opened_again(visits: Visits) -> None:
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.page.evaluate(
            """() => {
              const transaction = IDBDatabase.prototype.transaction;
              IDBDatabase.prototype.transaction = function (...given) {
                if (window.breaking) this.close();
                window.breaking = false;
                return transaction.apply(this, given);
              };
            }"""
        )
        for prompt in ("apples", "pears"):
            await visit.page.evaluate("window.breaking = true")
            await visit.ask(prompt)
            await visit.answered()
        await visit.page.reload()
        await expect(visit.page.locator(".asked .prompt")).to_have_text(["apples", "pears"])


async def test_what_is_stored_grows_with_what_was_said(visits: Visits) -> None:
    """Not with its square: no request is kept, an image once, and a growing answer costs only what is new."""
    async with gateway(Simulator(token_rate=200, load_seconds=0, prompt_seconds=0)) as gw:
        visit = await visits.open(gw.url)
        await visit.page.evaluate(
            """() => {
              window.written = 0;
              const put = IDBObjectStore.prototype.put;
              IDBObjectStore.prototype.put = function (value) {
                window.written += JSON.stringify(value).length;
                return put.call(this, value);
              };
            }"""
        )
        await visit.choose("gemma3:latest")
        picture = {"a.png": PIXEL + b"\0" * 300_000}
        await visit.attach(picture)
        await expect(visit.page.locator("#thumbs img")).to_have_count(1)
        for number in range(6):
            await visit.ask(f"question {number} " + "x" * 2_000)
            await visit.answered()
        stored = await visit.page.evaluate(STORED)
        assert len(stored["images"]) == 1
        assert stored["pieces"] == []
        said = sum(len(turn["prompt"]) for turn in stored["turns"]) + sum(len(a["text"]) for a in stored["answers"])
        image = len(stored["images"][0]["url"])
        assert image > 400_000
        assert len(json.dumps(stored)) < image + 2 * said + 6 * 1_500
        assert await visit.page.evaluate("window.written") < image + 3 * said + 6 * 5_000


async def test_a_newer_version_of_the_page_takes_the_storage(visits: Visits) -> None:
    """In another tab: this one says so and goes on in memory, and nothing that the new version has is touched."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("apples")
        await visit.answered()
        newer = await visits.tab(gw.url, "/static/favicon.svg")
        await newer.page.evaluate(
            """() => new Promise((resolve) => {
              const request = indexedDB.open("gateway", 99);
              request.onsuccess = () => { request.result.close(); resolve(); };
            })"""
        )
        await visit.ask("pears")
        await expect(visit.toast).to_contain_text("A newer version of this page is open in another tab")
        await expect(visit.turns.last).to_have_attribute("data-status", "done")
        prompts = [turn["prompt"] for turn in (await export(visit))["chats"][0]["turns"]]
        assert prompts == ["apples", "pears"]
        stored = await newer.page.evaluate(STORED)
        assert [turn["prompt"] for turn in stored["turns"]] == ["apples"]


async def test_what_is_attached_survives_a_reload(visits: Visits) -> None:
    """In its tab, as far as it fits; what does not is said to be missing, once."""
    async with gateway(simulator := Simulator(token_rate=400, load_seconds=0, prompt_seconds=0)) as gw:
        visit = await visits.open(gw.url)
        await visit.choose("gemma3:latest")
        files = {"photo.png": PIXEL, "notes.md": b"# Notes"}
        attached = visit.page.locator("#thumbs li")
        await visit.attach(files)
        await expect(attached).to_have_count(2)
        await visit.page.reload()
        await expect(attached).to_have_count(2)
        await visit.ask("Look")
        await visit.answered()
        [message] = json.loads(simulator.requests[-1].body)["messages"]
        assert len(message["images"]) == 1
        assert message["content"] == "notes.md:\n```\n# Notes\n```\n\nLook"
        large = {"large.png": PIXEL + b"\0" * 8_000_000}
        await visit.attach({"notes.md": b"# Notes"} | large)
        await expect(attached).to_have_count(2)
        await visit.page.reload()
        await expect(visit.toast).to_contain_text("1 attachment of this unsent prompt could not be kept. Add it again")
        await expect(attached).to_have_text(["notes.md 7 B"])
        await visit.page.reload()
        await expect(attached).to_have_text(["notes.md 7 B"])
        await expect(visit.toast).to_have_count(0)
        await visit.new_chat()
        await expect(attached).to_have_count(0)


async def test_what_is_typed_survives_a_reload(visits: Visits) -> None:
    """By chat, and for a chat that has not begun; two tabs may each begin one. What was sent is no draft any more.

    Nor is what was changed of a prompt and cancelled.
    """
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.prompt.fill("a new thought")
        other = await visits.tab(gw.url)
        await expect(other.prompt).to_have_value("")
        await visit.page.reload()
        await expect(visit.prompt).to_have_value("a new thought")
        await visit.ask("  apples")
        await visit.answered()
        await expect(visit.page.locator(".asked .prompt")).to_have_text("  apples", use_inner_text=True)
        await visit.prompt.fill("half a thought")
        await visit.page.reload()
        await expect(visit.prompt).to_have_value("half a thought")
        await visit.page.get_by_role("button", name="New chat").click()
        await expect(visit.prompt).to_have_value("")
        await visit.page.get_by_role("link", name="apples").click()
        await expect(visit.prompt).to_have_value("half a thought")
        await visit.prompt.press("Enter")
        await visit.answered()
        await visit.page.reload()
        await expect(visit.turns).to_have_count(2)
        await expect(visit.prompt).to_have_value("")
        editing = visit.page.locator(".editing textarea")
        for _ in range(2):
            await visit.prompt.press("ArrowUp")
            await expect(editing).to_have_value("half a thought")
            await editing.fill("another thought")
            await visit.page.reload()
            await visit.prompt.press("ArrowUp")
            await expect(editing).to_have_value("another thought")
            await editing.press("Escape")


async def test_nothing_is_left_of_what_was_typed_in_a_deleted_chat(visits: Visits) -> None:
    """But in the tab that can undo it."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("apples")
        await visit.answered()
        await visit.prompt.press("ArrowUp")
        await visit.page.locator(".editing textarea").fill("pears")
        await visit.prompt.fill("half a thought")
        await visit.page.locator(".chat").hover()
        await visit.page.locator(".chat").get_by_role("button", name="Delete").click()
        await expect(visit.page.locator(".chat")).to_have_count(0)
        assert not re.search("half a thought|pears", await visit.page.evaluate("JSON.stringify(localStorage)"))
        await visit.toast.get_by_role("button", name="Undo").click()
        await expect(visit.prompt).to_have_value("half a thought")
