"""The named faults do what the table in the package's docstring promises."""

import asyncio
import json
import re

import pytest

from gateway import demo
from gateway.demo.faults import FAULTS
from gateway.demo.wire import dumps
from tests.asks import quick
from tests.demo.connection import Answer, ask, chat, connect
from tests.servers import serve

ENDINGS = {
    "stall": None,
    "silent": None,
    "slow-load": None,
    "bare-eof": "connection closed without terminating chunk",
    "no-response": "connection closed before response headers",
}
"""How the faulty answers end; None is never, and the others are complete."""


@pytest.mark.parametrize("kind", ["chat", "generate"])
@pytest.mark.parametrize("name", FAULTS)
async def test_faults(name: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each ends as the table says, leaves no request behind, and nothing in the log."""
    simulator = quick()
    body = chat(f"fault:{name}") if kind == "chat" else {"model": f"fault:{name}", "prompt": "Hello"}
    async with serve(simulator.app) as url, connect(url) as connection:
        connection.send("POST", f"/api/{kind}", dumps(body))
        if ENDINGS.get(name, "complete") is None:
            await simulator.until(lambda: len(simulator.requests) == 1)
            connection.leave()
        else:
            assert (await connection.answer()).ended == ENDINGS.get(name, "complete")
        await simulator.until(lambda: simulator.running == 0)
        assert simulator.requests[0].state == ("cancelled" if name in ENDINGS and not ENDINGS[name] else "done")
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


async def test_what_the_odd_faults_send() -> None:
    """Those whose whole point is in the bytes."""
    async with serve(quick().app) as url, connect(url) as connection:

        async def body(name: str) -> bytes:
            return (await connection.ask("/api/chat", chat(f"fault:{name}"))).body

        assert len((await body("oversized-line-200000")).splitlines(keepends=True)[0]) == 200_000
        assert len((await body("long-line-50000")).splitlines(keepends=True)[0]) == 50_000
        cr = await body("cr")
        assert cr.count(b"\r\n") == 9
        assert cr.count(b',\r"') == 9
        unicode = [line for line in (await body("unicode")).split(b"\n") if line]
        again = await connection.ask("/api/chat", chat("fault:rechunked-5"))
        assert {len(chunk) for chunk in answer_body_chunks(again)} == {5}
        assert [json.loads(line)["message"] for line in unicode] == [line["message"] for line in again.lines]
        assert "👩\u200d👩\u200d👧\u200d👦" in again.text
        assert not (await body("unterminated")).endswith(b"\n")
        assert len((await body("burst")).splitlines()) == 5001
        assert (await connection.ask("/api/chat", chat("fault:error-502"))).status == 502
        assert (await connection.ask("/api/chat", chat("fault:slow-load-0"))).lines[-1]["done"]
        with pytest.raises(json.JSONDecodeError):
            [json.loads(line) for line in (await body("not-json")).splitlines()]


def answer_body_chunks(answer: Answer) -> list[bytes]:
    """All chunks but the last, which may be short."""
    return answer.chunks[:-1]


def test_every_fault_is_in_the_table() -> None:
    """The package's docstring is where one looks them up."""
    documented = re.findall(r"^\| `([\w-]+)` \|", demo.__doc__ or "", re.MULTILINE)
    assert sorted(documented) == sorted(FAULTS)


async def test_faults_are_listed_on_demand() -> None:
    """A newcomer should not choose one by accident, a tester should find them all."""
    async with serve(quick().app) as url:
        names = [model["name"] for model in (await ask(url, "/api/tags")).lines[0]["models"]]
    assert names == ["llama3.2:latest", "qwen3:latest", "gemma3:latest", "nomic-embed-text:latest"]
    async with serve(quick(list_faults=True).app) as url:
        names = [model["name"] for model in (await ask(url, "/api/tags")).lines[0]["models"]]
        shown = await ask(url, "/api/show", {"model": "fault:stall"})
    assert {f"fault:{name}" for name in FAULTS} < set(names)
    assert "completion" in shown.lines[0]["capabilities"]


async def test_a_server_stops_with_streams_open(caplog: pytest.LogCaptureFixture) -> None:
    """`serve` cuts them; no task and no complaint is left."""
    simulator = quick()
    async with asyncio.timeout(5), serve(simulator.app) as url, connect(url) as one, connect(url) as two:
        one.send("POST", "/api/chat", dumps(chat("fault:stall")))
        two.send("POST", "/api/chat", dumps(chat("fault:silent")))
        await simulator.until(lambda: simulator.running == 2)
    assert simulator.running == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []
