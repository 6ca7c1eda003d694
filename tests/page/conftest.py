"""One Chromium for all tests of the page; what every one of them must not do is checked at its end."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.page.pages import ARGUMENTS, Visits


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium. The back/forward cache is on, as it is for people."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=ARGUMENTS,
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visits(browser: Browser) -> AsyncIterator[Visits]:
    """Opens pages; at the end no page may have had an error, a CSP violation or asked another origin."""
    visits = Visits(browser)
    yield visits
    await visits.leave()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder shares the browser's event loop."""
    for item in items:
        if item.path.is_relative_to(os.path.dirname(__file__)):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
