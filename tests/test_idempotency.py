"""Asked once, run once: starts with an `Idempotency-Key`, which a client may send as often as it likes."""

import asyncio
import hashlib
import random
from typing import Any
from urllib.parse import quote

import pytest

from gateway.demo import Simulator
from tests.asks import chat, quick
from tests.gateways import Gateway, gateway
from tests.raw import RawStream
from tests.redis_server import Redis
from tests.replicas import in_process
from tests.servers import serve
from tests.sse import ending, numbered, text
from tests.test_resume import direct
from tests.waits import until

GENERATIONS = 500
AT_ONCE = 40
BODY = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hi"}], "options": {"num_predict": 5, "seed": 1}}
PATH = "/api/chat?model=llama3.2&prompt=Hi&options.num_predict=5&options.seed=1"


async def created(gw: Gateway, key: str, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, Any]:
    sent = {"Idempotency-Key": key, **(headers or {})}
    async with gw.session.post(gw.url + "/api/streams", json=body or {"chat": BODY}, headers=sent) as response:
        return response.status, await response.json()


async def test_every_way_of_asking_joins_the_stream_of_the_key(simulator: Simulator) -> None:
    """While it runs and after its end; the order of a body's fields does not count, nor does the resume window."""
    async with gateway(simulator) as gw:
        status, first = await created(gw, "k", chat=BODY, resume_window=5)
        assert (status, first["kind"], first["model"]) == (201, "chat", "llama3.2")
        for _ in range(2):
            assert await created(gw, "k", chat=dict(reversed(BODY.items()))) == (201, first)
            by_query = await gw.read(PATH + "&idempotency_key=k")
            by_header = await gw.read("/api/chat?idempotency_key=other", json=BODY, headers={"Idempotency-Key": "k"})
            for events in (by_query, by_header):
                assert events[0].json["id"] == first["id"]
                assert ending(events) == ("complete", None)
        assert len(simulator.requests) == 1
        _, another = await created(gw, "another")
        assert another["id"] != first["id"]
        await simulator.until(lambda: len(simulator.requests) == 2)


async def test_another_request_under_the_key_is_a_conflict(simulator: Simulator) -> None:
    async with gateway(simulator) as gw:
        await created(gw, "k")
        for body in ({"chat": BODY | {"think": False}}, {"generate": {"model": "llama3.2", "prompt": "Hi"}}):
            status, error = await created(gw, "k", **body)
            assert (status, error["code"], error["retryable"]) == (409, "conflict", False)
        asked_by_browser = await gw.read(PATH + "1&idempotency_key=k", headers={"Accept": "text/event-stream"})
        assert ending(asked_by_browser) == ("error", "conflict")
        assert len(simulator.requests) == 1


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
async def test_an_invalid_key_is_refused(simulator: Simulator, key: str) -> None:
    async with gateway(simulator) as gw, gw.session.get(f"{gw.url}{PATH}&idempotency_key={quote(key)}") as response:
        assert (response.status, (await response.json())["code"]) == (422, "invalid_request")


async def test_a_start_that_was_refused_does_not_keep_its_key() -> None:
    """Also while its equals wait for it: one of them takes its place, or is refused as it was."""
    simulator = Simulator(token_rate=1, load_seconds=60)
    async with gateway(simulator, max_active=1, max_queued=0) as gw:
        blocker = await gw.start(chat={"model": "llama3.2", "messages": []}, resume_window=60)
        refused = await asyncio.gather(*(created(gw, "k") for _ in range(5)))
        assert {(status, answer["code"]) for status, answer in refused} == {(503, "busy")}
        async with gw.session.delete(f"{gw.url}/api/streams/{blocker}"):
            await until(lambda: len(gw.state["streams"].running) == 0)
        answers = await asyncio.gather(*(created(gw, "k") for _ in range(5)))
        assert {status for status, _ in answers} == {201}
        assert len({answer["id"] for _, answer in answers}) == 1


async def test_keys_of_different_callers_never_meet(simulator: Simulator) -> None:
    async with gateway(simulator, api_keys=f"ann:{'a' * 20},bob:{'b' * 20}") as gw:
        callers = [{"Authorization": "Bearer " + letter * 20} for letter in "abab"]
        answers = [await created(gw, "k", caller) for caller in callers]
        ids = [answer["id"] for _, answer in answers]
        assert ids[:2] == ids[2:]
        assert len(set(ids)) == 2
        _, error = await created(gw, "k", callers[0], chat=BODY | {"think": False})
        assert error["code"] == "conflict"


async def test_a_key_is_free_again_when_its_stream_is_forgotten(simulator: Simulator) -> None:
    async with gateway(simulator, retain_seconds=0.1) as gw:
        _, first = await created(gw, "k")
        await gw.read(first["url"])
        await until(lambda: gw.state["streams"].logs.size == 0)
        _, second = await created(gw, "k")
        assert second["id"] != first["id"]


async def test_the_claim_of_a_replica_that_died_before_it_had_a_log_is_free(redis: Redis) -> None:
    name = hashlib.sha256(b"127.0.0.1\nk").hexdigest()
    redis.run("SET", f"gateway:claim:{name}", f"{'0' * 32} another {'f' * 16}")
    async with in_process(quick(), redis, 1) as (gw,):
        status, _ = await created(gw, "k")
        assert status == 201


async def start_or_leave(url: str, headers: dict[str, str], body: object, chance: random.Random) -> None:
    """Start a stream by POST and never hear of it: the connection is cut while the answer is on its way."""
    async with RawStream(url) as stream:
        await stream.send("/api/streams", body=body, headers=headers)
        await asyncio.sleep(chance.choice([0, 0.001, 0.005, 0.02]))
        stream.cut()


async def once(pair: list[Gateway], ollama: str, number: int, seed: int) -> None:
    """One generation, asked for several times, at both replicas and in all ways, with most of the answers lost."""
    chance = random.Random(f"{seed}-{number}")
    key, prompt = f"{seed}-{number}", f"Tell me about bridges, {number}"
    options = {"num_predict": chance.randrange(1, 60), "seed": 7}
    body = {"chat": chat(prompt, options=options), "resume_window": 60}
    query = "&".join(f"options.{name}={value}" for name, value in options.items())
    path = f"/api/chat?model=llama3.2&prompt={quote(prompt)}&{query}&resume_window=60&idempotency_key={key}"

    async def ask() -> None:
        gw = chance.choice(pair)
        if chance.random() < 0.5:
            await start_or_leave(gw.url, {"Idempotency-Key": key}, body, chance)
            return
        async with RawStream(gw.url) as stream:
            await stream.ask(path)
            goal = chance.randrange(1, 600)
            await stream.read(lambda stream: stream.received >= goal, at_most=64)  # the head, and perhaps a status
            stream.cut()

    for _ in range(chance.randrange(3)):
        await ask()
    await asyncio.gather(*(ask() for _ in range(chance.randrange(4))))
    readings = await asyncio.gather(*(chance.choice(pair).read(path) for _ in range(2)))
    for events in readings:
        assert ending(events) == ("complete", None)
        assert numbered(events) == numbered(readings[0])
    assert text(readings[0]) == await direct(pair[0], ollama, prompt, options)


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_however_often_it_is_asked_the_model_runs_once_for_each_key(redis: Redis) -> None:
    """500 generations at two replicas: cut before the first token, started twice at once, their 201 lost."""
    seed = random.randrange(2**32)
    simulator = Simulator(token_rate=400, load_seconds=0.05, prompt_seconds=0.01, parallel=64)
    twin = quick(parallel=GENERATIONS)
    at_once = asyncio.Semaphore(AT_ONCE)
    limits = {"max_active": 64, "num_parallel": 64, "max_queued": 500, "retain_seconds": 600}
    async with serve(twin.app) as ollama, in_process(simulator, redis, 2, **limits) as pair:

        async def one(number: int) -> None:
            async with at_once:
                await once(pair, ollama, number, seed)

        async with asyncio.TaskGroup() as tasks:
            for number in range(GENERATIONS):
                tasks.create_task(one(number))
        assert len(simulator.requests) == GENERATIONS, f"seed {seed}"
        assert len({request.body for request in simulator.requests}) == GENERATIONS
