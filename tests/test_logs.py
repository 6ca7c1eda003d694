"""The promises of every kind of log: one suite, run for each backend."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from gateway.dialects import events
from gateway.errors import Busy, TooLarge
from gateway.jobs import End, Kind, Meta, Outcome, Phase
from gateway.replicas.logs import RedisLogs
from gateway.replicas.replica import Replica
from gateway.streams.buffer import CHUNK_BYTES
from gateway.streams.ledger import Ledger
from gateway.streams.log import EventLog, LogStore, Progress, ReadableLog
from gateway.streams.memory import MemoryLog, MemoryLogs
from gateway.streams.running import Running
from gateway.streams.shelf import Shelf
from tests.redis_server import Redis
from tests.sse import Event, parse
from tests.waits import until

META: Meta = {"v": 1, "id": "0", "url": "", "kind": Kind.CHAT, "model": "m"}
HEAD = events.retry(1000) + events.meta(META, primed=False)
FAREWELL = events.retry(100)
SUMMARY: End = {"outcome": Outcome.COMPLETE, "events": 1, "first_token_ms": None, "elapsed_ms": 0}
BOUNDS: dict[str, Any] = {"max_stream_bytes": 10**6, "retain_seconds": 60.0}

Open = Callable[..., Awaitable[LogStore]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.slow)])
async def open_logs(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """A function that opens a store, with some of the bounds changed."""
    redis: Redis | None = request.getfixturevalue("redis") if request.param == "redis" else None

    async with AsyncExitStack() as stack:

        def shelf(max_log_bytes: int = 10**7, **bounds: Any) -> Shelf[Any]:
            made = Shelf[Any](Ledger(max_log_bytes), **BOUNDS | bounds)
            stack.callback(made.close)
            return made

        async def memory(**bounds: Any) -> LogStore:
            return MemoryLogs(shelf(**bounds))

        async def shared(**bounds: Any) -> LogStore:
            assert redis is not None
            replica = Replica(redis.url)
            logs = RedisLogs(replica, shelf(**bounds), Running())
            await stack.enter_async_context(replica)
            return await stack.enter_async_context(logs)

        yield {"memory": memory, "redis": shared}[request.param]


@pytest.fixture
async def logs(open_logs: Open) -> LogStore:
    return await open_logs()


def sid(number: int) -> str:
    return f"{number:032d}"


def parsed(chunks: list[bytes]) -> list[Event]:
    """The events, after checking that every chunk holds whole ones only."""
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)
    return [event for block in b"".join(chunks).split(b"\n\n")[:-1] if (event := parse(block))]


async def read(log: ReadableLog, after: int = 0) -> list[Event]:
    """Everything after `after`, to the end."""
    async with asyncio.timeout(10), aclosing(log.read(after)) as chunks:
        return parsed([chunk async for chunk in chunks])


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def numbers(events: list[Event]) -> list[int]:
    return [int(event.id.rpartition("-")[2]) for event in events if event.id]


async def test_a_new_log_is_empty(logs: LogStore) -> None:
    log = await logs.create(sid(1), HEAD, "ada")
    assert (log.last, log.progress(0), log.progress(1)) == (0, Progress.MORE, Progress.UNKNOWN)
    assert await logs.find(sid(1)) is not None
    assert await logs.find(sid(2)) is None
    assert logs.size > 0


async def test_a_reader_gets_head_events_and_end(logs: LogStore) -> None:
    """They come in this order, numbered from 1, and the `end` event has the last number."""
    log = await logs.create(sid(1), HEAD, "ada")
    log.append([b'{"a":1}', b'{"b":\r2}'])
    log.end(b'{"done":true}', SUMMARY)
    assert log.last == 4
    assert [log.progress(seq) for seq in (3, 4, 5)] == [Progress.MORE, Progress.NOTHING, Progress.UNKNOWN]
    seen = await read(log)
    assert [event.name for event in seen] == ["meta", "message", "message", "message", "end"]
    assert [event.data for event in seen[1:4]] == [b'{"a":1}', b'{"b": 2}', b'{"done":true}']
    assert [event.id for event in seen[1:]] == [f"{sid(1)}-{number}" for number in (1, 2, 3, 4)]
    assert seen[4].json == SUMMARY


async def test_an_end_without_a_terminal_message(logs: LogStore) -> None:
    """Where Ollama's own last line was the terminal message, only `end` follows."""
    log = await logs.create(sid(1), HEAD, "ada")
    log.append([b'{"done":true}'])
    log.end(None, SUMMARY)
    assert [event.name for event in await read(log)] == ["meta", "message", "end"]
    assert log.last == 2


async def test_an_end_may_set_the_time_to_reconnect(logs: LogStore) -> None:
    """This reaches a reader that lacks only the end, too, and is no event of its own."""
    log = await logs.create(sid(1), HEAD, "ada")
    log.append([b"{}"])
    log.end(b'{"error":""}', SUMMARY, retry_ms=1234)
    async with aclosing(log.read(2)) as chunks:
        text = b"".join([chunk async for chunk in chunks])
    assert text.count(b"retry: 1234\n") == 1
    assert numbers(await read(log, 2)) == [3]


@pytest.mark.parametrize("after", range(7))
async def test_a_reader_goes_on_after_what_it_has_seen(logs: LogStore, after: int) -> None:
    log = await logs.create(sid(1), HEAD, "ada")
    log.append([b"{}"] * 5)
    log.end(None, SUMMARY)
    assert numbers(await read(log, after)) == list(range(after + 1, 7))


async def test_live_readers_see_each_event_when_it_comes(logs: LogStore) -> None:
    log = await logs.create(sid(1), HEAD, "ada")
    async with aclosing(log.read(0)) as chunks:
        assert await anext(chunks) == HEAD
        for number in range(1, 4):
            coming = asyncio.ensure_future(anext(chunks))
            await settle()
            assert not coming.done()
            log.append([b"{}"])
            assert numbers(parsed([await coming])) == [number]
        log.end(None, SUMMARY)
        assert numbers(parsed([await anext(chunks)])) == [4]
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)


async def test_readers_at_any_time_read_the_same(logs: LogStore) -> None:
    """Live, late, resuming and after the end: one code path, the same bytes."""
    log = await logs.create(sid(1), HEAD, "ada")
    readers: list[asyncio.Task[list[Event]]] = []
    for number in range(100):
        readers.append(asyncio.create_task(read(log)))
        readers.append(asyncio.create_task(read(log, log.last)))
        if number % 3 == 0:
            await settle()
        log.append([b'{"n":%d}' % number])
    log.end(None, SUMMARY)
    whole = await read(log)
    assert numbers(whole) == list(range(1, 102))
    for number, seen in enumerate(await asyncio.gather(*readers)):
        assert seen[1:] == (whole[1:] if number % 2 == 0 else whole[1 + number // 2 :])


async def test_a_reader_that_is_cancelled_takes_no_other_with_it(logs: LogStore) -> None:
    log = await logs.create(sid(1), HEAD, "ada")
    leaving, staying = [asyncio.create_task(read(log)) for _ in range(2)]
    await settle()
    leaving.cancel()
    await settle()
    log.append([b"{}"])
    leaving_late = asyncio.create_task(read(log))
    await settle()
    log.append([b"{}"])
    leaving_late.cancel()  # in the same turn in which it is woken
    log.end(None, SUMMARY)
    assert numbers(await staying) == [1, 2, 3]


async def test_a_reader_that_is_slow_misses_nothing(logs: LogStore) -> None:
    """It delays no other reader, and reads on in chunks of a bounded size."""
    log = await logs.create(sid(1), HEAD, "ada")
    async with aclosing(log.read(0)) as chunks:
        first = await anext(chunks)
        for _ in range(1000):
            log.append([b'"%b"' % (b"x" * 500)])
        log.end(None, SUMMARY)
        rest = [chunk async for chunk in chunks]
    assert numbers(parsed([first, *rest])) == list(range(1, 1002))
    assert max(map(len, rest)) < CHUNK_BYTES + 1000
    assert len(rest) < 20


async def test_an_event_larger_than_a_chunk(logs: LogStore) -> None:
    log = await logs.create(sid(1), HEAD, "ada")
    log.append([b"{}", b'"%b"' % (b"x" * 3 * CHUNK_BYTES), b"{}"])
    log.end(None, SUMMARY)
    assert numbers(await read(log)) == [1, 2, 3, 4]


async def test_notices_are_shown_live_and_not_kept(logs: LogStore) -> None:
    """A live reader sees each, a later one sees the newest, and after the first event there are none."""
    log = await logs.create(sid(1), HEAD, "ada")
    live = asyncio.create_task(read(log))
    await settle()
    for number in range(3):
        log.announce(notice(number))
    late = asyncio.create_task(read(log))
    await settle()
    log.append([b"{}"])
    log.announce(notice(3))
    latest = asyncio.create_task(read(log))
    await settle()
    log.end(None, SUMMARY)
    assert [event.json["elapsed_ms"] for event in await live if event.name == "status"] == [0, 1, 2]
    assert [event.json["elapsed_ms"] for event in await late if event.name == "status"] == [2]
    for seen in (await latest, await read(log)):
        assert [event.name for event in seen] == ["meta", "message", "end"]


async def test_a_reader_far_behind_sees_some_notices(logs: LogStore) -> None:
    log = await logs.create(sid(1), HEAD, "ada")
    live = asyncio.create_task(read(log))
    await settle()
    for number in range(1000):
        log.announce(notice(number))
    await settle()
    log.end(None, SUMMARY)
    shown = [event.json["elapsed_ms"] for event in await live if event.name == "status"]
    assert shown == sorted(shown)
    assert shown[-1] == 999


async def test_a_stream_has_a_bound(open_logs: Open) -> None:
    """Lines that would cross it are refused as a whole; earlier events stay, and the end can always be written."""
    logs = await open_logs(max_stream_bytes=1000)
    log = await logs.create(sid(1), HEAD, "ada")
    log.append([b"{}"])
    with pytest.raises(TooLarge, match="GATEWAY_MAX_STREAM_BYTES"):
        log.append([b"{}", b'"%b"' % (b"x" * 1000)])
    log.append([b"{}"])
    log.end(b'"%b"' % (b"x" * 1000), SUMMARY)
    assert numbers(await read(log)) == [1, 2, 3, 4]


async def test_all_streams_together_have_a_bound(open_logs: Open) -> None:
    """Running streams are never evicted: the one that asks for more gets `busy`, and may still end."""
    logs = await open_logs(max_log_bytes=2000)
    first, second = [await logs.create(sid(number), HEAD, "ada") for number in (1, 2)]
    first.append([b'"%b"' % (b"x" * 1500)])
    with pytest.raises(Busy, match="GATEWAY_MAX_LOG_BYTES"):
        second.append([b'"%b"' % (b"x" * 1000)])
    second.end(b'{"error":""}', SUMMARY)
    assert numbers(await read(second)) == [1, 2]
    with pytest.raises(Busy):
        await logs.create(sid(3), HEAD * 100, "ada")
    assert await logs.find(sid(3)) is None
    assert numbers(await read_so_far(first)) == [1]


def notice(number: int) -> bytes:
    return events.status({"phase": Phase.LOADING, "elapsed_ms": number})


async def read_so_far(log: EventLog) -> list[Event]:
    async with aclosing(log.read(0)) as chunks:
        return parsed([await anext(chunks)])


@pytest.mark.parametrize("open_logs", ["memory"], indirect=True)  # others find them a little longer
async def test_ended_streams_make_room_oldest_first(open_logs: Open) -> None:
    logs = await open_logs(max_log_bytes=4000)
    first, second, running = [await logs.create(sid(number), HEAD, "ada") for number in (1, 2, 3)]
    for log in (first, second, running):
        log.append([b'"%b"' % (b"x" * 800)])
    for log in (second, first):
        log.end(None, SUMMARY)
    running.append([b'"%b"' % (b"x" * 1000)])
    assert [await logs.find(sid(number)) is not None for number in (1, 2, 3)] == [True, False, True]
    running.append([b'"%b"' % (b"x" * 1000)])
    assert [await logs.find(sid(number)) is not None for number in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize("open_logs", ["memory"], indirect=True)  # others find them a little longer
async def test_ended_streams_go_when_their_time_is_over(open_logs: Open) -> None:
    """Each is removed after its own retention and gives its bytes back; a running one stays."""
    logs = await open_logs(retain_seconds=0.05)
    running = await logs.create(sid(0), HEAD, "ada")
    size = logs.size
    for number in (1, 2, 3):
        log = await logs.create(sid(number), HEAD, "ada")
        log.append([b"{}"] * number)
        log.end(b"{}", SUMMARY)
        assert numbers(await read(log)) == list(range(1, number + 3))
        await asyncio.sleep(0.01)
    await until(lambda: logs.size == size)
    assert [await logs.find(sid(number)) is not None for number in range(4)] == [True, False, False, False]
    running.end(None, SUMMARY)
    await until(lambda: logs.size == 0)


async def test_a_reader_of_a_stream_that_goes_is_not_left_hanging(open_logs: Open) -> None:
    """A reader that has stalled until then is told that the rest is gone, and sees an end like any other."""
    logs = await open_logs(retain_seconds=0)
    log = await logs.create(sid(1), HEAD, "ada")
    async with asyncio.timeout(10), aclosing(log.read(0)) as chunks:
        await anext(chunks)
        log.append([b"{}"])
        log.end(None, SUMMARY)
        await until(lambda: logs.size == 0)
        [lost, end] = parsed([chunk async for chunk in chunks])
        assert (lost.name, lost.json["code"]) == ("message", "not_found")
        assert (end.name, end.json["outcome"]) == ("end", "error")


async def test_a_reader_that_waits_reads_the_end_though_nothing_is_retained(open_logs: Open) -> None:
    logs = await open_logs(retain_seconds=0)
    log = await logs.create(sid(1), HEAD, "ada")
    reader = asyncio.create_task(read(log))
    await settle()
    log.append([b"{}"])
    log.end(None, SUMMARY)
    assert numbers(await reader) == [1, 2]


async def test_a_reader_is_sent_away_once_it_has_an_id_to_resume_from() -> None:
    """Before that, it would come back as one that has seen nothing, and ask Ollama once more."""
    shelf = Shelf[Any](Ledger(10**7), **BOUNDS)
    log = MemoryLog(sid(1), HEAD, "ada", shelf)
    log.send_away(FAREWELL)
    async with aclosing(log.read(0, reconnects=True)) as chunks:
        assert await anext(chunks) == HEAD
        going = asyncio.ensure_future(anext(chunks))
        await settle()
        assert not going.done()
        log.append([b"{}"])
        assert numbers(parsed([await going])) == [1]
        assert await anext(chunks) == FAREWELL
        assert [chunk async for chunk in chunks] == []
    shelf.close()
