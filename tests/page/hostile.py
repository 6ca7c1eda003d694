"""A hostile answer, and what of it may be on the page: in each engine the same."""

from pathlib import Path
from typing import Any

HOSTILE = (Path(__file__).parent / "hostile.md").read_text()

FOUND = """() => ({
  elements: [...document.querySelectorAll(".turn .text *")].map((element) =>
    [element.localName, [...element.attributes].map(({ name, value }) => [name, value])]),
  foreign: performance.getEntriesByType("resource").map(({ name }) => name)
    .filter((name) => !name.startsWith(location.origin)),
  owned: window.owned ?? null,
})"""

ELEMENTS = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "br", "pre", "code", "blockquote", "ul", "ol", "li", "strong"),
    *("em", "del", "a", "table", "thead", "tbody", "tr", "th", "td", "div", "span", "button", "svg", "use"),
    *("sub", "sup", "kbd", "details", "summary", "math", "mrow", "mi", "mo", "mn", "mtext", "mfrac"),
}
ATTRIBUTES = {
    *("class", "dir", "title", "href", "target", "rel", "start", "type", "tabindex", "aria-label"),
    *("data-do", "data-note", "data-label", "data-tex", "display", "stretchy"),
}


def assert_harmless(found: dict[str, Any]) -> None:
    """No element, attribute, link or request that should not be, and nothing has run."""
    assert {tag for tag, _ in found["elements"]} - ELEMENTS == set()
    attributes = [(tag, name, value) for tag, attrs in found["elements"] for name, value in attrs]
    assert {name for _, name, _ in attributes} - ATTRIBUTES == set()
    links = {value for tag, name, value in attributes if tag == "a" and name == "href"}
    # An address in the text may be clicked, and leads only where it says; in HTML it is no link.
    assert links == {"https://evil.example/b.png", "https://safe.example", "https://math.example"}
    assert found["foreign"] == []
    assert found["owned"] is None
