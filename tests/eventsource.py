"""A client that behaves like `EventSource`: it comes back whenever it is cut, with the last id it has seen."""

import asyncio
import random
from contextlib import suppress

import aiohttp

from gateway.dialects.events import LOST
from tests.sse import Event, Events, ending

ACCEPT = {"Accept": "text/event-stream"}


async def follow(
    session: aiohttp.ClientSession,
    url: str,
    *,
    seconds: float = 60,
    cuts: random.Random | None = None,
) -> list[Event]:
    """All events with an id, to the end. With `cuts` the client also leaves by itself, now and then.

    It does not leave before it has an id: a one-shot would then start again, at the end of the queue.
    """
    seen: list[Event] = []
    try:
        async with asyncio.timeout(seconds):
            await _follow(session, url, seen, cuts)
    except TimeoutError:
        raise AssertionError(f"{url} has not ended within {seconds:g} s, after {seen[-1:]}") from None
    return seen


async def _follow(session: aiohttp.ClientSession, url: str, seen: list[Event], cuts: random.Random | None) -> None:
    while True:
        headers = ACCEPT | ({"Last-Event-ID": seen[-1].id or ""} if seen else {})
        patience = cuts.expovariate(0.5) if cuts and seen else None
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(url, headers=headers) as response, asyncio.timeout(patience):
                assert response.status in (200, 204, 502, 503, 504), await response.text()
                if response.status == 204:
                    return
                if response.status == 200:
                    await _read(response, seen)
        if seen and seen[-1].name == "end":
            return
        await asyncio.sleep(0.05)


async def _read(response: aiohttp.ClientResponse, seen: list[Event]) -> None:
    with suppress(aiohttp.ClientPayloadError):
        async for event in Events(response):
            if event.id and event.name != "meta":
                seen.append(event)  # noqa: PERF401 - what came before a cut counts


def whole(events: list[Event]) -> tuple[str, str | None]:
    """Outcome and error code, after checking that nothing was lost, doubled or reordered, and that it ended once."""
    sid = (events[0].id or "").split("-")[0]
    numbers = [int((event.id or "").removeprefix(f"{sid}-")) for event in events]
    if numbers[-1] > LOST:
        assert numbers[-2:] == [LOST, LOST + 1]
        numbers = numbers[:-2]
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    return ending(events)
