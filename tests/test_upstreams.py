"""Several Ollama servers: which one a request goes to, which one is tried next, and what is told of them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gateway.demo import Simulator
from tests.asks import CHAT, chat, quick
from tests.exposition import parse
from tests.gateways import Gateway, gateway
from tests.processes import process
from tests.servers import serve
from tests.sse import Event, Events, ending, messages
from tests.upstreams import (
    NDJSON,
    NOTHING_LOADED,
    ONCE_DONE,
    Answer,
    Peer,
    Upstream,
    head,
    says,
    silence,
    streams,
    token,
    upstream,
    whole,
)

ANSWER = streams(token("a"), ONCE_DONE)
SHOW = says(whole(200, b'{"capabilities":["completion"]}'))
VERSION = says(whole(200, b'{"version":"0.33.0"}'))


def listing(*names: str, **fields: object) -> Answer:
    """A list of models, as of tags and of ps."""
    return says(whole(200, orjson.dumps({"models": [{"name": name, **fields} for name in names]})))


async def hang_up(peer: Peer) -> None:
    """Close the connection instead of answering."""
    peer.close()


@asynccontextmanager
async def several(*urls: str, **settings: Any) -> AsyncIterator[Gateway]:
    async with gateway("", ollama_urls=urls, **settings) as gw:
        yield gw


@asynccontextmanager
async def simulators(*those: Simulator, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway in front of these simulators."""
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serve(each.app)) for each in those]
        yield await stack.enter_async_context(several(*urls, **settings))


async def get(gw: Gateway, path: str) -> Any:
    async with gw.session.get(gw.url + path) as response:
        return await response.json()


async def learn(gw: Gateway) -> None:
    """Make the gateway learn which models its servers have, however long that takes on a busy machine."""
    assert (await get(gw, "/api/models")).keys() == {"models", "default", "allow_pull"}


def models(simulator: Simulator) -> list[str]:
    """The models of the requests that a simulator has got."""
    return [orjson.loads(request.body)["model"] for request in simulator.requests]


async def until(condition: Callable[[], bool], *those: Simulator) -> None:
    """Return once `condition()` holds; it is looked at after every change at any of these."""
    waits = [asyncio.ensure_future(each.until(condition)) for each in those]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


class Box:
    """A simulator as a machine that can be switched off and on: all its connections break, its port stays its own."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._reserved = self._socket()
        self.url = f"http://127.0.0.1:{self._reserved.getsockname()[1]}"
        self._running = AsyncExitStack()

    async def on(self) -> None:
        await self._running.enter_async_context(serve(self.simulator.app, self._socket(self._reserved)))

    async def off(self) -> None:
        await self._running.aclose()

    async def __aenter__(self) -> "Box":
        await self.on()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.off()
        self._reserved.close()

    @staticmethod
    def _socket(like: socket.socket | None = None) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(like.getsockname() if like else ("127.0.0.1", 0))
        return sock


# Failover


async def test_one_of_two_stops_in_the_middle(tmp_path: Path) -> None:
    """A request without a first byte is answered by the other server; a running one gets one error and is not run
    again. Each server generates one answer at a time, so that the third and the fourth wait at Ollama.
    """
    one, other = (quick(token_rate=40, parallel=1) for _ in range(2))
    first, second = Box(one), Box(other)
    async with (
        first,
        second,
        process(tmp_path, f"--ollama-urls={first.url}/,{second.url}") as gw,
        aiohttp.ClientSession() as session,
    ):
        begun = [asyncio.Event() for _ in range(4)]

        async def ask(number: int) -> list[Event]:
            url = (
                f"{gw.url}/api/chat?model=llama3.2&prompt=Number+{number}&options.num_predict=60&options.seed={number}"
            )
            async with session.get(url) as response:
                seen = []
                async for event in Events(response):
                    seen.append(event)
                    if event.name == "message":
                        begun[number].set()
                return seen

        asking = []
        for number in range(4):  # one after the other, so that it is known which wait
            asking.append(asyncio.create_task(ask(number)))
            await until(lambda: one.running + other.running == len(asking), one, other)
        await begun[0].wait()
        await begun[1].wait()
        assert not begun[2].is_set()
        assert (one.running, other.running) == (2, 2)
        await first.off()
        seen = await asyncio.gather(*asking)

    assert [ending(events) for events in seen] == [("error", "truncated"), *[("complete", None)] * 3]
    assert messages(seen[0])[-1].json["retryable"] is True
    seeds = [[orjson.loads(each.body)["options"]["seed"] for each in simulator.requests] for simulator in (one, other)]
    assert seeds == [[0, 2], [1, 3, 2]]
    for events in seen:
        ids = [event.id.split("-")[1] for event in events if event.id]
        assert ids == [str(number) for number in range(1, len(ids) + 1)]


FAILURES: dict[str, Answer] = {
    "closes": hang_up,
    "cut head": says(b"HTTP/1.1 200 OK\r\nContent-"),
    "head, then closes": says(head(200, {"Content-Type": NDJSON, "Content-Length": "100"})),
    "no HTTP": says(b"SSH-2.0\r\n\r\n"),
    "500": says(whole(500, b'{"error":"llama runner process has terminated"}')),
    "503": says(whole(503, b'{"error":"server busy"}')),
    "502 of a proxy": says(whole(502, b"<html>", "text/html")),
    "a page": says(whole(200, b"<html>", "text/html")),
    "empty": says(whole(200, b"", NDJSON)),
    "an error line": streams(b'{"error":"CUDA out of memory"}\n'),
}


async def closed_with(answer: Answer, peer: Peer) -> None:
    await answer(peer)
    peer.close()


@pytest.mark.parametrize("name", FAILURES)
async def test_what_fails_before_the_first_line_is_asked_elsewhere(name: str) -> None:
    async with (
        upstream(lambda peer: closed_with(FAILURES[name], peer)) as bad,
        upstream(ANSWER) as good,
        several(bad.url, good.url) as gw,
    ):
        events = await gw.read(CHAT)
        assert ending(events) == ("complete", None)
        assert [event.json["message"]["content"] for event in messages(events)] == ["a", ""]
        (refused, *again), (answered,) = bad.asked("/api/chat"), good.asked("/api/chat")
        assert refused.body == answered.body
        # Without a byte of answer, on a connection that was used before, it may have been closed before it was read.
        assert len(again) == (name == "closes")


async def test_a_server_that_cannot_be_reached_is_passed_over(closed_port: str, full_backlog: str) -> None:
    async with upstream(ANSWER) as good, several(closed_port, full_backlog, good.url, connect_timeout=0.3) as gw:
        assert ending(await gw.read(CHAT)) == ("complete", None)


REFUSALS: dict[str, tuple[Answer, str]] = {
    "400": (says(whole(400, b'{"error":"invalid options"}')), "ollama_error"),
    "too long": (says(whole(400, b'{"error":"the input length exceeds the context length"}')), "invalid_request"),
    "401": (says(whole(401, b'{"error":"unauthorized"}')), "ollama_error"),
    "not installed anywhere": (says(whole(404, b'{"error":"model not found"}')), "model_not_found"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_is_refused_is_refused(name: str) -> None:
    """The other server would say the same, or is known not to have the model."""
    answer, code = REFUSALS[name]
    async with upstream(answer) as first, upstream(ANSWER) as second, several(first.url, second.url) as gw:
        await learn(gw)
        assert ending(await gw.read(CHAT)) == ("error", code)
        assert len(first.asked("/api/chat")) == 1
        assert not second.asked("/api/chat")


@pytest.mark.parametrize("tags", [listing("m:latest"), silence], ids=["has it", "unknown"])
async def test_a_missing_model_is_asked_for_where_it_may_be(tags: Answer) -> None:
    missing = says(whole(404, b'{"error":"model not found"}'))
    async with (
        upstream(missing, tags=listing("m:latest")) as first,
        upstream(ANSWER, tags=tags) as second,
        several(first.url, second.url) as gw,
    ):
        assert ending(await gw.read(CHAT)) == ("complete", None)
        assert len(first.asked("/api/chat")) == 1


@pytest.mark.parametrize("end", [hang_up, streams(b'{"error":"CUDA error"}\n')], ids=["breaks", "reports an error"])
async def test_nothing_is_run_again_after_a_first_line(end: Answer) -> None:
    async def answer(peer: Peer) -> None:
        await peer.start()
        await peer.lines(token("a"))
        await going_on.wait()
        await peer.lines(b'{"error":"CUDA error"}\n')
        await end(peer)

    going_on = asyncio.Event()
    async with upstream(answer) as first, upstream(ANSWER) as second, several(first.url, second.url) as gw:
        async with gw.open(CHAT) as events:
            seen = [await events.next()]
            going_on.set()
            seen += [event async for event in events]
        assert ending(seen)[0] == "error"
        assert len(first.asked("/api/chat")) == 1
        assert not second.asked("/api/chat")


async def test_a_request_whose_client_leaves_is_not_taken_elsewhere() -> None:
    async with upstream(silence) as first, upstream(ANSWER) as second, several(first.url, second.url) as gw:
        async with gw.open(CHAT):
            await first.until(lambda: first.open == 1)
        await first.until(lambda: first.open == 0)
        async with gw.open(CHAT) as events:  # the same when it is stopped
            sid = (await events.next("meta")).json["id"]
            await first.until(lambda: first.open == 1)
            async with gw.session.delete(f"{gw.url}/api/streams/{sid}"):
                pass
            assert ending([event async for event in events]) == ("cancelled", "cancelled")
        assert not second.asked("/api/chat")


async def test_the_first_token_s_time_limit_is_for_all_attempts() -> None:
    """Most of it passes at the first server. If it began again at the second, the end would come later."""

    async def late(peer: Peer) -> None:
        await asyncio.sleep(1)
        peer.close()

    async with (
        upstream(late) as first,
        upstream(silence) as second,
        several(first.url, second.url, first_token_timeout=1.5) as gw,
    ):
        events = await gw.read(CHAT)
        assert ending(events) == ("error", "first_token_timeout")
        assert 1500 <= events[-1].json["elapsed_ms"] < 2500
        assert len(second.asked("/api/chat")) == 1
        await second.until(lambda: second.open == 0)


async def test_which_of_several_errors_is_told(closed_port: str) -> None:
    """The first that a retry can help; it names a server by its number only."""
    async with upstream(hang_up, tags=listing("m:latest")) as first, several(first.url, closed_port) as gw:
        error = messages(await gw.read(CHAT))[-1].json
        assert (error["code"], error["error"]) == (
            "ollama_unreachable",
            "Ollama closed the connection before it answered.",
        )
    page = says(whole(502, b"<html>", "text/html"))
    async with upstream(page) as first, several(first.url, closed_port) as gw:
        error = messages(await gw.read(CHAT))[-1].json
        assert (error["code"], error["retryable"]) == ("ollama_unreachable", True)
        assert "number 2 of GATEWAY_OLLAMA_URLS" in error["error"]
    async with upstream(page) as first, upstream(page) as second, several(first.url, second.url) as gw:
        error = messages(await gw.read(CHAT))[-1].json
        assert error["code"] == "bad_upstream"
        assert "number 1 of GATEWAY_OLLAMA_URLS" in error["error"]


async def test_the_demo_takes_the_place_of_all(tmp_path: Path, closed_port: str) -> None:
    flags = ("--demo", f"--ollama-urls={closed_port},{closed_port}/other")
    async with (
        process(tmp_path, *flags) as gw,
        aiohttp.ClientSession() as session,
        session.get(gw.url + "/readyz") as response,
    ):
        assert [server["problem"] for server in (await response.json())["servers"]] == [None]


# The choice


async def load(url: str, model: str) -> None:
    """Have a server load a model, without the gateway."""
    async with aiohttp.ClientSession() as session, session.post(url + "/api/generate", json={"model": model}) as answer:
        assert answer.status == 200


async def test_loaded_before_installed_before_the_least_busy() -> None:
    first, second = quick(token_rate=1), quick(token_rate=1)
    del second.models["qwen3:latest"]
    async with serve(first.app) as url, serve(second.app) as other:
        await load(other, "gemma3")
        async with several(url, other, num_parallel=9, attach_timeout=30) as gw:
            await learn(gw)

            async def place(model: str) -> list[int]:
                """How many run on each server, after one more of this model."""
                before = first.running + second.running
                await gw.start(chat=chat("Hi", model=model))
                await until(lambda: first.running + second.running > before, first, second)
                return [first.running, second.running]

            assert await place("gemma3") == [0, 1]  # the only one that has it loaded
            assert await place("gemma3:latest") == [0, 2]  # although it is busy
            assert await place("qwen3") == [1, 2]  # the only one that has it
            assert await place("qwen3") == [2, 2]
            assert await place("qwen3") == [3, 2]
            assert await place("llama3.2") == [3, 3]  # both have it, and one is less busy
            assert await place("fault:stall") == [4, 3]  # no server lists it, and both are as busy: the first
            assert await place("fault:stall") == [5, 3]  # it is on its way there


async def test_what_was_just_loaded_is_known() -> None:
    """A conversation stays where its model was loaded, although it comes second and nothing is old yet."""
    first, second = quick(token_rate=2), quick()
    async with simulators(first, second) as gw:
        async with gw.open("/api/chat?model=qwen3&prompt=Hi") as events:
            await events.next()
            for _ in range(5):
                assert ending(await gw.read("/api/chat?model=llama3.2&prompt=Hi"))[0] == "complete"
        for _ in range(5):
            assert ending(await gw.read("/api/chat?model=llama3.2&prompt=Hi"))[0] == "complete"
    assert models(second) == ["llama3.2"] * 10


async def test_a_conversation_goes_back_to_the_server_that_has_answered_its_beginning() -> None:
    """Both have the model loaded and nothing to do; the first one is taken when nothing speaks for the other."""
    first, second = quick(token_rate=50), quick(token_rate=50)
    question, other = {"role": "user", "content": "Hi"}, {"role": "user", "content": "Ho"}
    answer, more = {"role": "assistant", "content": "What?"}, {"role": "user", "content": "More"}
    async with serve(first.app) as url, serve(second.app) as another:
        for each in (url, another):
            await load(each, "llama3.2")
        async with several(url, another) as gw:

            def asked(simulator: Simulator) -> Any:
                return orjson.loads(simulator.requests[-1].body).get("messages")

            async def ask(*messages: dict[str, str]) -> Simulator:
                """Who is asked."""
                body = {"model": "llama3.2", "messages": messages, "options": {"num_predict": 10}}
                events = await gw.read("/api/chat", json=body)
                assert ending(events) == ("complete", None)
                at = [each for each in (first, second) if asked(each) == [*messages]]
                assert len(at) == 1
                return at[0]

            answered = await asyncio.gather(ask(question), ask(other))
            assert {*answered} == {first, second}
            for began, at in zip((question, other), answered, strict=True):
                assert await ask(began, answer, more) is at
            assert await ask(more) is first


async def test_a_server_that_hangs_keeps_nobody_waiting() -> None:
    """The list of models waits until it counts as down; a request does not, although it comes first."""
    mute = {"tags": silence, "ps": silence, "version": silence}
    async with (
        upstream(silence, **mute) as first,
        upstream(ANSWER) as second,
        several(first.url, second.url) as gw,
    ):
        await learn(gw)
        for _ in range(20):
            assert ending(await gw.read(CHAT)) == ("complete", None)
        assert not first.asked("/api/chat")
        assert len(second.asked("/api/chat")) == 20


async def test_many_requests_are_one_refresh() -> None:
    """The models that a server has are asked for once in a while."""
    async with (
        upstream(ANSWER, tags=listing("m:latest"), ps=listing("m:latest"), show=SHOW) as first,
        upstream(ANSWER, tags=listing("other:latest"), show=SHOW) as second,
        several(first.url, second.url) as gw,
    ):
        await asyncio.gather(learn(gw), learn(gw))
        await asyncio.gather(*(gw.read(CHAT) for _ in range(50)))
        assert len(first.asked("/api/chat")) == 50
        assert [len(server.asked("/api/tags")) for server in (first, second)] == [1, 1]


async def test_a_pull_updates_a_model_where_it_is_and_can_be_used_at_once() -> None:
    first, second = quick(token_rate=1), quick()
    del first.models["qwen3:latest"]
    async with simulators(first, second, allow_pull=True) as gw:
        await learn(gw)
        async with gw.open("/api/chat?model=llama3.2&prompt=Hi"):
            await first.until(lambda: first.running == 1)
            for model in ("qwen3", "smollm2"):  # one that is installed, and one for the least busy
                sid = await gw.start(pull={"model": model})
                assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)
        assert models(second) == ["qwen3", "smollm2"]
        assert ending(await gw.read("/api/chat?model=smollm2&prompt=Hi")) == ("complete", None)
        assert models(second) == ["qwen3", "smollm2", "smollm2"]


@pytest.mark.slow
async def test_a_server_that_has_failed_comes_last_until_it_answers_again() -> None:
    box, other = Box(quick()), quick()
    del other.models["qwen3:latest"]
    qwen = "/api/chat?model=qwen3&prompt=Hi"
    async with box, serve(other.app) as url, several(box.url, url) as gw:
        assert ending(await gw.read(qwen)) == ("complete", None)
        await box.off()
        assert ending(await gw.read(qwen)) == ("error", "ollama_unreachable")  # no other server has the model
        assert ending(await gw.read("/api/chat?model=gemma3&prompt=Hi")) == ("complete", None)
        assert models(other)[-1] == "gemma3"
        await box.on()
        while len(box.simulator.requests) == 1:  # until it is asked again whether it answers
            assert ending(await gw.read("/api/chat?model=llama3.2&prompt=Hi&keep_alive=0")) == ("complete", None)
        assert ending(await gw.read(qwen)) == ("complete", None)


async def test_status_is_asked_of_the_server_that_works() -> None:
    """Of two generations, each follows its own server's list of loaded models."""

    def loaded_later(name: str) -> Answer:
        asked = 0

        async def ps(peer: Peer) -> None:
            nonlocal asked
            asked += 1
            await (NOTHING_LOADED if asked == 1 else listing(name))(peer)

        return ps

    async with (
        upstream(silence, tags=listing("m:latest"), ps=loaded_later("m:latest"), show=SHOW) as first,
        upstream(silence, tags=listing("n:latest"), ps=loaded_later("n:latest"), show=SHOW) as second,
        several(first.url, second.url, status_interval=0.05) as gw,
    ):
        await learn(gw)
        async with gw.open("/api/chat?model=m&prompt=Hi") as one, gw.open("/api/chat?model=n&prompt=Hi") as other:
            for events in (one, other):
                phases = ["starting"]
                while phases[-1] != "prompt":
                    phases.append((await events.next("status")).json["phase"])
                assert set(phases) <= {"queued", "starting", "loading", "prompt"}
            assert (first.open, second.open) == (1, 1)


# What is told of them


async def ready(gw: Gateway) -> tuple[int, Any]:
    async with gw.session.get(gw.url + "/readyz") as response:
        return response.status, await response.json()


async def up(gw: Gateway) -> dict[str, float]:
    """`gateway_ollama_up` by server."""
    async with gw.session.get(gw.url + "/metrics") as response:
        samples = parse(await response.text())["gateway_ollama_up"].samples
    return {dict(labels)["server"]: value for (_, labels), value in samples.items()}


async def test_health_of_each_server(closed_port: str) -> None:
    """Ready while one answers; credentials are not shown."""
    async with upstream(silence, version=VERSION) as server:
        secret = server.url.replace("//", "//me:secret@")
        async with several(closed_port, secret) as gw:
            status, body = await ready(gw)
            assert (status, body["status"]) == (200, "ok")
            problem = "Ollama is not reachable. Is it running, and is number 1 of GATEWAY_OLLAMA_URLS its address?"
            assert body["servers"] == [
                {"url": closed_port, "version": None, "problem": problem},
                {"url": server.url, "version": "0.33.0", "problem": None},
            ]
            assert await up(gw) == {closed_port: 0, server.url: 1}


async def test_not_ready_when_none_answers(closed_port: str) -> None:
    async with upstream(silence, version=hang_up, tags=hang_up) as server, several(closed_port, server.url) as gw:
        status, body = await ready(gw)
        assert (status, body["status"]) == (503, "unavailable")
        assert body["reason"] == body["servers"][0]["problem"]
        assert body["servers"][1]["problem"] == "Ollama closed the connection before it answered."
        assert await up(gw) == {closed_port: 0, server.url: 0}
        async with gw.session.get(gw.url + "/api/models") as response:
            assert response.status == 502
            assert (await response.json())["code"] == "ollama_unreachable"


async def test_models_of_all_servers() -> None:
    """Newest first across time zones, one entry a name, loaded where it is loaded anywhere, of those that are up."""

    def tag(name: str, modified_at: str, size: int) -> dict[str, object]:
        return {"name": name, "modified_at": modified_at, "size": size, "digest": f"{name}{size}"}

    def tags(*those: dict[str, object]) -> Answer:
        return says(whole(200, orjson.dumps({"models": those})))

    async with (
        upstream(
            silence,
            tags=tags(
                tag("mid:latest", "2025-01-01T12:15:00.123456789+02:00", 5),
                tag("old:latest", "2025-01-01T12:00:00.123456789+02:00", 1),
                tag("odd:latest", "", 2),
            ),
            ps=listing("odd:latest", context_length=4096),
            show=SHOW,
        ) as first,
        upstream(
            silence,
            tags=tags(tag("new:latest", "2025-01-01T11:00:00Z", 3), tag("old:latest", "2025-01-01T10:30:00Z", 4)),
            ps=listing("old:latest"),
            show=SHOW,
        ) as second,
        upstream(silence, tags=hang_up, ps=listing("new:latest"), show=SHOW) as broken,
        several(first.url, second.url, broken.url) as gw,
    ):
        answer = await get(gw, "/api/models")
        assert [(each["name"], each["size"], each["loaded"]) for each in answer["models"]] == [
            ("new:latest", 3, False),
            ("old:latest", 4, True),
            ("mid:latest", 5, False),
            ("odd:latest", 2, True),
        ]
        assert [len(server.asked("/api/show")) for server in (first, second, broken)] == [2, 2, 0]
        async with gw.open("/api/chat?prompt=Hi") as events:  # this request names no model
            assert (await events.next("meta")).json["model"] == "new:latest"


# One server


async def test_of_one_server_nothing_more_is_asked() -> None:
    """Its requests are those that a client needs, and no other."""

    async def paths(seen: Upstream) -> list[str]:
        asked = sorted(request.path for request in seen.requests)
        seen.requests.clear()
        return asked

    async with (
        upstream(ANSWER, tags=listing("m:latest"), show=SHOW, version=VERSION) as server,
        gateway(server.url) as gw,
    ):
        for _ in range(3):
            assert ending(await gw.read(CHAT)) == ("complete", None)
        assert await paths(server) == ["/api/chat"] * 3
        assert ending(await gw.read("/api/chat?prompt=Hi")) == ("complete", None)
        assert await paths(server) == ["/api/chat", "/api/tags"]
        await get(gw, "/api/models")
        assert await paths(server) == ["/api/ps", "/api/show", "/api/tags"]
        await ready(gw)
        await up(gw)
        assert await paths(server) == ["/api/version"]
