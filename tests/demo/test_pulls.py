"""Downloads of models, whole and broken."""

import json

import pytest

from gateway.demo.wire import dumps
from tests.asks import quick
from tests.demo.connection import Connection, chat, connect
from tests.servers import serve


async def test_a_pull_adds_a_model() -> None:
    """Several digests, each to its full size; afterwards it can be asked, and deleted again."""
    simulator = quick(pull_seconds=0.2)
    async with serve(simulator.app) as url, connect(url) as connection:
        lines = (await connection.ask("/api/pull", {"model": "phi4:14b"})).lines
        digests = [line["digest"] for line in lines if "digest" in line]
        last = {line["digest"]: line for line in lines if "digest" in line}
        assert len(last) == 5
        assert all(line["completed"] == line["total"] for line in last.values())
        assert digests == sorted(digests, key=list(last).index)  # one after the other
        assert [line["status"] for line in lines[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
        assert (await connection.ask("/api/chat", chat("phi4:14b"))).lines[-1]["done"]
        assert (await connection.ask("/api/delete", {"model": "phi4:14b"}, "DELETE")).status == 200
        assert (await connection.ask("/api/chat", chat("phi4:14b"))).status == 404
        single = await connection.ask("/api/pull", {"model": "phi4:14b", "stream": False})
        assert single.lines == [{"status": "success"}]


async def test_a_pull_is_shared_and_resumes() -> None:
    """Bytes arrive once for all who wait, stop when the last one leaves, and are still there later."""
    simulator = quick(pull_seconds=60)

    async def completed(connection: Connection) -> int:
        """What the next line with bytes says."""
        while True:
            line = json.loads((await connection.reader.readuntil(b"}\n")).splitlines()[-1])
            if "completed" in line:
                return int(line["completed"])

    async with serve(simulator.app) as url, connect(url) as one, connect(url) as two, connect(url) as three:
        one.send("POST", "/api/pull", b'{"model":"m"}')
        await completed(one)
        before = await completed(one)
        two.send("POST", "/api/pull", b'{"model":"m"}')
        assert await completed(two) >= before
        one.leave()
        two.leave()
        await simulator.until(lambda: simulator.running == 0)
        three.send("POST", "/api/pull", b'{"model":"m"}')
        assert await completed(three) >= before


@pytest.mark.parametrize("name", ["stall", "truncate", "bare-eof"])
async def test_pulls_that_fail_midway(name: str) -> None:
    """None of them says `success`, and none leaves a model."""
    simulator = quick(pull_seconds=0.3)
    async with serve(simulator.app) as url, connect(url) as connection:
        connection.send("POST", "/api/pull", dumps({"model": f"fault:{name}"}))
        if name == "stall":
            await connection.reader.readuntil(b'"completed"')
            connection.leave()
        else:
            answer = await connection.answer()
            assert (answer.ended == "complete") is (name == "truncate")
            assert "completed" in answer.lines[-1]
        await simulator.until(lambda: simulator.running == 0)
        assert f"fault:{name}" not in simulator.models
