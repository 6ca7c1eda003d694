"""A stop of the real process: streams finish or get an end, no client is cut off, and nothing looks like a crash."""

import asyncio
import re
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import pytest

from gateway.demo import Simulator
from gateway.streams.generation import SHUTDOWN_RETRY_MS
from gateway.web.server import FLUSH_SECONDS
from tests.asks import STORY, STORY_PATH, quick
from tests.processes import Process, process
from tests.raw import stalled
from tests.servers import serve
from tests.sse import Event, Events, ending, messages

PATIENCE = 2
"""Seconds from the last stream's end to the process's own: less than any time limit that a stop could wait for."""


def ollama(tokens_per_second: float) -> Simulator:
    return quick(token_rate=tokens_per_second, parallel=128)


async def watch(session: aiohttp.ClientSession, url: str, started: asyncio.Semaphore) -> tuple[list[Event], bytes]:
    """A stream's events and bytes, to its end. `started` is released at the first token."""
    async with session.get(url) as response:
        events = Events(response)
        received = [await events.next()]
        started.release()
        received += [event async for event in events]
        return received, events.raw


async def watch_100(session: aiohttp.ClientSession, url: str) -> list[asyncio.Task[tuple[list[Event], bytes]]]:
    """100 viewers of 100 streams, each of which has begun to answer."""
    started = asyncio.Semaphore(0)
    viewers = [asyncio.create_task(watch(session, url, started)) for _ in range(100)]
    for _ in viewers:
        await started.acquire()
    return viewers


async def ended_well(gateway: Process, seconds: float = PATIENCE) -> None:
    """Wait until it has ended: soon, by itself, with success and without complaints in its log."""
    async with asyncio.timeout(seconds):
        assert await gateway.ended() == 0
    complaints = [line for line in gateway.log if re.search("Traceback|Error|ERROR|WARNING", line)]
    assert complaints == []


@pytest.mark.slow
async def test_100_running_streams_all_finish(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    """Each has 60 tokens to come at 20 a second, which takes 3 s of the 20 s that it may take."""
    async with (
        serve(ollama(20).app) as upstream,
        process(tmp_path, f"--ollama-url={upstream}", "--max-active=100", "--num-parallel=100") as gw,
    ):
        viewers = await watch_100(session, f"{gw.url}{STORY_PATH}&options.num_predict=60")
        gw.terminate()
        seen = await asyncio.gather(*viewers)
        await ended_well(gw)
    assert [ending(events) for events, _ in seen] == [("complete", None)] * 100
    assert {len(messages(events)) for events, _ in seen} == {61}


async def test_streams_that_last_longer_than_the_drain_are_told(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    simulator = ollama(5)
    flags = ("--max-active=90", "--num-parallel=90", "--drain-seconds=2")  # the last ten still wait in the queue
    async with serve(simulator.app) as upstream, process(tmp_path, f"--ollama-url={upstream}", *flags) as gw:
        started = asyncio.Semaphore(0)
        viewers = [
            asyncio.create_task(watch(session, f"{gw.url}{STORY_PATH}&options.num_predict=300", started))
            for _ in range(100)
        ]
        for _ in range(90):
            await started.acquire()
        gw.terminate()
        seen = await asyncio.gather(*viewers)
        await ended_well(gw)
        await simulator.until(lambda: simulator.running == 0)
    assert [ending(events) for events, _ in seen] == [("error", "shutting_down")] * 100
    assert all(messages(events)[-1].json["retryable"] for events, _ in seen)
    retries = [[int(time) for time in re.findall(rb"^retry: (\d+)$", raw, re.MULTILINE)] for _, raw in seen]
    assert {len(times) for times in retries} == {2}  # the usual one at the start, then this stream's own
    low, high = SHUTDOWN_RETRY_MS
    assert all(low <= own <= high for _, own in retries)
    assert len({own for _, own in retries}) > 50


async def test_a_second_signal_ends_the_streams_at_once(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with (
        serve(ollama(5).app) as upstream,
        process(tmp_path, f"--ollama-url={upstream}", "--max-active=100", "--num-parallel=100") as gw,
    ):
        viewers = await watch_100(session, f"{gw.url}{STORY_PATH}")
        gw.terminate()
        await until_draining(session, gw)
        gw.terminate()
        seen = await asyncio.gather(*viewers)
        await ended_well(gw)
    assert [ending(events) for events, _ in seen] == [("error", "shutting_down")] * 100


async def until_draining(session: aiohttp.ClientSession, gateway: Process) -> None:
    while True:
        async with session.get(gateway.url + "/readyz") as response:
            if response.status == 503:
                assert (await response.json())["reason"] == "The gateway is shutting down."
                return


async def test_while_it_drains_old_streams_are_served_and_new_ones_refused(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(serve(ollama(20).app))
        gw = await stack.enter_async_context(process(tmp_path, f"--ollama-url={upstream}"))
        body = {"chat": STORY}
        async with session.post(gw.url + "/api/streams", json=body) as response:
            stream = gw.url + (await response.json())["url"]
        first = Events(await stack.enter_async_context(session.get(stream)))
        seen = await first.next()
        gw.terminate()
        await until_draining(session, gw)

        async with session.post(gw.url + "/api/streams", json=body) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            assert (await response.json())["code"] == "shutting_down"
        async with session.get(gw.url + STORY_PATH, headers={"Accept": "text/event-stream"}) as response:
            assert ending([event async for event in Events(response)]) == ("error", "shutting_down")
        async with session.get(gw.url + "/healthz") as response:
            assert response.status == 200

        again = Events(await stack.enter_async_context(session.get(stream, headers={"Last-Event-ID": seen.id or ""})))
        assert (await again.next()).data == (await first.next()).data
        async with session.delete(stream) as response:
            assert response.status == 204
        assert ending([event async for event in again]) == ("cancelled", "cancelled")
        assert ending([event async for event in first]) == ("cancelled", "cancelled")
        await ended_well(gw)


@pytest.mark.parametrize(("signals", "seconds"), [(1, FLUSH_SECONDS + PATIENCE), (2, PATIENCE)])
@pytest.mark.slow
async def test_viewers_that_never_read_do_not_hold_the_stop(
    tmp_path: Path, session: aiohttp.ClientSession, signals: int, seconds: float
) -> None:
    """They are cut off when the time to read the end is over, or soon after a second signal."""
    burst = "/api/chat?model=fault:burst-20000&prompt=Hi"
    async with serve(ollama(0).app) as upstream, process(tmp_path, f"--ollama-url={upstream}") as gw:
        silent = [stalled(gw.url, burst) for _ in range(3)]
        async with session.get(gw.url + burst) as response:
            assert ending([event async for event in Events(response)]) == ("complete", None)
        gw.terminate()
        if signals == 2:
            await until_refused(session, gw)
            gw.terminate()
        await ended_well(gw, seconds)
        for sock in silent:
            sock.close()


async def until_refused(session: aiohttp.ClientSession, gateway: Process) -> None:
    with suppress(aiohttp.ClientConnectionError):
        while True:
            async with session.get(gateway.url + "/healthz", headers={"Connection": "close"}):
                pass
