"""The gateway as a process of its own, with its real listening socket, signals and log."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import gateway

ROOT = Path(__file__).parent.parent

INSTALLED = Path(gateway.__file__).parent.parent
"""Where the package under test is: an installed wheel, or this checkout."""


def _own_ports() -> Iterator[int]:
    """Ports that no other process of this or another test run uses, below those that the kernel hands out by itself.

    A port that was merely free a moment ago might be taken by another process before its server listens. So the first
    port of a range is held, which no two processes can do.
    """
    for first in range(20_000, 32_000, 1000):
        with socket.socket() as claim, suppress(OSError):
            claim.bind(("127.0.0.1", first))
            yield from range(first + 1, first + 1000)


_ports = _own_ports()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that nobody else is given."""
    for port in _ports:
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError


@dataclass
class Process:
    """`log` holds the lines of standard error; all of them once `ended` has returned."""

    url: str
    log: list[str] = field(default_factory=list)
    _process: asyncio.subprocess.Process = field(kw_only=True)
    _reading: asyncio.Task[None] = field(kw_only=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """The exit code, once it has ended by itself."""
        await self._reading
        return await self._process.wait()


@asynccontextmanager
async def process(directory: Path, *flags: str, shell: str = "", **environment: str) -> AsyncIterator[Process]:
    """A gateway on a free port, started in `directory` with these flags and no settings from outside.

    `shell` is a command that prepares its process, such as one that redirects its output.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "OLLAMA_"))}
    running = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'{shell}\nexec "$@"', "sh", sys.executable, "-m", "gateway", "--port=0", *flags),
        cwd=directory,
        env={**inherited, "PYTHONPATH": str(INSTALLED), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert running.stdout
    assert running.stderr
    log: list[str] = []
    reading = asyncio.create_task(_collect(running.stderr, log))
    try:
        opened = (await running.stdout.readline()).decode()
        assert opened.startswith("Open http://"), log
        yield Process(opened.split()[1], log, _process=running, _reading=reading)
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
        await reading


def resident_bytes(process: Process) -> int:
    """The memory of a process that is in use."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match
    return int(match[1]) * 1024


async def _collect(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode().rstrip("\n"))
