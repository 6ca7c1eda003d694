"""Fast enough that nobody notices: counted, not timed, so that a busy machine fails nothing."""

from playwright.async_api import expect

from tests.gateways import gateway
from tests.page.pages import Visits
from tests.page.parrot import Parrot
from tests.servers import serve

BLOCK = """## Part {n}

Some **bold**, some *emphasis*, `code` and [a link](https://example.org/{n}) in a paragraph of ordinary length.

- first point of {n}
- second point

```python
def part_{n}(value: int) -> int:
    return value * {n}
```

| a | b |
|---|--:|
| {n} | 1 |

"""
TEXT = "".join(BLOCK.format(n=n) for n in range(80))
FEW = 60
"""Long tasks that a machine busy with other things may bring; a page that re-renders everything has hundreds."""

OBSERVE = """() => {
  window.long = [];
  new PerformanceObserver((list) => window.long.push(...list.getEntries().map((entry) => entry.duration)))
    .observe({ type: "longtask" });
}"""


async def test_20_kb_at_200_tokens_a_second_leave_the_page_free(visits: Visits) -> None:
    """Tasks over 50 ms are rare while it streams and the person types."""
    assert len(TEXT) > 20_000
    async with serve(Parrot(TEXT, rate=200)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await expect(visit.page.locator("#model")).to_contain_text("llama3.2")
        await visit.page.evaluate(OBSERVE)
        await visit.ask("Go on")
        await visit.prompt.press_sequentially("typing stays fluid " * 5, delay=30)
        await expect(visit.turns.last).to_have_attribute("data-status", "done", timeout=60_000)
        assert await visit.answered() == TEXT
        assert len(await visit.page.evaluate("window.long")) <= FEW
        await expect(visit.prompt).to_have_value("typing stays fluid " * 5)


async def test_300_messages_are_opened_at_once(visits: Visits) -> None:
    """150 prompts with answers of a screen each: all there, and the end in view."""
    async with serve(Parrot("Yes.")) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("Hello")
        await visit.answered()
        await visit.page.evaluate(
            """async (text) => {
              const { History } = await import("/static/js/history.js");
              const { newAnswer } = await import("/static/js/answer.js");
              const { newChat, newTurn, NO_SETTINGS } = await import("/static/js/state.js");
              const chat = { ...newChat("m", NO_SETTINGS), title: "long" };
              const answer = { ...newAnswer("m", {}, 0), status: "done", text };
              const turns = [];
              for (let n = 0; n < 150; n++)
                turns.push({ ...newTurn(`prompt ${n}`, [], [], turns.at(-1)), answers: [answer] });
              await new History().restore(chat, turns);
            }""",
            TEXT[:2_000],
        )
        await visit.page.reload()
        await visit.page.get_by_role("link", name="long").click()
        await expect(visit.turns).to_have_count(150)
        await expect(visit.turns.last.locator(".text")).to_be_in_viewport()
