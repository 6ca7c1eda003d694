"""Several replicas, whose processes, Redis and connections break: nobody waits for ever; each stream ends once."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from gateway.demo import Simulator
from gateway.dialects.events import LOST
from gateway.replicas.connection import COMMAND_SECONDS
from gateway.replicas.replica import LOST_SECONDS
from tests.asks import STORY, STORY_PATH, quick
from tests.eventsource import ACCEPT, follow, whole
from tests.processes import INSTALLED, Process, free_port, process
from tests.redis_server import Redis
from tests.replicas import in_process, listening, nginx
from tests.servers import serve
from tests.sse import Events, ending, messages
from tests.waits import until


def slow() -> Simulator:
    return quick(token_rate=20, parallel=64)


@asynccontextmanager
async def two_replicas(directory: Path, simulator: Simulator, redis: Redis) -> AsyncIterator[tuple[Process, Process]]:
    """Two replicas as processes, in front of one simulator."""
    async with serve(simulator.app) as ollama:
        flags = (f"--ollama-url={ollama}", f"--redis-url={redis.url}")
        async with process(directory, *flags) as first, process(directory, *flags) as second:
            yield first, second


async def start(session: aiohttp.ClientSession, url: str, **body: object) -> str:
    async with session.post(url + "/api/streams", json={"chat": STORY, **body}) as response:
        assert response.status == 201, await response.text()
        return str((await response.json())["id"])


async def test_the_death_of_a_replica_is_told_once_to_everyone(
    tmp_path: Path, redis: Redis, session: aiohttp.ClientSession
) -> None:
    """After `kill -9` it reaches viewers there, viewers at another replica, and one that comes later."""
    async with (
        two_replicas(tmp_path, slow(), redis) as (dying, living),
        nginx(dying.url, living.url) as balancer,
    ):
        sid = await start(session, dying.url, resume_window=60)
        path = f"/api/streams/{sid}"
        async with session.get(living.url + path) as response:
            await Events(response).next()
        viewers = [asyncio.create_task(follow(session, url + path)) for url in (balancer, balancer, living.url)]
        async with session.get(dying.url + path) as response:
            seen = await Events(response).next()
            await asyncio.sleep(0.5)
            died_at = asyncio.get_running_loop().time()
            os.kill(dying.pid, signal.SIGKILL)
        for events in await asyncio.gather(*viewers):
            assert whole(events) == ("error", "producer_lost")
            assert messages(events)[-1].json["retryable"] is True
        assert asyncio.get_running_loop().time() - died_at < LOST_SECONDS + 2
        late = await follow(session, living.url + path)
        assert ending(late) == ("error", "producer_lost")
        for last in (f"{sid}-{LOST}", f"{sid}-{LOST + 1}"):
            async with session.get(living.url + path, headers={"Last-Event-ID": last}) as response:
                assert response.status == 204
        # a viewer that had seen more than the others have heard of gets the end all the same
        async with session.get(living.url + path, headers={"Last-Event-ID": f"{sid}-900"}) as response:
            assert ending([event async for event in Events(response)]) == ("error", "producer_lost")
        assert seen.id == f"{sid}-1"


async def test_slots_of_a_dead_replica_return(tmp_path: Path, redis: Redis, session: aiohttp.ClientSession) -> None:
    flags = (f"--redis-url={redis.url}", "--max-active=1", "--attach-timeout=60")
    async with (
        serve(slow().app) as ollama,
        process(tmp_path, f"--ollama-url={ollama}", *flags) as dying,
        process(tmp_path, f"--ollama-url={ollama}", *flags) as living,
    ):
        await start(session, dying.url)
        sid = await start(session, living.url)
        async with session.get(f"{living.url}/api/streams/{sid}") as response:
            events = Events(response)
            assert (await events.next("status")).json["position"] == 1
            os.kill(dying.pid, signal.SIGKILL)
            async with asyncio.timeout(LOST_SECONDS + 5):
                await events.next()
        assert len([name for name in redis.run("HKEYS", "gateway:line") if name]) <= 1


async def test_a_rolling_restart_loses_nothing(tmp_path: Path, redis: Redis, session: aiohttp.ClientSession) -> None:
    """Viewers of the replica that stops read on at another one, while it finishes what it runs."""
    simulator = slow()
    flags = (f"--redis-url={redis.url}", "--max-active=64", "--num-parallel=64")
    async with AsyncExitStack() as stack:
        ollama = await stack.enter_async_context(serve(simulator.app))
        first, second = [
            await stack.enter_async_context(process(tmp_path, f"--ollama-url={ollama}", *flags)) for _ in range(2)
        ]
        balancer = await stack.enter_async_context(nginx(first.url, second.url))
        path = STORY_PATH + "&options.num_predict=80"
        viewers = [asyncio.create_task(follow(session, balancer + path)) for _ in range(20)]
        await until(lambda: len(simulator.requests) == 20)
        await asyncio.sleep(0.5)
        first.terminate()
        async with asyncio.timeout(20):
            assert await first.ended() == 0
        for events in await asyncio.gather(*viewers):
            assert whole(events) == ("complete", None)
            assert len(events) > 40
        assert len(simulator.requests) == 20
        assert not [line for line in first.log if "Traceback" in line or "ERROR" in line], first.log


async def test_a_second_signal_is_heard_at_the_other_replica(
    tmp_path: Path, redis: Redis, session: aiohttp.ClientSession
) -> None:
    """The viewers that the first signal has sent there get the end as well, once."""
    simulator = slow()
    async with (
        two_replicas(tmp_path, simulator, redis) as (stopping, living),
        nginx(stopping.url, living.url) as balancer,
    ):
        path = f"/api/streams/{await start(session, stopping.url, resume_window=60)}"
        viewers = [asyncio.create_task(follow(session, url + path)) for url in (balancer, balancer, living.url)]
        await simulator.until(lambda: simulator.running == 1)
        await asyncio.sleep(1)
        stopping.terminate()
        await asyncio.sleep(1)
        assert not any(viewer.done() for viewer in viewers)
        stopping.terminate()
        async with asyncio.timeout(5):
            assert await stopping.ended() == 0
        for events in await asyncio.gather(*viewers):
            assert whole(events) == ("error", "shutting_down")
        await simulator.until(lambda: simulator.running == 0)
        assert not [line for line in stopping.log if "Traceback" in line or "ERROR" in line], stopping.log


async def test_without_redis_the_start_fails(tmp_path: Path, closed_port: str) -> None:
    url = closed_port.replace("http", "redis")
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "--port=0", f"--redis-url={url}"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(INSTALLED)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await running.communicate()
    assert running.returncode == 2
    assert b"GATEWAY_REDIS_URL: Redis cannot be reached" in errors
    assert b"Traceback" not in errors


async def test_workers_without_redis_are_refused(tmp_path: Path) -> None:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "gateway.asgi:app", "--workers=2", f"--port={free_port()}"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(INSTALLED)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(running.communicate(), 30)
    assert b"GATEWAY_REDIS_URL: several workers need a Redis" in output
    assert b"Traceback" not in output


async def test_workers_with_redis_are_replicas(tmp_path: Path, redis: Redis, session: aiohttp.ClientSession) -> None:
    """A stream is found by whichever worker the next connection comes to."""
    port = free_port()
    async with serve(quick().app) as ollama:
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "gateway.asgi:app", "--workers=2", f"--port={port}"),
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": str(INSTALLED), "GATEWAY_REDIS_URL": redis.url, "GATEWAY_OLLAMA_URL": ollama},
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await until(lambda: redis.run("SCARD", "gateway:replicas") == 2, 30)
            await listening(port)  # uvicorn's worker is a replica before it is that
            for _ in range(10):
                sid = await start(session, url)
                for _ in range(4):
                    headers = {"Connection": "close"}
                    async with session.get(f"{url}/api/streams/{sid}", headers=headers) as response:
                        assert ending([event async for event in Events(response)]) == ("complete", None)
        finally:
            running.terminate()
            await running.wait()


async def test_redis_is_lost_and_comes_back(own_redis: Redis) -> None:
    """Viewers where the stream runs notice nothing, viewers elsewhere get an end, and then all works as before."""
    simulator = slow()
    async with in_process(simulator, own_redis, 2, attach_timeout=60) as (here, there):
        sid = await here.start(chat=STORY | {"options": {"num_predict": 400}})
        async with here.open(f"/api/streams/{sid}") as near, there.open(f"/api/streams/{sid}") as far:
            await far.next()
            own_redis.kill()
            told = [event async for event in far]
            assert ending(told)[1] == "producer_lost"
            for gw in (here, there):
                async with gw.session.get(gw.url + "/readyz") as response:
                    assert (response.status, (await response.json())["reason"]) == (503, "Redis does not answer.")
                async with gw.session.post(gw.url + "/api/streams", json={"chat": STORY}) as response:
                    assert (response.status, (await response.json())["code"]) == (503, "busy")
            headers = ACCEPT | {"Last-Event-ID": f"{sid}-3"}
            async with there.session.get(f"{there.url}/api/streams/{sid}", headers=headers) as response:
                assert (response.status, await response.read()) == (200, b"retry: 2000\n\n")
            own_redis.start()
            events = [event async for event in near]
            assert ending(events) == ("complete", None)
        again = await there.read(f"/api/streams/{sid}", headers={"Last-Event-ID": f"{sid}-3"})
        assert [event.id for event in again if event.id] == [f"{sid}-{seq}" for seq in range(4, 403)]
        for gw in (here, there):
            other = await here.start(chat=STORY | {"options": {"num_predict": 5}})
            assert ending(await gw.read(f"/api/streams/{other}")) == ("complete", None)
            async with gw.session.get(gw.url + "/readyz") as response:
                assert response.status == 200


async def test_a_pause_of_redis_loses_nothing(own_redis: Redis) -> None:
    """All leases have run out when it is over, and yet no replica takes another for dead."""
    simulator = slow()
    async with in_process(simulator, own_redis, 2, attach_timeout=60) as (here, there):
        sid = await here.start(chat=STORY | {"options": {"num_predict": 160}})
        async with here.open(f"/api/streams/{sid}") as near, there.open(f"/api/streams/{sid}") as far:
            await far.next()
            own_redis.freeze()
            await asyncio.sleep(COMMAND_SECONDS - 0.5)
            own_redis.thaw()
            for events in (near, far):
                assert ending([event async for event in events]) == ("complete", None)
    assert len(simulator.requests) == 1


async def test_a_waiting_stream_is_told_when_redis_is_lost(own_redis: Redis) -> None:
    simulator = slow()
    async with in_process(simulator, own_redis, 1, max_active=1, attach_timeout=60) as (gw,):
        await gw.start(chat=STORY)
        async with gw.open(STORY_PATH) as waiting:
            assert (await waiting.next("status")).json["position"] == 1
            own_redis.kill()
            assert ending([event async for event in waiting])[1] == "busy"
        own_redis.start()
    assert len(simulator.requests) == 1


async def test_a_replica_that_was_taken_for_dead_gives_up_its_stream(
    tmp_path: Path, redis: Redis, session: aiohttp.ClientSession
) -> None:
    """When it goes on after hanging it cannot write any more, and its own viewers get the same end."""
    simulator = slow()
    async with two_replicas(tmp_path, simulator, redis) as (hanging, living):
        sid = await start(session, hanging.url)
        path = f"/api/streams/{sid}"
        near = asyncio.create_task(follow(session, hanging.url + path))
        far = asyncio.create_task(follow(session, living.url + path))
        await asyncio.sleep(0.5)
        os.kill(hanging.pid, signal.SIGSTOP)
        try:
            assert ending(await far) == ("error", "producer_lost")
        finally:
            os.kill(hanging.pid, signal.SIGCONT)
        assert ending(await near) == ("error", "producer_lost")
        await until(lambda: simulator.running == 0)
        # it goes on serving
        other = await start(session, hanging.url, resume_window=1)
        async with session.get(f"{living.url}/api/streams/{other}") as response:
            await Events(response).next()
