"""A Chromium for each test of the page; what every one of them must not do is checked at its end."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.page.pages import Visits, chromium, visiting


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium, on the loop of the test. On a loop that lasts longer it failed in whole runs.

    The back/forward cache is on, as it is for people, where there is one.
    """
    async with chromium(ignore_default_args=["--disable-back-forward-cache"]) as browser:
        yield browser


@pytest.fixture
async def visits(browser: Browser) -> AsyncIterator[Visits]:
    async with visiting(browser) as visits:
        yield visits
