"""What people install is the whole gateway: its code, its page, and nothing that a checkout has beside it."""

from pathlib import Path

import gateway
from gateway.web.routes.page import STATIC
from tests.processes import ROOT

PACKAGE = Path(gateway.__file__).parent


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not {"__pycache__", "static"} & set(path.relative_to(directory).parts)
    }


def test_the_package_under_test_is_that_of_the_checkout() -> None:
    """Otherwise something older is installed, and the other tests say nothing about this code."""
    assert files(PACKAGE) == files(ROOT / "gateway")


def test_the_page_is_in_it() -> None:
    assert files(STATIC) == files(ROOT / "static")
