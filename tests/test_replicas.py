"""Several replicas on one Redis: any of them serves any stream, and none of them runs a model twice."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.demo import Simulator
from gateway.replicas.replica import LOST_SECONDS
from tests.asks import STORY, STORY_PATH, chat, quick
from tests.gateways import Gateway
from tests.redis_server import Redis
from tests.replicas import in_process
from tests.sse import Event, ending, messages, numbered
from tests.test_keys import KEYS
from tests.test_pulls import check_who_stops
from tests.waits import until


@pytest.fixture
def simulator() -> Simulator:
    return quick(token_rate=100, parallel=64)


@pytest.fixture
async def pair(simulator: Simulator, redis: Redis) -> AsyncIterator[list[Gateway]]:
    async with in_process(simulator, redis, 2) as gateways:
        yield gateways


async def test_any_replica_reads_a_stream(pair: list[Gateway], simulator: Simulator) -> None:
    """Live, late and again after the end: the same events, byte for byte, from one run of the model."""
    here, there = pair
    sid = await here.start(chat=STORY | {"options": {"num_predict": 60}}, resume_window=30)
    live = await asyncio.gather(*(gw.read(f"/api/streams/{sid}") for gw in (here, there, there)))
    late = [await gw.read(f"/api/streams/{sid}") for gw in (here, there)]
    assert ending(live[0]) == ("complete", None)
    assert len(messages(live[0])) > 30
    for events in (*live, *late):
        assert numbered(events) == numbered(live[0])
        assert events[0] == live[0][0]
    assert len(simulator.requests) == 1


async def test_any_replica_reads_it_in_any_dialect(pair: list[Gateway], simulator: Simulator) -> None:
    """One of Ollama's clients that is cut off has the rest from another replica."""
    here, there = pair
    body = STORY | {"options": {"num_predict": 60}}
    async with here.session.post(f"{here.url}/ollama/api/chat?resume_window=30", json=body) as response:
        stream = response.headers["Content-Location"]
        seen = [await response.content.readline() for _ in range(10)]
        response.close()
    sid = stream.rpartition("/")[2]
    async with there.session.get(f"{there.url}{stream}?as=ollama&last_event_id={sid}-10") as response:
        rest = await response.content.read()
    async with there.session.get(f"{there.url}{stream}?as=ollama") as response:
        assert await response.content.read() == b"".join(seen) + rest
    assert len(rest.splitlines()) > 30
    assert len(simulator.requests) == 1


async def test_a_reconnect_goes_on_at_another_replica(pair: list[Gateway], simulator: Simulator) -> None:
    """It may use the one-shot's URL, and have seen an event that the other replica has not yet heard of."""
    here, there = pair
    path = STORY_PATH + "&resume_window=30&options.num_predict=100"
    seen: list[Event] = []
    for turn in range(20):
        headers = {"Last-Event-ID": seen[-1].id or ""} if seen else {}
        async with (here, there)[turn % 2].open(path, headers=headers) as events:
            seen += [await events.next() for _ in range(3)]
    sid, _ = (seen[-1].id or "").split("-")
    assert [event.id for event in seen] == [f"{sid}-{seq}" for seq in range(1, 61)]
    rest = await there.read(path, headers={"Last-Event-ID": seen[-1].id or ""})
    whole = await here.read(f"/api/streams/{sid}")
    assert seen + numbered(rest) == numbered(whole)
    for gw in pair:
        async with gw.session.get(gw.url + path, headers={"Last-Event-ID": whole[-1].id or ""}) as response:
            assert response.status == 204
    assert len(simulator.requests) == 1


async def test_a_stop_reaches_the_replica_that_runs_it(pair: list[Gateway], simulator: Simulator) -> None:
    here, there = pair
    sid = await here.start(chat=STORY)
    async with here.open(f"/api/streams/{sid}") as near, there.open(f"/api/streams/{sid}") as far:
        await near.next()
        await far.next()
        async with there.session.delete(f"{there.url}/api/streams/{sid}") as response:
            assert response.status == 204
        for events in (near, far):
            assert ending([event async for event in events])[1] == "cancelled"
    await until(lambda: simulator.running == 0)


async def test_a_stream_that_nobody_knows(pair: list[Gateway]) -> None:
    for gw in pair:
        async with gw.session.get(f"{gw.url}/api/streams/{'0' * 32}") as response:
            assert response.status == 404
        async with gw.session.delete(f"{gw.url}/api/streams/{'0' * 32}") as response:
            assert response.status == 204
        async with gw.session.get(
            f"{gw.url}/api/streams/{'0' * 32}", headers={"Last-Event-ID": "0" * 32 + "-1"}
        ) as response:
            assert response.status == 204


async def test_the_last_viewer_at_another_replica_leaves(pair: list[Gateway], simulator: Simulator) -> None:
    """With no viewer left anywhere, the model is free at once."""
    here, there = pair
    sid = await here.start(chat=STORY)
    async with here.open(f"/api/streams/{sid}") as near, there.open(f"/api/streams/{sid}") as far:
        await near.next()
        await far.next()
        near.response.close()
        for _ in range(20):
            await far.next()
    await until(lambda: simulator.running == 0)
    assert ending(await there.read(f"/api/streams/{sid}")) == ("cancelled", "cancelled")


async def test_a_viewer_at_another_replica_keeps_it_running(pair: list[Gateway], simulator: Simulator) -> None:
    here, there = pair
    sid = await here.start(chat=STORY | {"options": {"num_predict": 50}})
    async with there.open(f"/api/streams/{sid}") as events:
        assert ending([event async for event in events]) == ("complete", None)
    assert len(simulator.requests) == 1


async def test_a_burst_of_starts_and_readers_is_served(redis: Redis) -> None:
    """More at once than there are connections to Redis: they wait for one another, and none is refused."""
    simulator = quick(parallel=600)
    async with in_process(simulator, redis, 2, max_active=300, num_parallel=300, max_queued=300) as (here, there):
        sids = await asyncio.gather(*(here.start(chat=STORY | {"options": {"num_predict": 3}}) for _ in range(250)))
        readings = await asyncio.gather(*(there.read(f"/api/streams/{sid}") for sid in sids))
        assert {ending(events) for events in readings} == {("complete", None)}


async def test_status_is_seen_at_another_replica(redis: Redis) -> None:
    simulator = quick(load_seconds=1.5)
    async with in_process(simulator, redis, 2, status_interval=0.2) as (here, there):
        sid = await here.start(chat=STORY)
        events = await there.read(f"/api/streams/{sid}")
        phases = [event.json["phase"] for event in events if event.name == "status"]
        assert phases[:4] == ["starting", *["loading"] * 3]
        assert ending(events) == ("complete", None)


def connections(redis: Redis) -> list[str]:
    clients: bytes = redis.run("CLIENT", "LIST")
    return clients.decode().splitlines()


async def test_one_reader_of_redis_for_all_viewers(pair: list[Gateway], redis: Redis, simulator: Simulator) -> None:
    """However many viewers: one connection of each replica reads, and each stream is looked up once."""
    here, there = pair
    sids = [await here.start(chat=STORY | {"options": {"num_predict": 100}}) for _ in range(5)]
    before = len(connections(redis))
    viewers = [asyncio.create_task(there.read(f"/api/streams/{sid}")) for sid in sids for _ in range(20)]
    await until(lambda: there.state["streams"].running.viewers == 100)
    assert sum("cmd=xread" in each for each in connections(redis)) == 2
    assert len(connections(redis)) <= before + 4 + len(sids)
    whole = await asyncio.gather(*viewers)
    for number, events in enumerate(whole):
        assert numbered(events) == numbered(whole[number // 20 * 20])
        assert ending(events) == ("complete", None)
    assert len(simulator.requests) == 5


async def test_every_key_expires(redis: Redis, simulator: Simulator) -> None:
    """Each always has a time to live, and ended streams leave nothing."""
    async with in_process(simulator, redis, 2, max_active=2, retain_seconds=0) as (here, there):
        sids = [await gw.start(chat=STORY | {"options": {"num_predict": 50}}) for gw in (here, there) * 3]
        viewers = [asyncio.create_task(here.read(f"/api/streams/{sid}")) for sid in sids]
        while not all(viewer.done() for viewer in viewers):
            assert min(redis.keys().values()) > 0, redis.keys()
            await asyncio.sleep(0.05)
        for viewer in viewers:
            assert ending(await viewer) == ("complete", None)
        await until(lambda: not [name for name in redis.run("HKEYS", "gateway:line") if name])
        await until(lambda: not redis.run("KEYS", "gateway:log:*"), LOST_SECONDS + 2)
    assert set(redis.keys()) <= {"gateway:line", "gateway:turns"}


async def test_two_deployments_share_a_redis(redis: Redis, simulator: Simulator) -> None:
    """Neither sees the other's streams, slots or keys."""
    async with (
        in_process(quick(token_rate=5), redis, 1, max_active=1, max_queued=0, redis_prefix="one:") as [one],
        in_process(simulator, redis, 1, max_active=1, max_queued=0, redis_prefix="two:") as [two],
        one.open(STORY_PATH) as events,
    ):
        sid = (await events.next("meta")).json["id"]
        assert ending(await two.read(STORY_PATH)) == ("complete", None)
        async with two.session.get(f"{two.url}/api/streams/{sid}") as response:
            assert response.status == 404
        lives = redis.keys()
        assert {name.partition(":")[0] for name in lives} == {"one", "two"}


async def test_who_joins_a_pull_cannot_stop_it_at_another_replica_either(redis: Redis) -> None:
    simulator = Simulator(pull_seconds=300)
    async with in_process(simulator, redis, 2, allow_pull=True, api_keys=KEYS) as (here, there):
        await check_who_stops(here, there)


async def test_all_together_swap_seldom_and_learn_how_many_run_at_once(redis: Redis) -> None:
    """Requests for two models that do not fit together, in turn at each of three replicas."""
    simulator = quick(max_loaded=1, parallel=3, load_seconds=0.2, token_rate=20)
    most = 0

    async def ask(gw: Gateway, model: str) -> None:
        nonlocal most
        body = chat("Hi", options={"num_predict": 10, "seed": 1}) | {"model": model}
        async with gw.open("/api/chat", json=body) as events:
            await events.next("message")
            most = max(most, simulator.states["generating"])
            assert ending([event async for event in events]) == ("complete", None)

    async with in_process(simulator, redis, 3) as replicas:
        await asyncio.gather(*(ask(gw, model) for model in ("llama3.2", "gemma3") * 4 for gw in replicas))
    assert len(simulator.loads) <= 6, simulator.loads
    assert most == 3
