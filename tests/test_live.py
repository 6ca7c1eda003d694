"""The live suite finds nothing wrong with the simulator, and something with every server that is wrong."""

import asyncio
import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import pytest
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.demo import Simulator
from gateway.demo.models import Model
from tests.asks import quick
from tests.live.__main__ import main, show
from tests.live.checks import CHECKS
from tests.live.sides import AGENT
from tests.live.suite import Row, run
from tests.servers import serve

pytestmark = pytest.mark.slow

LEAVING = [name for name in CHECKS if name.startswith(("left", "stopped"))]
STAYING = [name for name in CHECKS if name not in LEAVING]


def simulator() -> Simulator:
    """Slow enough for its phases to be seen on a busy machine. The smallest of its models can do everything."""
    simulated = Simulator(token_rate=250, load_seconds=1.5, prompt_seconds=0.1)
    abilities = ("completion", "tools", "thinking", "vision", "insert")
    simulated.models["able:latest"] = Model("able:latest", abilities, parameters=1e9)
    return simulated


async def rows(app: ASGIApp, *names: str, model: str | None = None) -> list[Row]:
    """The rows of these checks."""
    async with serve(app, server_header=False) as url:
        found = [row async for row in run(url, model, {name: CHECKS[name] for name in names})]
    return found[1:]


async def table(app: ASGIApp, *names: str) -> tuple[int, dict[str, str]]:
    """The exit code for these checks, and their verdicts in the table that is printed."""
    printed = io.StringIO()
    async with serve(app, server_header=False) as url:
        with redirect_stdout(printed):
            status = await show(run(url, None, {name: CHECKS[name] for name in names}))
    print(printed.getvalue())  # pytest shows it when the test fails
    lines = re.findall(r"^\| (.+?) +\|.*\| (.+) \|$", printed.getvalue(), re.MULTILINE)
    return status, {check: verdict for check, verdict in lines if check in names}


async def test_the_simulator_is_as_ollama_has_to_be() -> None:
    """Nothing fails, and no check is left out."""
    assert await table(simulator().app, *CHECKS) == (0, dict.fromkeys(CHECKS, "ok"))


async def test_what_a_model_cannot_do_is_refused_alike() -> None:
    """No check is left out for that: both sides have to refuse it in the same words."""
    simulated = simulator()
    simulated.models["plain:latest"] = Model("plain:latest")
    for row in await rows(simulated.app, "generate: insert", "chat: thinking", "chat: tools", model="plain"):
        assert row.verdict == "ok"
        assert "does not support" in row.direct
        assert "does not support" in row.gateway


async def test_a_check_that_does_not_apply_says_why() -> None:
    """A model may load too fast to be seen, for example."""
    fast = quick()
    for row in await rows(fast.app, "phase: loading", "phase: prompt", "left while loading"):
        assert re.fullmatch(r"does not apply: \w.{20,}", row.verdict)


async def test_nothing_to_check(closed_port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a line that says what is missing."""
    assert await asyncio.to_thread(main, [closed_port]) == 2
    async with serve(simulator().app) as url:
        assert await asyncio.to_thread(main, [url, "--model=nomic-embed-text"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"No Ollama answers at {closed_port}.",
        f"{url} has no nomic-embed-text that can chat.",
    ]


@dataclass(frozen=True)
class Wrong:
    """A simulator that takes some requests for others: what each pattern matches in a body is replaced."""

    simulator: Simulator
    direct: Sequence[tuple[bytes, bytes]] = ()
    gateway: Sequence[tuple[bytes, bytes]] = ()
    deaf: bool = False
    """Whether it does not notice a client that leaves."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.simulator.app(scope, receive, send)
            return
        direct = Headers(scope=scope)["user-agent"] == AGENT["User-Agent"]
        if self.gateway and not direct and scope["path"] == "/api/ps":
            listed = [{"name": "able:latest"}] if self.simulator.states["loading"] else []  # the opposite of the truth
            await JSONResponse({"models": listed})(scope, receive, send)
            return
        body = b""
        message: Message = {"more_body": True}
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        for pattern, replacement in self.direct if direct else self.gateway:
            body = re.sub(pattern, replacement, body, flags=re.DOTALL)
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replaced() -> Message:
            if whole:
                return whole.pop()
            if self.deaf:
                await asyncio.Event().wait()
            return await receive()

        await self.simulator.app(scope, replaced, send)


DIRECT = [
    (rb"^\xef\xbb\xbf", b""),
    (rb'"arguments":"{}"', b'"arguments":{}'),
    (rb'"USER"', b"7"),
    (rb'"num_ctx":"many"', b'"num_ctx":null'),
]
GATEWAY = [
    (rb".*What is \d.*", b"{"),
    (rb'"_debug_render_only":true', b'"seed":1'),
    (rb'"(content|prompt)":"(?!.*four)[^"]*"', rb'"\1":"Where is Mars?"'),
    (rb',"images":\[[^]]*\]', b""),
    (rb"no-such-model", b"none-such"),
    (rb'"truncate":false', b'"truncate":true'),
    (rb'"\$ref"', b'"title"'),
    (rb'^\{"model":"able:latest"(,"keep_alive":0)?\}$', rb'{"model":"gemma3"\1}'),
]


async def test_a_wrong_server_fails() -> None:
    """One that answers the gateway otherwise than others: each check notices that."""
    code, verdicts = await table(Wrong(simulator(), DIRECT, GATEWAY), *STAYING)
    assert code == 1
    # on a machine so busy that a loading model is looked at too late, this one may see what it would see of a right one
    assert {name for name, verdict in verdicts.items() if verdict != "FAILED"} <= {"phase: loading"}


async def test_a_deaf_server_fails() -> None:
    """One that does not notice who leaves: those checks fail that are about leaving."""
    tables = await asyncio.gather(*(rows(Wrong(simulator(), deaf=True), name) for name in LEAVING))
    assert [row.verdict for table in tables for row in table] == ["FAILED"] * len(LEAVING)
