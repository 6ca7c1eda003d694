"""The documentation is true: what the code has stands in it, and what it links to exists."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.routing import Mount, Route

from gateway import errors, hooks
from gateway.asks.parsing import BODY_OPTIONS, GATEWAY_OPTIONS
from gateway.errors import GatewayError
from gateway.jobs import Kind, Outcome, Phase
from gateway.settings import PREFIX, Settings
from gateway.web.openapi import document
from gateway.web.routes.table import ROUTES
from tests.processes import ROOT
from tests.snippets import PAGES

REFERENCE = (ROOT / "docs/reference.md").read_text()


def shown_default(value: Any) -> str:
    match value:
        case SecretStr() | None | "" | ():
            return "–"
        case bool():
            return str(value).lower()
        case int() if value >= 2**20 and value % 2**20 == 0:
            return f"{value // 2**20} MiB"
        case int() if value >= 2**10 and value % 2**10 == 0:
            return f"{value // 2**10} KiB"
        case int():
            return f"{value:,}".replace(",", " ") if value >= 10_000 else str(value)
        case _:
            return str(value)


def setting_rows() -> list[str]:
    return [
        f"| `{PREFIX}{name.upper()}` | {shown_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


@pytest.mark.parametrize("row", setting_rows())
def test_every_setting_stands_in_the_reference_with_its_default(row: str) -> None:
    assert row in REFERENCE.splitlines(), f"docs/reference.md lacks this row:\n{row}"


def test_the_reference_has_no_setting_that_is_none() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for page in PAGES:
        for name in re.findall(rf"{PREFIX}[A-Z_]+[A-Z]", page.read_text()):
            assert name in known, f"{page.name}: {name}"


def routes() -> list[str]:
    rows = []
    for route in ROUTES:
        if isinstance(route, Route):
            path = re.sub(r"{sid}", "{id}", route.path)
            rows += [f"{method} {path}" for method in sorted(route.methods or set()) if method != "HEAD"]
        elif isinstance(route, Mount):
            rows.append(f"GET {route.path}/…")
    return rows


@pytest.mark.parametrize("route", routes())
def test_every_route_stands_in_the_reference(route: str) -> None:
    assert f"`{route}`" in REFERENCE


def error_classes(kind: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    found = [kind] if "code" in vars(kind) else []
    return found + [
        each
        for sub in kind.__subclasses__()
        if sub.__module__ in (errors.__name__, hooks.__name__)
        for each in error_classes(sub)
    ]


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.code)
def test_every_error_code_stands_in_the_reference_with_its_status(error: type[GatewayError]) -> None:
    retryable = "yes" if error.retryable else "no"
    assert re.search(rf"^\| `{error.code}` \| {error.status}[^|]* \| {retryable}[^|]* \|", REFERENCE, re.MULTILINE)


@pytest.mark.parametrize(
    "word", [*Kind, *Phase, *Outcome, *BODY_OPTIONS, *GATEWAY_OPTIONS, "options.NAME", "variables.NAME"]
)
def test_every_word_of_the_contract_stands_in_the_reference(word: str) -> None:
    assert f"`{word}`" in REFERENCE


def spelled_events() -> set[str]:
    """The names that the code gives to events, wherever it does."""
    spelling = re.compile(r"""(?:sidecar\("|b"event: )(\w+)""")
    return {name for path in (ROOT / "gateway").rglob("*.py") for name in spelling.findall(path.read_text())}


def test_every_event_stands_in_the_reference_and_in_the_openapi_document() -> None:
    documented = document(ROUTES)["components"]["schemas"]["Event"]["oneOf"]
    assert spelled_events() == {"meta", "status", "end"}
    assert spelled_events() == {kind["properties"]["event"]["const"] for kind in documented} - {"message"}
    assert spelled_events() == set(re.findall("^event: (.*)$", REFERENCE, re.MULTILINE))


def prose(page: Path) -> str:
    """A page without its code, where a `#` begins no heading."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: a second heading of the same words ends in -1."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(plain if plain not in found else f"{plain}-{found.count(plain)}")
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(targets) == text.count("]("), "a link that is not read by this test"
    for target in targets:
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else page.parent / path
        assert file.exists(), target
        assert file.resolve().is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file), target


def test_every_module_stands_in_the_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for module in sorted((ROOT / "gateway").iterdir()):
        if (module.name.startswith("_") and module.name != "__main__.py") or module.name in ("py.typed", "static"):
            continue
        name = module.stem if module.is_file() else module.name + "/"
        assert f"`{name}`" in text, name
