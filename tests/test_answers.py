"""What many ask about Ollama's models: it is asked a few times, and told at once what a stream has changed."""

import asyncio
from time import monotonic

from tests.asks import quick
from tests.gateways import Gateway, gateway
from tests.sse import ending
from tests.upstreams import Peer, says, silence, upstream, whole

LIST = says(whole(200, b'{"models":[{"name":"m:latest"}]}'))
NO_MODEL = {"messages": [{"role": "user", "content": "Hi"}]}
SHOW = says(whole(200, b'{"capabilities":["completion"]}'))


async def status(gw: Gateway, path: str = "/api/models") -> int:
    async with gw.session.get(gw.url + path) as response:
        return response.status


async def loaded(gw: Gateway, model: str) -> bool:
    async with gw.session.get(gw.url + "/api/models") as response:
        return model in [each["name"] for each in (await response.json())["models"] if each["loaded"]]


async def test_many_who_ask_at_once_are_one_question() -> None:
    """Those who want the list, and those who name no model; and those who come soon after get the same answer."""
    answers, began = asyncio.Event(), monotonic()

    async def tags(peer: Peer) -> None:
        await answers.wait()
        await LIST(peer)

    async with upstream(silence, tags=tags, show=SHOW) as ollama, gateway(ollama.url, attach_timeout=60) as gw:
        starts = [asyncio.create_task(gw.start(chat=NO_MODEL)) for _ in range(20)]
        lists = [asyncio.create_task(status(gw)) for _ in range(20)]
        await ollama.until(lambda: len(ollama.asked("/api/tags")) == 1)
        await status(gw, "/healthz")  # the others have come by now
        answers.set()
        assert len(set(await asyncio.gather(*starts))) == 20
        assert set(await asyncio.gather(*lists)) == {200}
        for _ in range(50):
            await status(gw)
        assert len(ollama.asked("/api/show")) == 1
        for path in ("/api/tags", "/api/ps"):
            assert len(ollama.asked(path)) <= 3 + (monotonic() - began)


async def test_a_failure_is_one_question_too_and_soon_forgotten() -> None:
    answers, up = asyncio.Event(), asyncio.Event()

    async def tags(peer: Peer) -> None:
        await answers.wait()
        await (LIST if up.is_set() else says(whole(500, b'{"error":"x"}')))(peer)

    async with upstream(silence, tags=tags, show=SHOW) as ollama, gateway(ollama.url) as gw:
        asks = [asyncio.create_task(status(gw)) for _ in range(20)]
        await ollama.until(lambda: len(ollama.asked("/api/tags")) == 1)
        await status(gw, "/healthz")
        answers.set()
        assert await asyncio.gather(*asks) == [500] * 20
        assert len(ollama.asked("/api/tags")) == 1
        up.set()
        async with asyncio.timeout(10):
            while await status(gw) != 200:
                pass


async def test_what_a_stream_has_loaded_or_unloaded_shows_at_once() -> None:
    async with gateway(quick(token_rate=1)) as gw:
        assert not await loaded(gw, "qwen3:latest")
        async with gw.open("/api/chat?model=qwen3&prompt=Hi") as events:
            await events.next()
            assert await loaded(gw, "qwen3:latest")
        unload = await gw.read(f"/api/streams/{await gw.start(chat={'model': 'qwen3', 'keep_alive': 0})}")
        assert ending(unload) == ("complete", None)
        assert not await loaded(gw, "qwen3:latest")
