"""Whatever a model writes, it stays text: nothing runs, nothing is asked for, in bounded time."""

import pytest
from playwright.async_api import expect

from tests.gateways import gateway
from tests.page.pages import Visits
from tests.page.parrot import Parrot
from tests.servers import serve

HOSTILE = """<script>window.owned = 1</script>

<img src="https://evil.example/a.png" onerror="window.owned = 1"> <svg onload="window.owned = 1">

[a](javascript:window.owned=1) [b](JaVaScRiPt:window.owned=1) [c](java\tscript:x) [d](data:text/html,<b>) [e](vbscript:)

![picture](https://evil.example/b.png) ![inline](data:image/svg+xml;base64,PHN2Zy8+)
[![x](https://evil.example/c.png)](javascript:x)

[f](https://safe.example" onclick="window.owned=1) <javascript:window.owned=1> [g](//evil.example)
[h](file:///etc/passwd)

<a href="javascript:window.owned=1">i</a> <iframe src="https://evil.example"></iframe> <style>body{display:none}</style>

| a | b |
|---|---|
| <b onclick=x>c</b> | [d](javascript:x) |

```html"><script>window.owned = 1</script>
<script>window.owned = 1</script>
```

- <input onfocus="window.owned=1" autofocus>
> <object data="https://evil.example"></object> <base href="https://evil.example"> <meta http-equiv=refresh content=0>
"""

ALLOWED = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "br", "pre", "code", "blockquote", "ul", "ol", "li", "strong"),
    *("em", "del", "a", "table", "thead", "tbody", "tr", "th", "td", "div", "span", "button", "svg", "use"),
}


async def test_hostile_markdown_is_text(visits: Visits) -> None:
    """Also in thinking and in the title of the chat. No request leaves: every page in these tests is watched."""
    async with serve(Parrot(HOSTILE, piece=r"(?s).{1,7}", rate=300)) as ollama, gateway(ollama) as gw:
        visit = await visits.open(gw.url)
        await visit.ask("<img src=x onerror='window.owned = 1'>")
        assert await visit.answered() == HOSTILE
        found = await visit.page.evaluate(
            """() => [...document.querySelectorAll(".turn .text *")].map((element) =>
                 [element.localName, [...element.attributes].map(({ name, value }) => [name, value])])"""
        )
        assert {tag for tag, _ in found} <= ALLOWED
        attributes = [(tag, name, value) for tag, attrs in found for name, value in attrs]
        assert {
            name for _, name, _ in attributes if name.startswith("on") or name in ("src", "style", "srcdoc")
        } == set()
        links = {value for tag, name, value in attributes if tag == "a" and name == "href"}
        # addresses that stand in the text may be clicked, and lead only where they say
        pictures = {"https://evil.example/a.png", "https://evil.example/b.png"}
        assert links == pictures | {"https://evil.example", "https://safe.example"}
        assert await visit.page.evaluate("window.owned") is None
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
