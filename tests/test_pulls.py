"""Pulls: what reaches Ollama of them, from where, how many at once, and who stops one that several want."""

import asyncio

import orjson
import pytest

from gateway.demo import Simulator
from gateway.streams.running import MAX_PULLS
from tests.gateways import Gateway, gateway
from tests.sse import ending
from tests.test_keys import AS_ADA, BOB, KEYS
from tests.upstreams import Peer, says, streams, upstream, whole
from tests.waits import until

AS_BOB = {"Authorization": f"Bearer {BOB}"}
DONE = streams(b'{"status":"success"}\n')


async def refused(gw: Gateway, body: object) -> tuple[int, str]:
    async with gw.session.post(gw.url + "/api/streams", json={"pull": body}) as response:
        assert response.status != 201
        return response.status, (await response.json())["error"]


async def pull(gw: Gateway, model: str, headers: dict[str, str]) -> str:
    """The path of the stream."""
    async with gw.session.post(gw.url + "/api/streams", json={"pull": {"model": model}}, headers=headers) as response:
        return str((await response.json())["url"])


async def test_nothing_but_the_model_is_passed_on() -> None:
    harmless = {"stream": True, "insecure": False, "username": "", "password": "", "x": {"y": 1}}
    async with upstream(DONE) as ollama, gateway(ollama.url, allow_pull=True) as gw:
        for body in ({"model": "tiny"} | harmless, {"model": "tiny", "name": "evil.example/a/b", "insecure": None}):
            assert ending(await gw.read(f"/api/streams/{await gw.start(pull=body)}")) == ("complete", None)
        assert [orjson.loads(request.body) for request in ollama.asked("/api/pull")] == [{"model": "tiny"}] * 2
        for insecure in (True, 1, "false"):
            status, error = await refused(gw, {"model": "tiny", "insecure": insecure})
            assert (status, error.partition(" ")[0]) == (422, "pull.insecure:")
        assert (await refused(gw, {"model": "tiny", "Insecure": True}))[0] == 422
        assert len(ollama.asked("/api/pull")) == 2


OLLAMAS_OWN = [
    *("tiny", "tiny:1b", "Me/Tiny", "me-2/qwen2.5:7b-Q4_K_M", "library/tiny", "_x"),
    *("registry.ollama.ai/library/tiny", "REGISTRY.Ollama.AI/me/tiny:1", "https://registry.ollama.ai/library/tiny"),
]
FOREIGN = [
    *("127.0.0.1:1/library/x", "https://127.0.0.1/library/x", "localhost/a/b", "169.254.169.254/latest/meta-data"),
    *("hf.co/me/tiny", "registry.ollama.ai:80/library/x", "registry.ollama.ai./library/x", "ollama.com/library/x"),
    *("registry.ollama.ai.evil.example/library/x", "evil.example.registry.ollama.ai/library/x", "2130706433/a/b"),
]
NO_NAMES = [
    *("http://registry.ollama.ai/library/x", "HTTPS://registry.ollama.ai/a/b", "https+insecure://h/a/b", "//h/a/b"),
    *("https://tiny", "https://h/tiny", "file:///etc/passwd", "h:80/x", "127.0.0.1/x", "hf.co/x", "[::1]/a/b"),
    *("registry.ollama.ai@h/a/b", "h@registry.ollama.ai/a/b", "registry.ollama.ai%2eh/a/b", "registry.ollama.ai#h/a/b"),
    *("registry.ollama.ai?h/a/b", "registry.ollama.ai\\h/a/b", "h\\a\\b", "a/b/c/d", "registry.ollama.ai/h/a/b"),
    *("registry。ollama。ai/a/b", "regıstry.ollama.ai/a/b", "REGİSTRY.ollama.ai/a/b", "registry.ollama.ai\u200b/a/b"),
    *("tiny@sha256:" + "0" * 64, "tiny:1:2", "tiny+x", "tiny ", " tiny", "tiny\n", "h\0/a/b", "tín", "１", ""),
    *("..", "../x", "a/../x", "./x", "/x", "x/", "a//x", ":x", "x:", "x:/y", ".x/a/b", "-x"),
]


@pytest.mark.parametrize("allowed", ["", "hf.co,Models.lan:5000"])
async def test_no_spelling_gets_past_the_registries_that_are_allowed(allowed: str) -> None:
    """A name that Ollama could read as another host never gets there; others get there as they were written."""
    own = [
        *OLLAMAS_OWN,
        *(["hf.co/me/Tiny-GGUF:Q4_K_M", "models.LAN:5000/a/b", "https://hf.co/a/b"] if allowed else []),
    ]
    async with upstream(DONE) as ollama, gateway(ollama.url, allow_pull=True, pull_hosts=allowed) as gw:
        for model in own:
            assert ending(await gw.read(f"/api/streams/{await gw.start(pull={'model': model})}"))[0] == "complete"
        for model in [*FOREIGN, "models.lan/a/b", "models.lan:50/a/b", "x.hf.co/a/b"]:
            if not (allowed and model.startswith("hf.co/")):
                status, error = await refused(gw, {"model": model})
                assert (status, "(GATEWAY_PULL_HOSTS)" in error) == (403, True), model
        for model in NO_NAMES:
            for body in ({"model": model}, {"name": model}):
                status, error = await refused(gw, body)
                assert (status, error.partition(" ")[0]) == (422, "pull.model:"), model
        assert [orjson.loads(request.body)["model"] for request in ollama.asked("/api/pull")] == own


async def test_pulls_are_few_and_one_model_is_pulled_once() -> None:
    """However its name is written, and whatever else is in the body."""
    simulator = Simulator(pull_seconds=300)
    async with gateway(simulator, allow_pull=True) as gw:
        first = await gw.start(pull={"model": "tiny"})
        for other in (
            "Tiny:Latest",
            "library/tiny",
            "registry.ollama.ai/library/tiny",
            "https://registry.ollama.ai/library/tiny:latest",
        ):
            assert await gw.start(pull={"model": other, "x": other}) == first
        others = [await gw.start(pull={"model": f"tiny:{number}"}) for number in range(1, MAX_PULLS)]
        assert (await refused(gw, {"model": "another"}))[0] == 503
        assert await gw.start(pull={"model": "tiny:1"}) == others[0]
        await simulator.until(lambda: simulator.running == MAX_PULLS)
        async with gw.session.delete(f"{gw.url}/api/streams/{others[0]}"):
            pass
        await gw.start(pull={"model": "another"})
        await simulator.until(lambda: len(simulator.requests) == MAX_PULLS + 1)


async def stop(gw: Gateway, path: str, headers: dict[str, str]) -> None:
    async with gw.session.delete(gw.url + path, headers=headers) as response:
        assert response.status == 204


async def check_who_stops(gw: Gateway, other: Gateway) -> None:
    """A pull that runs at `gw`, and is stopped at `other`."""
    path = await pull(gw, "tiny", AS_ADA)
    async with gw.open(path) as events:
        assert await pull(gw, "tiny:latest", AS_BOB) == path
        for headers in (AS_BOB, AS_BOB, {}):  # also when it is repeated, and by somebody who only knows the URL
            await stop(other, path, headers)
        for _ in range(5):
            assert "status" in (await events.next()).json
        await stop(other, path, AS_ADA)
        assert ending([event async for event in events]) == ("cancelled", "cancelled")
    path = await pull(gw, "tiny", AS_ADA)  # nobody else wants this one
    await stop(other, path, {})
    assert ending(await gw.read(path)) == ("cancelled", "cancelled")


async def test_who_joins_a_pull_cannot_stop_it_for_others() -> None:
    """It stops when all who have asked for it have said so."""
    async with gateway(Simulator(pull_seconds=300), allow_pull=True, api_keys=KEYS) as gw:
        await check_who_stops(gw, gw)


async def test_who_joins_a_pull_is_waited_for() -> None:
    """The first viewer leaves before the second one, who has asked already, has come."""
    async with gateway(Simulator(pull_seconds=300), allow_pull=True) as gw:
        running = gw.state["streams"].running
        sid = await gw.start(pull={"model": "tiny"})
        async with gw.open(f"/api/streams/{sid}") as events:
            await events.next()
            assert await gw.start(pull={"model": "tiny"}) == sid
        await until(lambda: running.viewers == 0)
        async with gw.open(f"/api/streams/{sid}") as events:
            assert "status" in (await events.next()).json
            assert sid in running


async def test_a_model_that_was_pulled_is_listed_at_once() -> None:
    """As soon as it is told, although Ollama's answer has not ended yet."""
    installed: list[dict[str, str]] = []

    async def tags(peer: Peer) -> None:
        await peer.send(whole(200, orjson.dumps({"models": installed})))

    async def answer(peer: Peer) -> None:
        installed.append({"name": "tiny:latest"})
        await peer.start()
        await peer.lines(b'{"status":"success"}\n')
        await asyncio.Event().wait()

    async def listed() -> int:
        async with gw.session.get(gw.url + "/api/models") as response:
            return len((await response.json())["models"])

    details = says(whole(200, b"{}"))
    async with upstream(answer, tags=tags, show=details) as ollama, gateway(ollama.url, allow_pull=True) as gw:
        assert await listed() == 0
        assert ending(await gw.read(f"/api/streams/{await gw.start(pull={'model': 'tiny'})}")) == ("complete", None)
        assert await listed() == 1
