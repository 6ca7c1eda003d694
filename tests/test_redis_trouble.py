"""Redis failing at the worst moment, and saying no: nothing is lost, doubled or left behind, and nobody hangs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import pytest

from gateway.demo import Simulator
from gateway.errors import Busy
from gateway.replicas.logs import RedisLogs
from gateway.replicas.mirror import LINGER_SECONDS
from gateway.replicas.published import PublishedLog
from gateway.replicas.queue import SharedQueue
from gateway.replicas.replica import LOST_SECONDS, Replica
from gateway.streams.ledger import Ledger
from gateway.streams.places import Rules
from gateway.streams.queue import Ticket
from gateway.streams.running import Running
from gateway.streams.shelf import Shelf
from tests.asks import STORY, STORY_PATH, quick
from tests.eventsource import ACCEPT
from tests.gateways import gateway
from tests.redis_server import Redis
from tests.redis_wire import wire
from tests.replicas import in_process
from tests.servers import serve
from tests.sse import ending
from tests.test_logs import BOUNDS, HEAD, SUMMARY, numbers, read, sid
from tests.waits import until


class Told(Running):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def stop(self, sid: str, caller: str) -> None:
        self.told.append("stop")

    def join(self, sid: str) -> None:
        self.told.append("join")

    def leave(self, sid: str) -> None:
        self.told.append("leave")

    def disown(self, sid: str) -> None:
        self.told.append("disown")


@dataclass
class Process:
    """One of several processes, as far as its logs go."""

    replica: Replica
    writer: Told
    logs: RedisLogs


@contextmanager
def watching(logs: RedisLogs, sid: str) -> Iterator[None]:
    """Be a viewer of a mirror."""
    leave = logs.watch(sid)
    assert leave
    yield
    leave()


@pytest.fixture
async def opened(redis: Redis) -> AsyncIterator[Callable[..., Any]]:
    """A function that opens the logs of a process, at a URL of Redis."""
    async with AsyncExitStack() as stack:

        async def open_logs(url: str = redis.url, max_log_bytes: int = 10**7, **bounds: Any) -> Process:
            replica, writer = Replica(url), Told()
            logs = RedisLogs(replica, Shelf(Ledger(max_log_bytes), **BOUNDS | bounds), writer)
            await stack.enter_async_context(replica)
            return Process(replica, writer, await stack.enter_async_context(logs))

        yield open_logs


def entries(redis: Redis, number: int = 1) -> list[Any]:
    found: list[Any] = redis.run("XRANGE", f"gateway:log:{sid(number)}", "-", "+")
    return found


async def test_a_mirror_that_could_not_be_read_whole_is_not_kept(opened: Callable[..., Any], redis: Redis) -> None:
    """Otherwise the next viewer would get a mirror that nothing ever comes to."""
    async with wire(redis) as line:
        here, there = await opened(), await opened(line.url)
        log = await here.logs.create(sid(1), HEAD, "ada")
        log.append([b"{}"])
        await until(lambda: len(entries(redis)) == 2)
        line.cut = b"\r\n(1-0"  # the second page
        with pytest.raises(Busy):
            await there.logs.find(sid(1))
        assert there.logs.size == 0
        line.cut = b""
        mirror = await there.logs.find(sid(1))
        log.end(None, SUMMARY)
        assert numbers(await read(mirror)) == [1, 2]


async def test_a_viewer_waits_while_a_mirror_is_made(opened: Callable[..., Any], redis: Redis) -> None:
    """It gets the mirror even if the viewer that asked first has left by then."""
    async with wire(redis) as line:
        here, there = await opened(), await opened(line.url)
        log = await here.logs.create(sid(1), HEAD, "ada")
        log.append([b"{}"])
        await until(lambda: log.unsent == 0)
        came: asyncio.Future[asyncio.Task[Any]] = asyncio.get_running_loop().create_future()
        line.before[b"(1-0"] = lambda: came.set_result(asyncio.create_task(there.logs.find(sid(1))))
        first = asyncio.create_task(there.logs.find(sid(1)))
        second = await came
        first.cancel()
        mirror = await second
        with watching(there.logs, sid(1)):
            await asyncio.sleep(LINGER_SECONDS + 0.5)
            log.end(None, SUMMARY)
            assert numbers(await read(mirror)) == [1, 2]


async def test_an_answer_that_is_lost_on_the_way(opened: Callable[..., Any], redis: Redis) -> None:
    """The events are there once, in the order of their numbers, whatever fails when the writer asks what is there."""
    async with wire(redis) as line:
        here, there = await opened(line.url, retain_seconds=0), await opened()
        log = await here.logs.create(sid(1), HEAD, "ada")
        line.deaf, line.cut = b"NOMKSTREAM", b"XREVRANGE"
        log.end(b"{}", SUMMARY)
        await until(lambda: line.broken > 2)
        line.cut = b""
        mirror = await there.logs.find(sid(1))
        assert numbers(await read(mirror)) == [1, 2]
        await until(lambda: here.logs.size == 0)  # it is not kept to be sent once more


async def test_a_log_is_gone_when_the_writer_asks_what_is_there(opened: Callable[..., Any], redis: Redis) -> None:
    """The log is published again, and so is everything that comes later."""
    async with wire(redis) as line:
        here, there = await opened(line.url), await opened()
        log, other = [await here.logs.create(sid(number), HEAD, "ada") for number in (1, 2)]
        line.deaf = b"NOMKSTREAM"
        line.before[b"XREVRANGE"] = lambda: redis.run("DEL", f"gateway:log:{sid(1)}")
        log.append([b"{}"])
        await until(lambda: log.unsent == 0 and len(entries(redis)) == 2)
        mirror = await there.logs.find(sid(1))
        for each in (log, other):
            each.append([b"{}"])
            each.end(None, SUMMARY)
        assert numbers(await read(mirror)) == [1, 2, 3]
        assert numbers(await read(await there.logs.find(sid(2)))) == [1, 2]


async def test_an_answer_is_lost_when_a_log_is_written_again(opened: Callable[..., Any], redis: Redis) -> None:
    """Events that came in between are counted once."""
    async with wire(redis) as line:
        here, there = await opened(line.url), await opened()
        log = await here.logs.create(sid(1), HEAD, "ada")
        log.append([b"{}"])
        await until(lambda: log.sent == 1)
        redis.run("DEL", f"gateway:log:{sid(1)}")
        log.fresh, log.sent = True, 0  # the state that its next event would lead to
        redis.run("XADD", f"gateway:log:{sid(1)}", "0-1", "head", HEAD, "producer", here.replica.name, "client", "ada")
        log.append([b"{}"])
        await until(lambda: log.sent != 0)
        assert log.sent == 2
        log.append([b"{}"])
        log.end(None, SUMMARY)
        assert numbers(await read(await there.logs.find(sid(1)))) == [1, 2, 3, 4]


async def test_a_replica_that_dies_unseen_by_this_one_has_left(opened: Callable[..., Any], redis: Redis) -> None:
    """Another replica may have noticed its death first, and removed it from the list."""
    here = await opened()
    log = await here.logs.create(sid(1), HEAD, "ada")
    redis.run("XADD", f"gateway:inbox:{here.replica.name}", "*", *("what", "join", "sid", sid(1)), "from", "dead")
    await until(lambda: here.writer.told == ["join"])
    await until(lambda: here.writer.told == ["join", "leave"], LOST_SECONDS)
    assert not log.replicas


async def test_viewers_are_told_of_again(opened: Callable[..., Any], redis: Redis) -> None:
    """A viewer whose replica was taken for dead, or whose message was lost with Redis, still counts."""
    here, there = await opened(), await opened()
    log = await here.logs.create(sid(1), HEAD, "ada")
    await there.logs.find(sid(1))
    with watching(there.logs, sid(1)):
        await until(lambda: len(log.replicas) == 1)
        log.replicas.clear()
        redis.run("SREM", "gateway:replicas", there.replica.name)
        await until(lambda: len(log.replicas) == 1)


async def test_a_message_that_comes_twice_counts_once(opened: Callable[..., Any], redis: Redis) -> None:
    here = await opened()
    await here.logs.create(sid(1), HEAD, "ada")
    for what in ("join", "join", "leave", "leave", "stop"):
        redis.run(
            "XADD",
            f"gateway:inbox:{here.replica.name}",
            "*",
            *("what", what, "sid", sid(1)),
            "from",
            "other",
            "data",
            "",
        )
    await until(lambda: "stop" in here.writer.told)
    assert here.writer.told == ["join", "leave", "stop"]


async def test_a_replica_that_lives_or_has_ended_loses_nothing(opened: Callable[..., Any], redis: Redis) -> None:
    """Another replica may take it for dead when it has just come back, or has just written its end."""
    here, there = await opened(), await opened()
    log = await here.logs.create(sid(1), HEAD, "ada")
    await there.logs.find(sid(1))
    await there.logs.bury(here.replica.name)
    assert len(entries(redis)) == 1
    there.replica.unfollow(f"gateway:log:{sid(1)}")  # it must not hear of the end yet
    log.end(b"{}", SUMMARY)
    await until(lambda: log.unsent == 0)
    redis.run("DEL", f"gateway:replica:{here.replica.name}")
    await there.logs.bury(here.replica.name)
    assert len(entries(redis)) == 2


async def test_an_empty_redis_gets_silent_streams_too(opened: Callable[..., Any], redis: Redis) -> None:
    """A model may load for minutes, and new viewers must find the stream meanwhile."""
    here, there = await opened(), await opened()
    log = await here.logs.create(sid(1), HEAD, "ada")
    log.append([b"{}"])
    await until(lambda: log.unsent == 0)
    redis.run("FLUSHALL")
    await until(lambda: len(entries(redis)) == 2)
    mirror = await there.logs.find(sid(1))
    assert mirror is not None
    log.end(None, SUMMARY)
    assert numbers(await read(mirror)) == [1, 2]


def published(log: PublishedLog) -> bool:
    return log.unsent == 0


async def test_memory_is_short_where_streams_are_only_read(opened: Callable[..., Any]) -> None:
    """There, too, the client pays whose streams take most: its largest copy ends, and can be read again."""
    here, there = await opened(), await opened(max_log_bytes=10_000)
    sizes = {1: 4000, 2: 3000, 3: 3000}
    for number, size in sizes.items():
        log = await here.logs.create(sid(number), HEAD, "ada" if number == 3 else "mallory")
        log.append([b"%d" % 10**size])
        await until(partial(published, log))
    mirrors = [await there.logs.find(sid(number)) for number in sizes]
    assert [mirror.buffer.ended for mirror in mirrors] == [True, False, False]
    assert there.logs.size < 10_000
    assert await there.logs.find(sid(1)) is not mirrors[0]


async def test_a_shutdown_that_begins_while_a_stream_is_started(redis: Redis) -> None:
    """Its viewers are sent away with the others, so it waits for their return as well."""
    simulator = quick(token_rate=50, parallel=64)
    async with (
        wire(redis) as line,
        serve(simulator.app) as ollama,
        gateway(ollama, redis_url=line.url) as here,
        gateway(ollama, redis_url=redis.url) as there,
    ):
        line.before[b"producer"] = here.state["streams"].hand_over
        path = STORY_PATH + "&options.num_predict=100"
        first = await here.read(path, headers=ACCEPT)
        last = next(event.id for event in reversed(first) if event.id)
        rest = await there.read(path, headers=ACCEPT | {"Last-Event-ID": last})
        assert ending(rest) == ("complete", None)
    assert len(simulator.requests) == 1


async def test_a_mirror_takes_what_is_written_again_once(opened: Callable[..., Any], redis: Redis) -> None:
    here, there = await opened(), await opened()
    log = await here.logs.create(sid(1), HEAD, "ada")
    mirror = await there.logs.find(sid(1))
    with watching(there.logs, sid(1)):
        log.append([b"{}", b"{}"])
        await until(lambda: mirror.last == 2)
        redis.run("FLUSHALL")
        log.append([b"{}"])
        log.end(None, SUMMARY)
        assert numbers(await read(mirror)) == [1, 2, 3, 4]


async def test_a_replica_without_a_lease_at_one_check_may_live(opened: Callable[..., Any], redis: Redis) -> None:
    """After a pause of Redis all leases have run out, and a check may come before the beats."""
    here = await opened()
    await here.logs.create(sid(1), HEAD, "ada")
    redis.run("SADD", "gateway:replicas", "late")
    redis.run("XADD", f"gateway:inbox:{here.replica.name}", "*", *("what", "join", "sid", sid(1)), "from", "late")
    await until(lambda: here.replica._suspects == {"late"})
    redis.run("SET", "gateway:replica:late", "", "PX", 60_000)
    await until(lambda: not here.replica._suspects)
    assert here.writer.told == ["join"]


async def test_a_drain_waits_for_a_stream_that_is_being_started(redis: Redis) -> None:
    """The stream was accepted, so it is finished, too."""
    simulator = quick(token_rate=50, parallel=64)
    async with wire(redis) as line, gateway(simulator, redis_url=line.url) as gw:
        streams, drains = gw.state["streams"], list[asyncio.Task[None]]()
        line.before[b"producer"] = lambda: drains.append(asyncio.create_task(streams.drain(20)))
        async with gw.open("/api/chat", json=STORY | {"options": {"num_predict": 20}}) as seen:
            await seen.next()
            assert not drains[0].done()
            assert ending([event async for event in seen]) == ("complete", None)
        await drains[0]


async def test_pulls_of_one_model_at_once_are_one(redis: Redis) -> None:
    async with gateway(Simulator(), redis_url=redis.url, allow_pull=True) as gw:
        assert len(set(await asyncio.gather(*(gw.start(pull={"model": "tiny"}) for _ in range(5))))) == 1


@asynccontextmanager
async def full(redis: Redis) -> AsyncIterator[None]:
    """Make Redis refuse whatever needs memory."""
    redis.run("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        redis.run("CONFIG", "SET", "maxmemory", "0")


async def test_a_full_redis_kills_nobody(own_redis: Redis) -> None:
    """New streams are refused; running ones go on, and are published when there is room again."""
    simulator = quick(token_rate=20, parallel=64)
    async with in_process(simulator, own_redis, 2, attach_timeout=60) as (here, there):
        sid = await here.start(chat=STORY | {"options": {"num_predict": 200}})
        async with there.open(f"/api/streams/{sid}") as far:
            await far.next()
            async with full(own_redis):
                async with there.session.post(there.url + "/api/streams", json={"chat": STORY}) as response:
                    assert (response.status, (await response.json())["code"]) == (503, "busy")
                await asyncio.sleep(LOST_SECONDS - 2.5)
                assert own_redis.run("EXISTS", *(f"gateway:replica:{name}" for name in peers(own_redis))) == 2
            assert ending([event async for event in far]) == ("complete", None)


def peers(redis: Redis) -> list[str]:
    return [name.decode() for name in redis.run("SMEMBERS", "gateway:replicas")]


async def test_a_redis_that_refuses_for_long_is_as_good_as_none(own_redis: Redis) -> None:
    """Viewers elsewhere get an end, because nothing is published any more; and the gateway can be stopped."""
    simulator = quick(token_rate=20, parallel=64)
    async with in_process(simulator, own_redis, 2, attach_timeout=60) as (here, there):
        sid = await here.start(chat=STORY | {"options": {"num_predict": 1000}})
        async with there.open(f"/api/streams/{sid}") as far:
            await far.next()
            own_redis.run("CONFIG", "SET", "maxmemory", "1")
            async with asyncio.timeout(LOST_SECONDS + 4):
                assert ending([event async for event in far]) == ("error", "producer_lost")
        assert here.state["streams"].peers
        assert here.state["streams"].peers.problem


@asynccontextmanager
async def queues(url: str, max_active: int, max_queued: int = 10) -> AsyncIterator[SharedQueue]:
    replica = Replica(url)
    admission = SharedQueue(replica, Rules(max_active, parallel=max_active), max_queued)
    async with replica, admission:
        yield admission


def line(redis: Redis) -> dict[str, str]:
    """Which tickets Redis knows, and whether they run or wait."""
    fields = {
        name.decode(): orjson.loads(record) for name, record in redis.run("HGETALL", "gateway:line").items() if name
    }
    return {name: "runs" if record[0] else "waits" for name, record in fields.items()}


def holders(redis: Redis) -> list[str]:
    return [name for name, state in line(redis).items() if state == "runs"]


async def test_what_a_full_or_read_only_redis_refused_is_told_again(own_redis: Redis) -> None:
    """A slot is given back although the first try was refused."""
    async with queues(own_redis.url, 1) as admission:
        ticket = await admission.enter("a", "m")
        own_redis.run("REPLICAOF", "127.0.0.1", "1")
        ticket.release()
        await asyncio.sleep(0.5)
        own_redis.run("REPLICAOF", "NO", "ONE")
        await until(lambda: not holders(own_redis))


async def slot(ticket: Ticket) -> None:
    """Wait until the ticket has a slot."""
    await ticket.admitted(lambda: None)


async def test_a_replica_that_leaves_takes_all_its_tickets_along(redis: Redis) -> None:
    """Nobody would look for the tickets of a replica that has signed off."""
    async with queues(redis.url, 1, 1000) as admission:
        for ticket in [await admission.enter("a", "m") for _ in range(600)]:
            ticket.release()
    assert line(redis) == {}


async def test_a_slot_that_was_taken_unheard_comes_back(redis: Redis) -> None:
    """Redis may run the command that took it after the one that gave it back: they use two connections."""
    async with queues(redis.url, 1) as admission:
        redis.run("HSET", "gateway:line", f"{admission._replica.name}:0", '[true,"a","m",1,1,0]', "", "1")
        ticket = await admission.enter("a", "m")
        async with asyncio.timeout(20):
            await slot(ticket)
        assert holders(redis) == [f"{admission._replica.name}:1"]


async def test_two_replicas_that_admit_at_the_same_moment_give_a_slot_once(redis: Redis) -> None:
    """The later one finds that the line has changed, and decides again."""
    async with wire(redis) as wired, queues(wired.url, 1) as one, queues(redis.url, 1) as other:
        held = await other.enter("a", "m")
        held.release()
        await until(lambda: line(redis) == {})
        theirs = f"{other._replica.name}:7", '[true,"b","m",7,7,0]'
        wired.before[b":1\r\n"] = lambda: redis.run("HSET", "gateway:line", *theirs, "", "theirs")
        ticket = await one.enter("a", "m")
        assert ticket.position == 1
        assert line(redis) == {theirs[0]: "runs", ticket.name: "waits"}


async def test_a_change_whose_answer_is_lost_is_made_once(redis: Redis) -> None:
    async with wire(redis) as wired, queues(wired.url, 2) as admission:
        wired.deaf = b":1\r\n"
        ticket = await admission.enter("a", "m")
        assert wired.broken == 1
        assert holders(redis) == [ticket.name]
        ticket.release()
        await until(lambda: line(redis) == {})


async def test_a_free_slot_is_told_to_all(redis: Redis) -> None:
    """Otherwise the next ticket would wait until the next refresh."""
    async with queues(redis.url, 1) as one, queues(redis.url, 1) as other:
        first, second = await one.enter("a", "m"), await other.enter("a", "m")
        first.release()
        await slot(second)
        assert redis.run("XLEN", "gateway:turns") == 1


async def test_slots_are_held_for_as_long_as_they_are_needed(redis: Redis) -> None:
    """A long answer may be the only one for minutes, and its slot must not expire."""
    async with queues(redis.url, 1) as admission:
        await admission.enter("a", "m")
        waiting = await admission.enter("a", "m")
        redis.run("PEXPIRE", "gateway:line", 20_000)
        await until(lambda: redis.run("PTTL", "gateway:line") > 20_000, 18)
        assert waiting.position == 1


async def test_an_empty_redis_learns_which_tickets_have_slots_and_which_wait(redis: Redis) -> None:
    """Their order stays, and no ticket that waits takes a slot that is held."""
    async with queues(redis.url, 2) as admission:
        held = [await admission.enter("a", "m"), await admission.enter("a", "m")]
        names = holders(redis)
        waiting = [await admission.enter("a", "m") for _ in range(3)]
        redis.run("FLUSHALL")
        await until(lambda: sorted(line(redis).values()) == ["runs"] * 2 + ["waits"] * 3)
        assert sorted(holders(redis)) == names
        for ticket in (*held, *waiting):
            async with asyncio.timeout(5):
                await slot(ticket)
            ticket.release()
        await until(lambda: not holders(redis))
