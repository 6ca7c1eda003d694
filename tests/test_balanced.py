"""Three replicas as processes behind a round-robin nginx, with one Redis: users see one gateway."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.demo import Simulator
from gateway.web.state import GatewayState
from tests.asks import chat, quick
from tests.chaos import chaos
from tests.gateways import Gateway
from tests.processes import process
from tests.redis_server import Redis
from tests.replicas import nginx
from tests.servers import serve
from tests.sse import ending
from tests.test_resume import check_all

GENERATIONS = 150
SHORT = chat("Hello", options={"num_predict": 10})


@pytest.fixture
async def three(tmp_path: Path, redis: Redis) -> AsyncIterator[Any]:
    """A function that starts three replicas with some flags, and returns the balancer as if it were a gateway."""
    async with AsyncExitStack() as stack:

        async def start(ollama: str, *flags: str) -> Gateway:
            flags = f"--ollama-url={ollama}", f"--redis-url={redis.url}", *flags
            replicas = [await stack.enter_async_context(process(tmp_path, *flags)) for _ in range(3)]
            url = await stack.enter_async_context(nginx(*(replica.url for replica in replicas)))
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            return Gateway(url, session, cast(GatewayState, {}))

        yield start


@pytest.mark.timeout(300)
async def test_cut_anywhere_and_reconnected_anywhere_the_answer_is_the_uncut_one(three: Any) -> None:
    """As with one gateway, but each reconnect may land on any of the three replicas."""
    seed = random.randrange(2**32)
    simulator = Simulator(token_rate=200, load_seconds=0.05, prompt_seconds=0.01, parallel=64)
    twin = quick(parallel=GENERATIONS)
    async with serve(simulator.app) as upstream, serve(twin.app) as direct:
        gw = await three(upstream, "--max-active=64", "--num-parallel=64", "--retain-seconds=600")
        await check_all(gw, direct, simulator, GENERATIONS, seed)


class Counted:
    """Counts the answers that Ollama gives at the same time: from a request's arrival to its last byte."""

    def __init__(self, app: ASGIApp) -> None:
        self.most = 0
        self._answers: set[int] = set()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._answers.discard(id(scope))  # before it is sent, because the next request may follow at once
            await send(message)

        if scope.get("path") == "/api/chat":
            self._answers.add(id(scope))
            self.most = max(self.most, len(self._answers))
        await self._app(scope, receive, count)


async def test_all_together_ask_for_no_more_than_they_may(three: Any) -> None:
    """All 60 requests share the 4 slots, whichever replica they come to."""
    simulator = quick(token_rate=100, parallel=64)
    counted = Counted(simulator.app)
    async with serve(counted) as upstream:
        gw = await three(upstream, "--max-active=4")
        for events in await asyncio.gather(*(gw.read("/api/chat", json=SHORT) for _ in range(60))):
            assert ending(events) == ("complete", None)
        assert counted.most == 4
        assert len(simulator.requests) == 60


async def test_first_come_first_served_at_whichever_replica(three: Any) -> None:
    """Each viewer sees its place count down, and the streams are served in the order of their arrival."""
    simulator = quick(token_rate=50, parallel=64)
    served: list[int] = []
    async with serve(simulator.app) as upstream:
        gw = await three(upstream, "--max-active=1", "--attach-timeout=60")
        sids = [await gw.start(chat=SHORT) for _ in range(12)]

        async def watch(number: int) -> list[int]:
            places = []
            async with gw.open(f"/api/streams/{sids[number]}") as events:
                async for event in events:
                    if event.name == "status" and "position" in event.json:
                        places.append(event.json["position"])
                    elif event.name == "end":
                        served.append(number)
            return places

        for number, places in enumerate(await asyncio.gather(*map(watch, range(12)))):
            distinct = list(dict.fromkeys(places))
            assert distinct == list(range(len(distinct), 0, -1))  # none where it ran before its viewer came
            assert len(distinct) <= number
        assert served == list(range(12))


@pytest.mark.timeout(300)
async def test_chaos(capsys: pytest.CaptureFixture[str]) -> None:
    """This is a short run; `python -m tests.chaos` makes longer ones."""
    seed = random.randrange(2**32)
    with capsys.disabled():
        print(f" seed {seed}", end="")
    run = await chaos(20, 20, seed)
    assert run.outcomes["complete", None] > 0
