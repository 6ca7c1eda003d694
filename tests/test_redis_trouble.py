"""Redis failing at the worst moment, and saying no: nothing is lost, doubled or left behind, and nobody hangs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.demo import Simulator
from gateway.errors import Busy, GatewayError
from gateway.logs.redis import LINGER_SECONDS, RedisLogs
from gateway.replicas import LOST_SECONDS, Replica
from gateway.shared_admission import ACTIVE, QUEUE, TURNS, SharedAdmission
from tests.eventsource import ACCEPT
from tests.gateways import gateway
from tests.redis_server import Redis, redis_server
from tests.redis_wire import wire
from tests.replicas import in_process, until
from tests.servers import serve
from tests.sse import ending
from tests.test_memory_log import HEAD, LIMITS, SUMMARY, numbers, read, sid

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Write a long story"}]}


class Streams:
    """What logs tell of viewers elsewhere."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def stop(self, sid: str) -> None:
        self.told.append("stop")

    def joined(self, sid: str) -> None:
        self.told.append("joined")

    def left(self, sid: str) -> None:
        self.told.append("left")

    def lost(self, sid: str, error: GatewayError) -> None:
        self.told.append("lost")


@pytest.fixture
async def opened(redis: Redis) -> AsyncIterator[Callable[..., Any]]:
    """Opens a replica with its logs, at a URL of Redis."""
    async with AsyncExitStack() as stack:

        async def open_logs(url: str = redis.url) -> RedisLogs:
            replica = Replica(url)
            logs = RedisLogs(replica, **LIMITS)
            logs.serve(Streams())
            await stack.enter_async_context(replica)
            return await stack.enter_async_context(logs)

        yield open_logs


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """One that a test may fill and kill."""
    with redis_server() as redis:
        yield redis


def entries(redis: Redis, number: int = 1) -> list[Any]:
    found: list[Any] = redis.run("XRANGE", f"gateway:log:{sid(number)}", "-", "+")
    return found


async def test_a_mirror_that_could_not_be_read_whole_is_not_kept(opened: Callable[..., Any], redis: Redis) -> None:
    """Else the next viewer would get one that nothing ever comes to."""
    async with wire(redis) as line:
        here, there = await opened(), await opened(line.url)
        log = await here.create(sid(1), HEAD)
        log.append([b"{}"])
        await until(lambda: len(entries(redis)) == 2)
        line.cut = b"\r\n(1-0"  # the second page
        with pytest.raises(Busy):
            await there.find(sid(1))
        assert len(there) == 0
        assert there.size == 0
        line.cut = b""
        mirror = await there.find(sid(1))
        log.end(None, SUMMARY)
        assert numbers(await read(mirror)) == [1, 2]


async def test_who_comes_while_a_mirror_is_made_waits_for_it(opened: Callable[..., Any], redis: Redis) -> None:
    """And is not forgotten when the one who asked first has left by then."""
    async with wire(redis) as line:
        here, there = await opened(), await opened(line.url)
        log = await here.create(sid(1), HEAD)
        log.append([b"{}"])
        await until(lambda: log.unsent == 0)
        came: asyncio.Future[asyncio.Task[Any]] = asyncio.get_running_loop().create_future()
        line.before[b"(1-0"] = lambda: came.set_result(asyncio.create_task(there.find(sid(1))))
        first = asyncio.create_task(there.find(sid(1)))
        second = await came
        first.cancel()
        mirror = await second
        mirror.join()
        await asyncio.sleep(LINGER_SECONDS + 0.5)
        log.end(None, SUMMARY)
        assert numbers(await read(mirror)) == [1, 2]


async def test_an_answer_that_is_lost_on_the_way(opened: Callable[..., Any], redis: Redis) -> None:
    """The events are there once, in the order of their numbers, whatever fails when the writer asks what is there."""
    async with wire(redis) as line:
        here, there = await opened(line.url), await opened()
        log = await here.create(sid(1), HEAD)
        line.deaf, line.cut = b"NOMKSTREAM", b"XREVRANGE"
        log.end(b"{}", SUMMARY)
        await until(lambda: line.broken > 2)
        line.cut = b""
        mirror = await there.find(sid(1))
        assert numbers(await read(mirror)) == [1, 2]
        await until(lambda: log.unsent == 0)
        assert not here._unpublished


async def test_a_log_is_gone_when_the_writer_asks_what_is_there(opened: Callable[..., Any], redis: Redis) -> None:
    """It is written again, and so is all that comes later."""
    async with wire(redis) as line:
        here, there = await opened(line.url), await opened()
        log, other = [await here.create(sid(number), HEAD) for number in (1, 2)]
        line.deaf = b"NOMKSTREAM"
        line.before[b"XREVRANGE"] = lambda: redis.run("DEL", f"gateway:log:{sid(1)}")
        log.append([b"{}"])
        await until(lambda: log.unsent == 0 and len(entries(redis)) == 2)
        mirror = await there.find(sid(1))
        for each in (log, other):
            each.append([b"{}"])
            each.end(None, SUMMARY)
        assert numbers(await read(mirror)) == [1, 2, 3]
        assert numbers(await read(await there.find(sid(2)))) == [1, 2]


async def test_an_answer_is_lost_when_a_log_is_written_again(opened: Callable[..., Any], redis: Redis) -> None:
    """Events that have come meanwhile are counted once."""
    async with wire(redis) as line:
        here, there = await opened(line.url), await opened()
        log = await here.create(sid(1), HEAD)
        log.append([b"{}"])
        await until(lambda: log.sent == 1)
        redis.run("DEL", f"gateway:log:{sid(1)}")
        log.fresh, log.sent = True, 0  # as it learns with its next event
        redis.run("XADD", f"gateway:log:{sid(1)}", "0-1", "head", HEAD, "producer", here.replica.name)
        log.append([b"{}"])
        await until(lambda: log.sent != 0)
        assert log.sent == 2
        log.append([b"{}"])
        log.end(None, SUMMARY)
        assert numbers(await read(await there.find(sid(1)))) == [1, 2, 3, 4]


async def test_a_replica_that_dies_unseen_by_this_one_has_left(opened: Callable[..., Any], redis: Redis) -> None:
    """Another one may have noticed its death first, and struck it off the list."""
    here = await opened()
    log = await here.create(sid(1), HEAD)
    redis.run("XADD", f"gateway:inbox:{here.replica.name}", "*", *("what", "join", "sid", sid(1)), "from", "dead")
    await until(lambda: here._writer.told == ["joined"])
    await until(lambda: here._writer.told == ["joined", "left"], LOST_SECONDS)
    assert not log.replicas


async def test_viewers_are_told_of_again(opened: Callable[..., Any], redis: Redis) -> None:
    """One who was taken for dead, or whose message was lost with Redis, still counts."""
    here, there = await opened(), await opened()
    log = await here.create(sid(1), HEAD)
    mirror = await there.find(sid(1))
    mirror.join()
    await until(lambda: len(log.replicas) == 1)
    log.replicas.clear()
    redis.run("SREM", "gateway:replicas", there.replica.name)
    await until(lambda: len(log.replicas) == 1)


async def test_a_message_that_comes_twice_counts_once(opened: Callable[..., Any], redis: Redis) -> None:
    here = await opened()
    await here.create(sid(1), HEAD)
    for what in ("join", "join", "leave", "leave", "stop"):
        redis.run("XADD", f"gateway:inbox:{here.replica.name}", "*", *("what", what, "sid", sid(1)), "from", "other")
    await until(lambda: "stop" in here._writer.told)
    assert here._writer.told == ["joined", "left", "stop"]


async def test_who_lives_or_has_ended_its_stream_loses_nothing(opened: Callable[..., Any], redis: Redis) -> None:
    """Though another one takes it for dead: it may have come back just now, or have written its end last."""
    here, there = await opened(), await opened()
    log = await here.create(sid(1), HEAD)
    await there.find(sid(1))
    await there._died(here.replica.name)
    assert len(entries(redis)) == 1
    there.replica.unfollow(f"gateway:log:{sid(1)}")  # so that it hears of the end later
    log.end(b"{}", SUMMARY)
    await until(lambda: log.unsent == 0)
    redis.run("DEL", f"gateway:replica:{here.replica.name}")
    await there._died(here.replica.name)
    assert len(entries(redis)) == 2


async def test_an_empty_redis_gets_silent_streams_too(opened: Callable[..., Any], redis: Redis) -> None:
    """A model may load for minutes: its viewers must not find nothing meanwhile."""
    here, there = await opened(), await opened()
    log = await here.create(sid(1), HEAD)
    log.append([b"{}"])
    await until(lambda: log.unsent == 0)
    redis.run("FLUSHALL")
    await until(lambda: len(entries(redis)) == 2)
    mirror = await there.find(sid(1))
    assert mirror is not None
    log.end(None, SUMMARY)
    assert numbers(await read(mirror)) == [1, 2]


async def test_a_shutdown_that_begins_while_a_stream_is_started(redis: Redis) -> None:
    """Its viewers are sent away with the others, so it waits for them as well."""
    simulator = Simulator(load_seconds=0, prompt_seconds=0, token_rate=50, parallel=64)
    async with (
        wire(redis) as line,
        serve(simulator.app) as ollama,
        gateway(ollama, redis_url=line.url) as here,
        gateway(ollama, redis_url=redis.url) as there,
    ):
        line.before[b"producer"] = here.state["streams"].hand_over
        path = "/api/chat?model=llama3.2&prompt=Write+a+long+story&options.num_predict=100"
        first = await here.read(path, headers=ACCEPT)
        last = next(event.id for event in reversed(first) if event.id)
        rest = await there.read(path, headers=ACCEPT | {"Last-Event-ID": last})
        assert ending(rest) == ("complete", None)
    assert len(simulator.requests) == 1


async def test_a_mirror_takes_what_is_written_again_once(opened: Callable[..., Any], redis: Redis) -> None:
    here, there = await opened(), await opened()
    log = await here.create(sid(1), HEAD)
    mirror = await there.find(sid(1))
    mirror.join()
    log.append([b"{}", b"{}"])
    await until(lambda: mirror.last == 2)
    redis.run("FLUSHALL")
    log.append([b"{}"])
    log.end(None, SUMMARY)
    assert numbers(await read(mirror)) == [1, 2, 3, 4]


async def test_a_replica_without_a_lease_at_one_look_may_live(opened: Callable[..., Any], redis: Redis) -> None:
    """After a pause of Redis all leases have run out, and a look may come before the beats."""
    here = await opened()
    await here.create(sid(1), HEAD)
    redis.run("SADD", "gateway:replicas", "late")
    redis.run("XADD", f"gateway:inbox:{here.replica.name}", "*", *("what", "join", "sid", sid(1)), "from", "late")
    await until(lambda: here.replica._suspects == {"late"})
    redis.run("SET", "gateway:replica:late", "", "PX", 60_000)
    await until(lambda: not here.replica._suspects)
    assert here._writer.told == ["joined"]


async def test_a_drain_waits_for_a_stream_that_is_being_started(redis: Redis) -> None:
    """It was accepted, so it is finished, too."""
    simulator = Simulator(load_seconds=0, prompt_seconds=0, token_rate=50, parallel=64)
    async with wire(redis) as line, gateway(simulator, redis_url=line.url) as gw:
        streams, drains = gw.state["streams"], list[asyncio.Task[None]]()
        line.before[b"producer"] = lambda: drains.append(asyncio.create_task(streams.drain(20)))
        async with gw.open("/api/chat", json=CHAT | {"options": {"num_predict": 20}}) as seen:
            await seen.next()
            assert not drains[0].done()
            assert ending([event async for event in seen]) == ("complete", None)
        await drains[0]


async def test_pulls_of_one_model_at_once_are_one(redis: Redis) -> None:
    async with gateway(Simulator(), redis_url=redis.url, allow_pull=True) as gw:
        assert len(set(await asyncio.gather(*(gw.start(pull={"model": "tiny"}) for _ in range(5))))) == 1


@asynccontextmanager
async def full(redis: Redis) -> AsyncIterator[None]:
    """It refuses whatever needs memory."""
    redis.run("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        redis.run("CONFIG", "SET", "maxmemory", "0")


async def test_a_full_redis_kills_nobody(own_redis: Redis) -> None:
    """New streams are refused; what runs goes on, and is written when there is room again."""
    simulator = Simulator(load_seconds=0, prompt_seconds=0, token_rate=20, parallel=64)
    async with in_process(simulator, own_redis, 2, attach_timeout=60) as (here, there):
        sid = await here.start(chat=CHAT | {"options": {"num_predict": 200}})
        async with there.open(f"/api/streams/{sid}") as far:
            await far.next()
            async with full(own_redis):
                async with there.session.post(there.url + "/api/streams", json={"chat": CHAT}) as response:
                    assert (response.status, (await response.json())["code"]) == (503, "busy")
                await asyncio.sleep(LOST_SECONDS - 2.5)
                assert own_redis.run("EXISTS", *(f"gateway:replica:{name}" for name in peers(own_redis))) == 2
            assert ending([event async for event in far]) == ("complete", None)


def peers(redis: Redis) -> list[str]:
    return [name.decode() for name in redis.run("SMEMBERS", "gateway:replicas")]


async def test_a_redis_that_refuses_for_long_is_as_good_as_none(own_redis: Redis) -> None:
    """Who watches elsewhere is told, as nothing is written any more; and the gateway still ends."""
    simulator = Simulator(load_seconds=0, prompt_seconds=0, token_rate=20, parallel=64)
    async with in_process(simulator, own_redis, 2, attach_timeout=60) as (here, there):
        sid = await here.start(chat=CHAT | {"options": {"num_predict": 1000}})
        async with there.open(f"/api/streams/{sid}") as far:
            await far.next()
            own_redis.run("CONFIG", "SET", "maxmemory", "1")
            async with asyncio.timeout(LOST_SECONDS + 4):
                assert ending([event async for event in far]) == ("error", "producer_lost")
        assert here.state["streams"].problem is not None


@asynccontextmanager
async def queues(url: str, max_active: int, max_queued: int = 10) -> AsyncIterator[SharedAdmission]:
    replica = Replica(url)
    admission = SharedAdmission(replica, max_active=max_active, max_queued=max_queued)
    async with replica, admission:
        yield admission


def holders(redis: Redis) -> list[str]:
    return [name.decode() for name in redis.run("ZRANGE", ACTIVE, 0, -1)]


async def test_what_a_full_or_read_only_redis_refused_is_told_again(own_redis: Redis) -> None:
    """A slot comes back though the first try to give it back was refused."""
    async with queues(own_redis.url, 1) as admission:
        ticket = await admission.enter()
        own_redis.run("REPLICAOF", "127.0.0.1", "1")
        ticket.release()
        await asyncio.sleep(0.5)
        own_redis.run("REPLICAOF", "NO", "ONE")
        await until(lambda: not holders(own_redis))


async def test_who_goes_takes_all_its_tickets_along(redis: Redis) -> None:
    """However many: nobody would look for those of a replica that has taken its leave."""
    async with queues(redis.url, 1, 1000) as admission:
        for ticket in [await admission.enter() for _ in range(600)]:
            ticket.release()
    assert not holders(redis)
    assert redis.run("ZCARD", QUEUE) == 0


async def test_a_slot_that_was_taken_unheard_comes_back(redis: Redis) -> None:
    """The command that took it may be run by Redis after the one that gave it back: they go two ways."""
    async with queues(redis.url, 1) as admission:
        redis.run("ZADD", ACTIVE, 1, f"{admission._replica.name}:0")
        ticket = await admission.enter()
        async with asyncio.timeout(20):
            await ticket.admitted()
        assert holders(redis) == [f"{admission._replica.name}:1"]


async def test_who_enters_at_the_moment_of_a_renewal_stays(redis: Redis) -> None:
    """Be it after the replica has listed what it holds, or before it has heard that it has entered."""
    async with wire(redis) as line, queues(line.url, 2) as admission:
        first, second = (f"{admission._replica.name}:{number}" for number in (1, 2))
        line.before[b"\r\nhold\r\n"] = lambda: redis.run(*admission._change("enter", first))
        await admission._hold()
        assert holders(redis) == [first]
        await admission.enter()
        holding = list[asyncio.Task[None]]()
        line.before[b"\r\nenter\r\n"] = lambda: holding.append(asyncio.create_task(admission._hold()))
        await admission.enter()
        await holding[0]
        assert holders(redis) == [first, second]


async def test_a_free_slot_is_told_to_all(redis: Redis) -> None:
    """So that nobody has to wait until it looks again."""
    async with queues(redis.url, 1) as one, queues(redis.url, 1) as other:
        first, second = await one.enter(), await other.enter()
        first.release()
        await second.admitted()
        assert redis.run("XLEN", TURNS) == 1


async def test_slots_are_held_for_as_long_as_they_are_needed(redis: Redis) -> None:
    """A long answer is the only one for minutes: its slot may not be forgotten."""
    async with queues(redis.url, 1) as admission:
        await admission.enter()
        waiting = await admission.enter()
        for key in (ACTIVE, QUEUE):
            redis.run("PEXPIRE", key, 20_000)
        await until(lambda: min(redis.run("PTTL", key) for key in (ACTIVE, QUEUE)) > 20_000, 18)
        assert waiting.position == 1


async def test_an_empty_redis_learns_who_has_slots_and_who_waits(redis: Redis) -> None:
    """In the order in which they came, and nobody who waits takes a slot that is held."""
    async with queues(redis.url, 2) as admission:
        held = [await admission.enter(), await admission.enter()]
        names = holders(redis)
        waiting = [await admission.enter() for _ in range(3)]
        redis.run("FLUSHALL")
        await until(lambda: redis.run("ZCARD", QUEUE) == 3)
        assert sorted(holders(redis)) == names
        for ticket in (*held, *waiting):
            async with asyncio.timeout(5):
                await ticket.admitted()
            ticket.release()
        await until(lambda: not holders(redis))
