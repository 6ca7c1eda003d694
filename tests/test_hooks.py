"""The hook: what it is given, what it may do, and that it cannot harm other requests."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from blockbuster import BlockBuster

from gateway.app import create_app
from gateway.asks.hook_runner import FAILED, MAX_BLOCKED, HookRunner, find_hook
from gateway.demo import Simulator
from gateway.errors import NotFound
from gateway.hooks import HookRequest, Rejected, texts
from gateway.settings import ConfigurationError, load
from tests.asks import TABLE, quick, with_text
from tests.gateways import Gateway, gateway
from tests.sse import ending

HERE = "tests.test_hooks"
PRESET = """
[presets.p]
model = "llama3.2"
system = "Be {mood}."
variables = { mood = "brief" }
options = { temperature = 0.5 }
"""


# What a hook is given and gives

seen: list[HookRequest] = []


async def remember(request: HookRequest) -> dict[str, Any]:
    seen.append(request)
    return request.body


async def test_what_a_hook_is_given(simulator: Simulator, tmp_path: Path) -> None:
    """The preset is applied, and of the headers it sees those that are listed."""
    seen.clear()
    (tmp_path / "g.toml").write_text(PRESET)
    settings = {"config": str(tmp_path / "g.toml"), "hook": f"{HERE}:remember", "hook_headers": "X-User, X-Team"}
    async with gateway(simulator, truncate=False, **settings) as gw:
        headers = {"X-USER": "ada", "Authorization": "Bearer secret", "Cookie": "a=b"}
        path = "/api/chat?preset=p&variables.mood=kind&prompt=Hi&resume_window=5"
        assert ending(await gw.read(path, headers=headers)) == ("complete", None)
        await gw.read("/api/generate", json={"prompt": "Hi", "stream": False})
    body = {
        "model": "llama3.2",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        "options": {"temperature": 0.5},
        "truncate": False,
    }
    assert seen == [
        HookRequest("chat", body, "p", {"mood": "kind"}, "127.0.0.1", {"x-user": "ada"}),
        HookRequest(
            "generate", {"model": "llama3.2:latest", "prompt": "Hi", "truncate": False}, None, {}, "127.0.0.1", {}
        ),
    ]
    assert simulator.requests[0].body == orjson.dumps(body)


async def replace(request: HookRequest) -> dict[str, Any]:
    """Ruins everything that it is given, and returns something else."""
    request.body["messages"][0]["content"] = "ruined"
    request.body["messages"].clear()
    request.body["options"]["temperature"] = 2
    request.body["options"] = None
    return {"messages": [{"role": "user", "content": "Show me code"}], "model": "gemma3", "stream": False, "new": [1]}


async def test_what_a_hook_returns_is_what_is_sent(simulator: Simulator, tmp_path: Path) -> None:
    """Only `stream` is left out, because streaming is not the hook's choice; and the hook changes its own copy."""
    (tmp_path / "g.toml").write_text(PRESET)
    async with gateway(simulator, config=str(tmp_path / "g.toml"), hook=f"{HERE}:replace") as gw:
        before = gw.state["shaper"].presets["p"].model_dump()
        for _ in range(2):
            sid = await gw.start(chat=TABLE, preset="p")
            events = await gw.read(f"/api/streams/{sid}")
            assert ending(events) == ("complete", None)
            assert events[0].json["model"] == "gemma3"
        assert gw.state["shaper"].presets["p"].model_dump() == before
    expected = b'{"messages":[{"role":"user","content":"Show me code"}],"model":"gemma3","new":[1]}'
    assert [request.body for request in simulator.requests] == [expected, expected]


async def reject(request: HookRequest) -> dict[str, Any]:
    raise Rejected("Not about this.", "banned_topic")


async def test_a_rejection_is_told_to_the_person(simulator: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    async with gateway(simulator, hook=f"{HERE}:reject", allow_preview=True) as gw:
        answers = await every_way(gw)
        async with gw.session.post(gw.url + "/api/preview", json={"chat": TABLE}) as response:
            answers.append(await response.json())
    expected = {"error": "Not about this.", "code": "banned_topic", "status": 422}
    assert answers == [expected | {"phase": "request", "retryable": False}] * 4
    assert not simulator.requests
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


loops: set[asyncio.AbstractEventLoop] = set()


async def remember_loop(request: HookRequest) -> dict[str, Any]:
    loops.add(asyncio.get_running_loop())
    return request.body


async def test_all_calls_have_one_loop_which_is_not_the_gateways(simulator: Simulator) -> None:
    """A hook can therefore keep an HTTP client."""
    loops.clear()
    async with gateway(simulator, hook=f"{HERE}:remember_loop") as gw:
        for _ in range(3):
            await gw.read("/api/chat", json=TABLE)
    assert len(loops) == 1
    assert asyncio.get_running_loop() not in loops


barrier = asyncio.Event()
waiting: list[None] = []


async def meet(request: HookRequest) -> dict[str, Any]:
    waiting.append(None)
    if len(waiting) == 5:
        barrier.set()
    await barrier.wait()
    return request.body


async def test_hooks_that_wait_run_at_the_same_time(simulator: Simulator) -> None:
    async with gateway(simulator, hook=f"{HERE}:meet", hook_timeout=60) as gw:
        results = await asyncio.gather(*(gw.read("/api/chat", json=TABLE) for _ in range(5)))
    assert {ending(events) for events in results} == {("complete", None)}


# What a hook checks is all that there is

WORD = "xantippe"


async def banning(request: HookRequest) -> dict[str, Any]:
    if any(WORD in text for text in texts(request.body)):
        raise Rejected("Not about her.", "banned_topic")
    return request.body


async def test_no_text_is_hidden_from_a_hook(simulator: Simulator) -> None:
    async with gateway(simulator, hook=f"{HERE}:banning") as gw:
        for place, kind, body in with_text(f"Tell me of {WORD}."):
            async with gw.session.post(f"{gw.url}/api/{kind}", json=body) as response:
                assert (response.status, (await response.json())["code"]) == (422, "banned_topic"), place
        assert not simulator.requests
        assert await status(gw, TABLE) == 200


def test_texts_are_words_and_numbers_and_no_settings() -> None:
    call = {"function": {"name": "pay", "arguments": {"to": ["Ada", 1, 2.5], "card": 4111}}}
    settings = {"model": "m", "options": {"stop": ["a"]}, "think": "high", "keep_alive": "5m", "format": "json"}
    more = {"images": ["aGk="], "context": [1, 2], "raw": True, "top_logprobs": 1, "suffix": None}
    body = {
        **settings,
        **more,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Hi", "images": ["aGk="]},
            {"role": "assistant", "content": "", "thinking": "Hm", "tool_calls": [call]},
            {"role": "control", "content": "thinking"},
        ],
    }
    assert list(filter(None, texts(body))) == [
        *("Be brief.", "Hi", "Hm", "function", "name", "arguments", "pay", "to", "card", "4111", "Ada", "1,2.5"),
        *("control", "thinking"),
    ]
    nested: Any = "deep"
    for _ in range(5000):
        nested = [nested]
    assert list(texts({"tools": nested})) == ["deep"]


async def test_a_hook_sees_roles_as_ollama_reads_them(simulator: Simulator) -> None:
    seen.clear()
    turns = [{"role": role, "content": "Hi"} for role in ("SYSTEM", "User", "assİstant")]
    async with gateway(simulator, hook=f"{HERE}:remember") as gw:
        assert await status(gw, {"model": "llama3.2", "messages": turns}) == 200
    roles = [message["role"] for message in seen[0].body["messages"]]
    assert roles == ["system", "user", "assi̇stant"]
    assert orjson.loads(simulator.requests[0].body) == seen[0].body


OTHER_KINDS = [
    *(("chat", name, "x") for name in ("prompt", "suffix", "system", "template")),
    *(("chat", "context", [1]), ("chat", "raw", True), ("chat", "images", ["aGk="]), ("chat", "prompt", {"a": 1})),
    *(("generate", "messages", [{"role": "user", "content": "Hi"}]), ("generate", "tools", [{}])),
]


async def test_a_field_of_the_other_kind_is_refused(simulator: Simulator) -> None:
    """A hook might check it in place of what Ollama reads. Without a value it is left out."""
    seen.clear()
    async with gateway(simulator, hook=f"{HERE}:remember") as gw:
        for kind, name, value in OTHER_KINDS:
            body = {"model": "llama3.2", "prompt": "Hi"} if kind == "generate" else TABLE
            for path, asked in ((f"/api/{kind}", body | {name: value}), ("/api/streams", {kind: body | {name: value}})):
                async with gw.session.post(gw.url + path, json=asked) as response:
                    error = await response.json()
                    assert (response.status, error["code"]) == (422, "invalid_request")
                    assert f"{name} is a field of" in error["error"]
            values: list[object] = [None, "", [], False]
            for nothing in values:
                await gw.read(f"/api/{kind}", json=body | {name: nothing})
                assert seen[-1].body == body
    assert len(seen) == 4 * len(OTHER_KINDS)


async def test_a_hook_cannot_be_told_words_as_tokens(simulator: Simulator) -> None:
    """Their numbers are known to everybody who has the model, and the hook would not see a word."""
    ask = {"model": "llama3.2", "prompt": "Hi", "context": [1, 2, 3]}
    async with gateway(simulator) as gw:
        assert ending(await gw.read("/api/generate", json=ask)) == ("complete", None)
    async with (
        gateway(simulator, hook=f"{HERE}:banning") as gw,
        gw.session.post(gw.url + "/api/generate", json=ask) as response,
    ):
        error = await response.json()
        assert (response.status, error["code"]) == (422, "invalid_request")
        assert error["error"].startswith("context: ")
    assert len(simulator.requests) == 1


async def test_a_header_that_the_hook_sees_is_given_once(simulator: Simulator) -> None:
    """A proxy may have added its own to the client's, and the hook would be shown the client's."""
    seen.clear()
    async with gateway(simulator, hook=f"{HERE}:remember", hook_headers="X-User") as gw:
        twice = [("X-User", "admin"), ("X-User", "ada")]
        async with gw.session.post(gw.url + "/api/chat", json=TABLE, headers=twice) as response:
            error = await response.json()
            assert (response.status, error["code"]) == (400, "invalid_request")
            assert error["error"].startswith("x-user: ")
        assert not seen
        fine = [("X-User", "ada"), ("X-Other", "1"), ("X-Other", "2")]
        async with gw.session.post(gw.url + "/api/chat", json=TABLE, headers=fine) as response:
            assert response.status == 200
    assert [request.headers for request in seen] == [{"x-user": "ada"}]


# What goes wrong


async def raising(request: HookRequest) -> dict[str, Any]:
    raise RuntimeError("some internals")


async def timing_out(request: HookRequest) -> dict[str, Any]:
    raise TimeoutError("some internals")


async def cancelling(request: HookRequest) -> dict[str, Any]:
    raise asyncio.CancelledError("some internals")


async def exiting(request: HookRequest) -> dict[str, Any]:
    raise SystemExit("some internals")


async def not_finding(request: HookRequest) -> dict[str, Any]:
    raise NotFound("some internals")


async def rejecting_badly(request: HookRequest) -> dict[str, Any]:
    raise Rejected("some internals", "Not A Code")


async def slow(request: HookRequest) -> dict[str, Any]:
    await asyncio.Event().wait()  # some internals
    raise AssertionError


async def nothing(request: HookRequest) -> Any:
    return None


async def a_list(request: HookRequest) -> Any:
    return [request.body]


async def a_rejection(request: HookRequest) -> Any:
    return Rejected("some internals")


async def a_coroutine(request: HookRequest) -> Any:
    return asyncio.sleep


async def not_json(request: HookRequest) -> Any:
    return request.body | {"options": {"stop": ["x"], "seen": {1, 2}}}


async def not_text(request: HookRequest) -> Any:
    return request.body | {"more": "\ud800"}


async def endless(request: HookRequest) -> Any:
    body = dict(request.body)
    body["more"] = body
    return body


async def wrong_types(request: HookRequest) -> Any:
    return {"model": "llama3.2", "messages": "Hi", "prompt": 5}


async def no_model(request: HookRequest) -> Any:
    return {"options": {}}


async def empty_model(request: HookRequest) -> Any:
    return request.body | {"model": ""}


FAILING = {
    raising: "RuntimeError: some internals",
    timing_out: "the hook failed",
    cancelling: "the hook failed",
    exiting: "SystemExit: some internals",
    not_finding: "gateway.errors.NotFound: some internals",
    rejecting_badly: "ValueError: not a code of lower-case letters, digits and _: 'Not A Code'",
    slow: "await asyncio.Event().wait()  # some internals",
    nothing: "cannot be sent: It is not a dictionary.",
    a_list: "cannot be sent: It is not a dictionary.",
    a_rejection: "cannot be sent: It is not a dictionary.",
    a_coroutine: "cannot be sent: It is not a dictionary.",
    not_json: "cannot be sent: The body cannot be written as JSON: Type is not JSON serializable: set.",
    not_text: "cannot be sent: The body cannot be written as JSON: str is not valid UTF-8",
    endless: "cannot be sent: The body cannot be written as JSON: Recursion limit reached.",
    wrong_types: "cannot be sent: ",
    no_model: "cannot be sent: model: is missing.",
    empty_model: "cannot be sent: model: is missing.",
}


@pytest.mark.parametrize("hook", FAILING, ids=lambda hook: hook.__name__)
async def test_a_hook_that_fails(simulator: Simulator, caplog: pytest.LogCaptureFixture, hook: Any) -> None:
    """The client gets `shape_failed` without internals, the log the reason, Ollama nothing; and so once more."""
    name = hook.__name__
    async with gateway(simulator, hook=f"{HERE}:{name}", hook_timeout=0.1 if hook is slow else 30) as gw:
        for _ in range(2):
            caplog.clear()
            answers = await every_way(gw)
            expected = {"error": FAILED, "code": "shape_failed", "status": 500}
            assert answers == [expected | {"phase": "request", "retryable": False}] * 3
            lines = [caplog.handler.format(each) for each in caplog.records if each.name.startswith("gateway.")]
            told = [line for line in lines if "hook" in line]
            assert len(told) == 3
            assert all(FAILING[hook] in line for line in told), told
            assert all("Traceback" in line for line in told if "cannot be sent" not in line)
            assert not [each for each in caplog.records if each.name == "asyncio" and each.levelno >= logging.ERROR]
    assert not simulator.requests


async def every_way(gw: Gateway) -> list[dict[str, Any]]:
    """The errors that a GET, a POST and a stream get."""
    events = await gw.read("/api/chat?prompt=Hi", headers={"Accept": "text/event-stream"})
    assert ending(events)[0] == "error"
    answers = [events[-2].json]
    for path, body in (("/api/chat", TABLE), ("/api/streams", {"generate": {"prompt": "Hi"}})):
        async with gw.session.post(gw.url + path, json=body) as response:
            answers.append(await response.json())
            assert response.status == (500 if answers[-1]["code"] == "shape_failed" else 422)
    return answers


# Hooks that block

released = threading.Event()
entered = threading.Semaphore(0)


@pytest.fixture
def _blocking(no_blocking: BlockBuster) -> Iterator[None]:
    """Hooks may block here. A hook that is still blocked at the end of a test goes on then, and its thread ends."""
    for function in no_blocking.functions.values():
        function.can_block_in("tests/test_hooks.py", "waits")
    released.clear()
    while entered.acquire(blocking=False):
        pass
    yield
    released.set()
    for thread in hook_threads():
        thread.join()


async def waits(request: HookRequest) -> dict[str, Any]:
    if request.body["model"] == "qwen3":
        entered.release()
        released.wait()
    return request.body


async def spins(request: HookRequest) -> dict[str, Any]:
    if request.body["model"] == "qwen3":
        entered.release()
        while not released.is_set():
            pass
    return request.body


async def stubborn(request: HookRequest) -> dict[str, Any]:
    """Will not be cancelled. It looks for its end itself: it may be cancelled for the last time before that comes."""
    while request.body["model"] == "qwen3" and not released.is_set():
        entered.release()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)
    return request.body


BLOCKED = TABLE | {"model": "qwen3", "think": False}


@pytest.mark.usefixtures("_blocking")
@pytest.mark.parametrize("hook", ["waits", "spins"])
async def test_other_streams_go_on_while_a_hook_blocks(hook: str) -> None:
    """They end while the hook is still blocked, and the blocked call then completes as usual."""
    simulator = quick(token_rate=500)
    async with gateway(simulator, hook=f"{HERE}:{hook}", hook_timeout=60) as gw:
        async with gw.open("/api/chat", json=TABLE) as other:
            await other.next()
            blocked = asyncio.create_task(gw.read("/api/chat", json=BLOCKED))
            await asyncio.to_thread(entered.acquire)
            assert [event async for event in other][-1].json["outcome"] == "complete"
        async with gw.session.get(gw.url + "/healthz") as response:
            assert response.status == 200
        assert len(simulator.requests) == 1
        assert not blocked.done()
        released.set()
        assert ending(await blocked) == ("complete", None)


@pytest.mark.usefixtures("_blocking")
@pytest.mark.parametrize("hook", ["waits", "spins", "stubborn"])
async def test_a_hook_that_blocks_for_ever_fails_its_request_only(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    """The next request is served, in another thread, although the first is still blocked."""
    async with gateway(simulator, hook=f"{HERE}:{hook}", hook_timeout=0.1) as gw:
        async with gw.session.post(gw.url + "/api/chat", json=BLOCKED) as response:
            assert (response.status, (await response.json())["code"]) == (500, "shape_failed")
        assert entered.acquire(blocking=False)
        assert ending(await gw.read("/api/chat", json=TABLE)) == ("complete", None)
        assert not released.is_set()
    assert [orjson.loads(request.body)["model"] for request in simulator.requests] == ["llama3.2"]
    (told,) = [caplog.handler.format(each) for each in caplog.records if each.name == "gateway.asks.hook_runner"]
    assert "the hook does not end when its time is over" in told
    assert {"waits": "released.wait()", "spins": "released.is_set()", "stubborn": "run_forever"}[hook] in told


@pytest.mark.usefixtures("_blocking")
async def test_a_blocked_call_takes_those_behind_it_along_but_no_thread_more(simulator: Simulator) -> None:
    async with gateway(simulator, hook=f"{HERE}:waits", hook_timeout=1) as gw:
        first = asyncio.create_task(status(gw, BLOCKED))
        await asyncio.to_thread(entered.acquire)
        assert await asyncio.gather(first, *(status(gw, TABLE) for _ in range(20))) == [500] * 21
        assert len(hook_threads()) == 2
        assert await status(gw, TABLE) == 200
    assert len(simulator.requests) == 1


@pytest.mark.usefixtures("_blocking")
@pytest.mark.slow
async def test_blocked_threads_are_bounded() -> None:
    """Beyond the bound all calls fail, until one of the threads ends."""
    request = HookRequest("chat", {"model": "qwen3"}, None, {}, "", {})
    fine = HookRequest("chat", {"model": "llama3.2"}, None, {}, "", {})
    runner = HookRunner(waits, 0.01)
    try:
        for _ in range(MAX_BLOCKED + 1):
            with pytest.raises(Exception, match="could not prepare"):
                await runner(request)
        with pytest.raises(Exception, match="could not prepare"):
            await runner(fine)
        threads = hook_threads()
        assert len(threads) == MAX_BLOCKED + 1
        released.set()
        for thread in threads[:-1]:
            await asyncio.to_thread(thread.join)
        assert await runner(fine) == {"model": "llama3.2"}
    finally:
        runner.close()


def hook_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hook"]


async def status(gw: Gateway, body: object) -> int:
    async with gw.session.post(gw.url + "/api/chat", json=body) as response:
        return response.status


# A hook that cannot be used

not_async = len


def plain(request: HookRequest) -> dict[str, Any]:
    return request.body


async def generator(request: HookRequest) -> AsyncIterator[dict[str, Any]]:
    yield request.body


UNUSABLE = {
    "nothing": "must be package.module:function",
    "module:": "must be package.module:function",
    ":function": "must be package.module:function",
    "no_such_module:f": "no_such_module cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
    "..relative:f": "..relative cannot be imported: TypeError: ",
    f"{HERE}:no_such_function": f"no_such_function in {HERE} is not an async function",
    f"{HERE}:not_async": f"not_async in {HERE} is not an async function",
    f"{HERE}:plain": f"plain in {HERE} is not an async function",
    f"{HERE}:generator": f"generator in {HERE} is not an async function",
    f"{HERE}:HookRunner": f"HookRunner in {HERE} is not an async function",
    "broken_syntax:f": "broken_syntax cannot be imported: SyntaxError: ",
    "broken_import:f": "broken_import cannot be imported: ZeroDivisionError: several lines",
    "broken_exit:f": "broken_exit cannot be imported: SystemExit: 7",
}


@pytest.mark.parametrize("path", UNUSABLE)
def test_a_hook_that_cannot_be_used_ends_the_start_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "broken_syntax.py").write_text("async def f(:\n")
    (tmp_path / "broken_import.py").write_text("raise ZeroDivisionError('several\\nlines')\n")
    (tmp_path / "broken_exit.py").write_text("raise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as raised:
        create_app(load(["--hook", path]))
    line = str(raised.value)
    assert line.startswith(f"GATEWAY_HOOK: {path}: {UNUSABLE[path]}")
    assert "\n" not in line


def test_a_hook_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_hook_of_mine.py").write_text("async def f(request): return request.body\n")
    monkeypatch.chdir(tmp_path)
    assert find_hook("a_hook_of_mine:f").__name__ == "f"
