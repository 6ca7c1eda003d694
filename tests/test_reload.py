"""The presets of a running gateway: read again on a real SIGHUP, in a real process, under running streams."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests.processes import INSTALLED, Process, process
from tests.sse import Event, Events, ending, text
from tests.upstreams import Peer, token, upstream

OLD = "[presets.p]\nmodel = 'm'\nsystem = 'Old.'\n"
NEW = "[presets.p]\nmodel = 'm'\nsystem = 'New.'\n[presets.q]\n"
BROKEN = {
    "[presets.p]\nprompt = 'Into {lang}: {prompt}'\n": "presets.p.prompt: {lang} is not a variable of this preset",
    "[presets.p\n": "cannot be read: Expected ']' at the end of a table declaration",
    "presets = 5\n": "presets: must be tables such as [presets.translate].",
    "[presets.q]\n": 'GATEWAY_DEFAULT_PRESET: there is no preset "p".',
}


def said(gw: Process, words: str) -> bool:
    """Whether the log has these words."""
    return any(words in line for line in gw.log)


async def until(session: aiohttp.ClientSession, gw: Process, condition: Callable[[], bool]) -> None:
    """Ask the gateway for its health until the condition holds."""
    while not condition():
        async with session.get(gw.url + "/healthz") as response:
            assert response.status == 200


async def watch(session: aiohttp.ClientSession, gw: Process, number: int, begun: asyncio.Semaphore) -> list[Event]:
    """A stream to its end, asked for by GET, by POST or as a stream, in turn."""
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    if number % 3 == 0:
        request = session.get(f"{gw.url}/api/chat?preset=p&prompt=Hi")
    elif number % 3 == 1:
        request = session.post(f"{gw.url}/api/chat?preset=p", json=chat)
    else:
        async with session.post(gw.url + "/api/streams", json={"chat": chat, "preset": "p"}) as created:
            request = session.get(gw.url + created.headers["Location"])
    async with request as response:
        events = Events(response)
        received = [await events.next()]
        begun.release()
        return received + [event async for event in events]


async def test_50_running_streams_do_not_notice_a_reload(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    """They do not notice a broken file either, and later requests get the new presets."""
    going_on = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.start()
        await peer.lines(*map(token, ["one", "two", "three"]))
        await going_on.wait()
        await peer.lines(*map(token, ["four", "five"]), b'{"model":"m","done":true,"done_reason":"stop"}\n')
        await peer.end()

    config = tmp_path / "gateway.toml"
    config.write_text(OLD)
    async with upstream(answer) as ollama, process(tmp_path, f"--ollama-url={ollama.url}", "--default-preset=p") as gw:
        begun = asyncio.Semaphore(0)
        viewers = [asyncio.create_task(watch(session, gw, number, begun)) for number in range(50)]
        for _ in viewers:
            await begun.acquire()

        for file, problem in BROKEN.items():
            config.write_text(file)
            os.kill(gw.pid, signal.SIGHUP)
            await until(session, gw, partial(said, gw, problem))
        config.write_text(NEW)
        os.kill(gw.pid, signal.SIGHUP)
        await until(session, gw, partial(said, gw, "presets reloaded: p, q"))

        async with session.get(gw.url + "/api/presets") as response:
            assert [preset["name"] for preset in (await response.json())["presets"]] == ["p", "q"]
        later = asyncio.create_task(watch(session, gw, 0, begun))
        await begun.acquire()
        assert not any(viewer.done() for viewer in viewers)
        going_on.set()
        for viewer in [*viewers, later]:
            events = await viewer
            assert ending(events) == ("complete", None)
            assert text(events) == "onetwothreefourfive"
            ids = [event.id for event in events if event.id is not None]
            sid = ids[0].rpartition("-")[0]
            assert ids == [f"{sid}-{number}" for number in range(1, 8)]

        systems = [orjson.loads(request.body)["messages"][0]["content"] for request in ollama.asked("/api/chat")]
        assert systems == ["Old."] * 50 + ["New."]
        refused = [line for line in gw.log if "the presets stay as they were" in line]
        assert len(refused) == len(BROKEN)
        assert "gateway.toml: presets.p.prompt: {lang} is not a variable" in refused[0]
        assert not [line for line in gw.log if "Traceback" in line]


@pytest.mark.parametrize(
    ("flags", "files", "line"),
    [
        (
            [],
            {"gateway.toml": "[presets.translate]\nprompt = 'Into French.'\n"},
            "gateway.toml: presets.translate.prompt: must contain {prompt}, which stands for the user's text.",
        ),
        (
            ["--config=my.toml"],
            {"my.toml": "[presets.translate]\nsytem = 'x'\n"},
            "my.toml: presets.translate.sytem: is not a known field.",
        ),
        (["--default-preset=x"], {}, 'GATEWAY_DEFAULT_PRESET: there is no preset "x".'),
        (
            ["--hook=shape:shape"],
            {"shape.py": "import a_module_that_is_not_there\n"},
            "GATEWAY_HOOK: shape:shape: shape cannot be imported: ModuleNotFoundError: "
            "No module named 'a_module_that_is_not_there'.",
        ),
        (
            ["--hook=shape:shape"],
            {"shape.py": "def shape(request): ...\n"},
            "GATEWAY_HOOK: shape:shape: shape in shape is not an async function.",
        ),
    ],
)
def test_a_start_that_cannot_be_ends_with_one_line(
    tmp_path: Path, flags: list[str], files: dict[str, str], line: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "--port=0", *flags],
        cwd=tmp_path,
        env={"PYTHONPATH": str(INSTALLED), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"ollama-sse-gateway: {line}\n")


ENDLESS = """
import asyncio, logging

async def f(request):
    how = request.body["messages"][0]["content"]
    logging.info("entered to %s", how)
    while True:
        try:
            await asyncio.Event().wait() if how != "spin" else None
        except asyncio.CancelledError:
            if how != "ignore it":
                raise
"""


@pytest.mark.slow
async def test_hooks_that_never_return_do_not_keep_the_process(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    """SIGTERM ends it, with success, while calls are still in the hook: one waits, one ignores its end, one spins."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    async with process(tmp_path, "--demo", "--hook=endless:f", "--hook-timeout=600") as gw:
        asking = []
        for how in ("wait", "ignore it", "spin"):
            asking.append(asyncio.create_task(ask(session, gw, how)))
            await until(session, gw, partial(said, gw, f"entered to {how}"))
        gw.terminate()
        assert await gw.ended() == 0
        await asyncio.gather(*asking)


async def ask(session: aiohttp.ClientSession, gw: Process, prompt: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        async with session.get(gw.url + "/api/chat", params={"prompt": prompt}) as response:
            response.raise_for_status()
