"""Replicas under everything that goes wrong: killed, restarted, cut off, with a Redis that stops for seconds.

    python -m tests.chaos --minutes 10

It ends by itself, uses only 127.0.0.1, and fails at the first stream that does not end as it must.
"""

import argparse
import asyncio
import os
import random
import signal
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import aiohttp
import orjson

from gateway.demo import Simulator
from gateway.replicas.replica import LOST_SECONDS
from tests.asks import chat, quick
from tests.eventsource import follow, whole
from tests.processes import free_port, process
from tests.redis_server import Redis, redis_server
from tests.replicas import nginx
from tests.servers import serve
from tests.sse import text
from tests.waits import until

REPLICAS = 3
PROMPTS = ["Hello", "Show me a table", "Write some code", "Tell me about bridges", "日本語で説明して"]
RESUME_WINDOW = 20
GENERATION_SECONDS = 120
"""No stream may take longer, whatever happens."""

EXPECTED = {
    ("complete", None),
    ("cancelled", "cancelled"),
    ("error", "producer_lost"),
    ("error", "shutting_down"),
    ("error", "busy"),
}


class Chaos:
    """One run. `outcomes` counts how streams ended, `events` what was done to the replicas."""

    def __init__(self, redis: Redis, session: aiohttp.ClientSession, directory: Path, seed: int) -> None:
        self.outcomes: Counter[tuple[str, str | None]] = Counter()
        self.events: Counter[str] = Counter()
        self.simulator = Simulator(token_rate=40, load_seconds=0.1, prompt_seconds=0.05, parallel=64)
        self._redis = redis
        self._session = session
        self._directory = directory
        self._chance = random.Random(seed)
        self._ports = [free_port() for _ in range(REPLICAS)]
        self._orders: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(REPLICAS)]
        self._texts: dict[tuple[str, int], str] = {}

    async def run(self, seconds: float, clients: int) -> None:
        """Let `clients` ask for `seconds`, then wait for the last stream and check what is left."""
        twin = quick(parallel=64)
        async with AsyncExitStack() as stack:
            # like Ollama, which never closes an idle connection: one closed in use would be an error of its own
            ollama = await stack.enter_async_context(serve(self.simulator.app, timeout_keep_alive=3600))
            self._twin = await stack.enter_async_context(serve(twin.app))
            replicas = [asyncio.create_task(self._replica(number, ollama)) for number in range(REPLICAS)]
            urls = [f"http://127.0.0.1:{port}" for port in self._ports]
            self._url = await stack.enter_async_context(nginx(*urls))
            await until(lambda: self._redis.run("SCARD", "gateway:replicas") == REPLICAS, 30)
            stop = asyncio.get_running_loop().time() + seconds
            monkey = asyncio.create_task(self._monkey())
            async with asyncio.TaskGroup() as tasks:
                for number in range(clients):
                    tasks.create_task(self._client(random.Random(f"{self._chance.random()}-{number}"), stop))
            monkey.cancel()
            await until(lambda: self.simulator.running == 0, RESUME_WINDOW + LOST_SECONDS + 5)
            await until(lambda: not any(self._redis.run("HKEYS", "gateway:line")), 2 * LOST_SECONDS)
            for task in replicas:
                task.cancel()
            await asyncio.wait(replicas)
        keys = self._redis.keys()
        gone = -2  # a key that ran out after it was listed
        assert all(0 < milliseconds <= 90_000 or milliseconds == gone for milliseconds in keys.values()), keys

    async def _replica(self, number: int, ollama: str) -> None:
        """A replica that is started again whenever it was ended."""
        flags = (
            f"--ollama-url={ollama}",
            f"--redis-url={self._redis.url}",
            f"--port={self._ports[number]}",
            "--max-active=24",
            "--num-parallel=24",
            f"--retain-seconds={RESUME_WINDOW}",  # so that whoever was away finds the end of what gave way to others
            "--drain-seconds=10",
            "--log-level=warning",
        )
        while True:
            async with process(self._directory, *flags) as gateway:
                os.kill(gateway.pid, await self._orders[number].get())
                await gateway.ended()
                crashes = [line for line in gateway.log if "Traceback" in line]
                assert not crashes, gateway.log

    async def _monkey(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(1, 5))
            what = self._chance.choice(["kill", "restart", "pause", "cut"])
            self.events[what] += 1
            match what:
                case "kill":
                    self._chance.choice(self._orders).put_nowait(signal.SIGKILL)
                case "restart":
                    for order in self._orders:  # a rolling restart
                        order.put_nowait(signal.SIGTERM)
                        await asyncio.sleep(3)
                case "pause":
                    self._redis.run("CLIENT", "PAUSE", self._chance.randrange(500, 4000), "ALL")
                case "cut":
                    self._redis.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def _client(self, chance: random.Random, stop: float) -> None:
        while asyncio.get_running_loop().time() < stop:
            prompt, length = chance.choice(PROMPTS), chance.randrange(20, 200)
            if chance.random() < 0.5:
                query = f"model=llama3.2&options.seed=7&options.num_predict={length}&resume_window={RESUME_WINDOW}"
                path = f"/api/chat?{query}&prompt={quote(prompt)}"
            else:
                path = "/api/streams/" + await self._start(prompt, length)
                if chance.random() < 0.1:
                    asyncio.get_running_loop().call_later(chance.random() * 3, self._stop, path)
            events = await follow(self._session, self._url + path, seconds=GENERATION_SECONDS, cuts=chance)
            result = whole(events)
            assert result in EXPECTED, (result, events[-2:])
            self.outcomes[result] += 1
            if result == ("complete", None):
                assert text(events) == await self._direct(prompt, length)

    async def _start(self, prompt: str, length: int) -> str:
        while True:
            with suppress(aiohttp.ClientError):
                body = {"chat": _body(prompt, length), "resume_window": RESUME_WINDOW}
                async with self._session.post(self._url + "/api/streams", json=body) as response:
                    if response.status == 201:
                        return str((await response.json())["id"])
                    assert response.status in (502, 503, 504), await response.text()
            await asyncio.sleep(0.2)

    def _stop(self, path: str) -> None:
        async def delete() -> None:
            with suppress(aiohttp.ClientError):
                await self._session.delete(self._url + path)

        self._deleting = asyncio.create_task(delete())

    async def _direct(self, prompt: str, length: int) -> str:
        """The same answer, straight from a simulator."""
        if (prompt, length) not in self._texts:
            headers = {"Connection": "close"}  # an idle one may be closed just when it is used again
            body = _body(prompt, length)
            async with self._session.post(self._twin + "/api/chat", json=body, headers=headers) as response:
                lines = (await response.read()).splitlines()
            self._texts[prompt, length] = "".join(orjson.loads(line)["message"]["content"] for line in lines)
        return self._texts[prompt, length]


def _body(prompt: str, length: int) -> dict[str, object]:
    return chat(prompt, options={"seed": 7, "num_predict": length})


async def chaos(seconds: float, clients: int, seed: int, expire: bool = False) -> Chaos:
    """One run, with `expire` until Redis is empty again. Raises an error when anything went wrong."""
    with redis_server() as redis, tempfile.TemporaryDirectory() as directory:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            run = Chaos(redis, session, Path(directory), seed)
            await run.run(seconds, clients)
        if expire:
            await until(lambda: not redis.keys(), 90)
        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    print("seed", arguments.seed, flush=True)
    run = asyncio.run(chaos(arguments.minutes * 60, arguments.clients, arguments.seed, expire=True))
    for result, count in run.outcomes.most_common():
        print(*result, count)
    print(*run.events.items())


if __name__ == "__main__":
    main()
