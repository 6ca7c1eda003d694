"""Whoever reads standard output and standard error, or does not, can neither hold the gateway nor end it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from gateway.ops.output import Output
from tests.processes import INSTALLED, free_port, process

NOWHERE = "--ollama-url=http://127.0.0.1:9"
REQUESTS = 600  # each has a line of 2.4 kB in the log: together more than what is held for a reader
LONG = quote("\N{GRINNING FACE}" * 200)


async def follow(pipe: int, lines: list[bytes]) -> None:
    """Read all lines from a pipe, to its end."""
    reader = asyncio.StreamReader(limit=2**20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb"))
    while line := await reader.readline():
        lines.append(line)


async def test_a_reader_that_stops_holds_nothing_and_is_told_what_it_lost(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    os.mkfifo(tmp_path / "log")
    pipe = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    asked = 0

    async def ask() -> None:
        nonlocal asked
        asked += 1
        async with session.get(f"{gateway.url}/{LONG}", headers={"X-Request-Id": f"test-{asked}"}) as response:
            assert response.status == 404

    async with process(tmp_path, NOWHERE, "--log-format=json", shell="exec 2>log") as gateway:
        while asked < REQUESTS:
            await ask()
        written: list[bytes] = []
        following = asyncio.create_task(follow(pipe, written))  # now it reads on
        while not any(b"were lost" in line for line in written):
            await ask()
        gateway.terminate()
        assert await gateway.ended() == 0
        await following
    log = [json.loads(line) for line in written]
    numbers = [int(line["request_id"].removeprefix("test-")) for line in log if line["message"] == "request"]
    [lost] = [line["lines"] for line in log if "lines" in line]
    assert numbers == sorted(numbers)
    assert len(numbers) + lost == asked


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def stopped() -> int:
    """A pipe whose reader has stopped, which holds all that it can."""
    _, end = os.pipe()
    os.set_blocking(end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(end, b"x")
    os.set_blocking(end, True)
    return end


def gone() -> int:
    """A pipe whose reader has gone."""
    begin, end = os.pipe()
    os.close(begin)
    return end


ENDS = [full, stopped, gone]
CLOSED = ("sh", "-c", 'exec "$@" 1>&- 2>&-', "sh")


@pytest.mark.parametrize(("end", "shell"), [*((end, ()) for end in ENDS), (gone, CLOSED)])
async def test_it_serves_and_stops_wherever_its_output_goes(
    tmp_path: Path, session: aiohttp.ClientSession, end: Callable[[], int], shell: tuple[str, ...]
) -> None:
    file, port = end(), free_port()
    running = await asyncio.create_subprocess_exec(
        *(*shell, sys.executable, "-m", "gateway", f"--port={port}", NOWHERE),
        cwd=tmp_path,
        env={"PYTHONPATH": str(INSTALLED), "PATH": os.environ["PATH"]},
        stdout=file,
        stderr=file,
    )
    try:
        while True:
            with suppress(aiohttp.ClientConnectionError):
                async with session.get(f"http://127.0.0.1:{port}/nothing") as response:
                    assert response.status == 404
                    break
            assert running.returncode is None
            await asyncio.sleep(0.01)
        running.terminate()
        async with asyncio.timeout(30):
            assert await running.wait() == 0
    finally:
        os.close(file)
        with suppress(ProcessLookupError):
            running.kill()


@pytest.mark.parametrize("end", ENDS)
def test_it_refuses_to_start_wherever_its_output_goes(tmp_path: Path, end: Callable[[], int]) -> None:
    file = end()
    command = (sys.executable, "-m", "gateway", "--port=http")
    environment = {"PYTHONPATH": str(INSTALLED)}
    ended = subprocess.run(command, check=False, cwd=tmp_path, env=environment, stdout=file, stderr=file, timeout=60)
    os.close(file)
    assert ended.returncode == 2


async def test_a_full_standard_output_is_told_to_the_log(tmp_path: Path) -> None:
    running = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$@" >/dev/full', "sh", sys.executable, "-m", "gateway", "--port=0", NOWHERE),
        cwd=tmp_path,
        env={"PYTHONPATH": str(INSTALLED)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert running.stderr
    while b"standard output cannot be written to. Open http://" not in (line := await running.stderr.readline()):
        assert line
    running.terminate()
    assert await running.wait() == 0


def test_what_cannot_be_written_yet_is_written_later() -> None:
    """As when a full disk gets room again: a pipe that does not block refuses what it has no room for."""
    begin, end = os.pipe()
    os.set_blocking(end, False)
    lines = [f"{number:>999}\n" for number in range(200)]
    with open(begin, encoding="ascii") as pipe, open(end, "w", encoding="ascii") as stream:
        output = Output(stream)
        for line in lines:
            assert output.put(line.removesuffix("\n"))
        while output.waiting > 150_000:
            pass
        assert [pipe.readline() for _ in lines] == lines
        assert output.close()
