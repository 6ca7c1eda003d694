"""Liveness, which is the process's own; readiness, which asks Ollama, briefly and seldom."""

import asyncio

from gateway.demo import Simulator
from tests.gateways import Gateway, gateway
from tests.upstreams import Peer, Upstream, says, silence, upstream, whole

VERSION = says(whole(200, b'{"version":"0.33.0"}'))


async def ready(gw: Gateway) -> tuple[int, str | None]:
    """The status of /readyz and the reason it gives."""
    async with gw.session.get(gw.url + "/readyz") as response:
        body = await response.json()
        assert body["status"] == ("ok" if response.status == 200 else "unavailable")
        return response.status, body.get("reason")


def asked(seen: Upstream) -> int:
    return len(seen.requests)


async def test_healthz_never_asks_ollama() -> None:
    async with upstream(silence, version=silence) as seen, gateway(seen.url) as gw:
        for _ in range(10):
            async with gw.session.get(gw.url + "/healthz") as response:
                assert response.status == 200
                assert await response.json() == {"status": "ok"}
        assert asked(seen) == 0


async def test_ready_when_ollama_answers() -> None:
    async with gateway(Simulator()) as gw:
        assert await ready(gw) == (200, None)


async def test_not_ready_when_ollama_is_down(closed_port: str) -> None:
    async with gateway(closed_port) as gw:
        status, reason = await ready(gw)
    assert status == 503
    assert reason == "Ollama is not reachable. Is it running, and is GATEWAY_OLLAMA_URL its address?"


async def test_many_probes_are_one_question() -> None:
    """They wait for its answer together and share it, as do those that come soon after."""
    answers = asyncio.Event()

    async def version(peer: Peer) -> None:
        await answers.wait()
        await VERSION(peer)

    async with upstream(silence, version=version) as seen, gateway(seen.url) as gw:
        probes = [asyncio.create_task(ready(gw)) for _ in range(50)]
        await seen.until(lambda: asked(seen) == 1)
        async with gw.session.get(gw.url + "/healthz"):  # the others have come by now
            answers.set()
        assert await asyncio.gather(*probes) == [(200, None)] * 50
        assert await ready(gw) == (200, None)
        assert asked(seen) == 1


async def test_an_answer_is_not_believed_for_long() -> None:
    async with upstream(silence, version=VERSION) as seen, gateway(seen.url) as gw:
        probes = 0
        while asked(seen) < 3:
            assert await ready(gw) == (200, None)
            probes += 1
        assert probes > 3


async def test_a_silent_ollama_does_not_keep_the_prober_waiting() -> None:
    async with upstream(silence, version=silence) as seen, gateway(seen.url) as gw:
        probes = [asyncio.create_task(ready(gw)) for _ in range(5)]
        answers = await asyncio.gather(*probes)
        assert answers == [(503, "Ollama does not answer within 2 s.")] * 5
        assert asked(seen) == 1
