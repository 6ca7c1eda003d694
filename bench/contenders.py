"""The contenders that are measured side by side, each in its own process, in front of the same upstream."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_SECONDS = 60

GATEWAY = "gateway"
REPLICAS = "2 replicas and Redis"
DIRECT = "direct"
NGINX = "nginx"

_LITELLM = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it would fetch one from the internet
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no contender checks keys
}

_NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log /dev/null;
worker_rlimit_nofile 16384;
events {{ worker_connections 16384; }}
http {{
    access_log /dev/null;
    client_body_temp_path {directory};
    proxy_temp_path {directory};
    fastcgi_temp_path {directory};
    uwsgi_temp_path {directory};
    scgi_temp_path {directory};
    upstream ollama {{ server {upstream}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://ollama;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Contender:
    """`command` makes the arguments of a process that serves `path` on `port` in front of `upstream`.

    `only` names the scenarios it takes part in, if not in all; `needs` is a command that must be there, if any.
    """

    name: str
    path: str = "/api/chat"
    command: Callable[[int, str, Path], Sequence[str]] | None = None
    checkout: Path = ROOT
    pings: bool = False
    is_gateway: bool = False
    only: Collection[str] = ()
    needs: str = ""


@dataclass
class Server:
    """A contender that runs. The direct connection is the upstream itself and has no process to measure."""

    contender: Contender
    port: int
    upstream: int
    pid: int = 0
    directory: Path = Path()

    def cpu(self) -> float:
        """Seconds of CPU that its processes have used."""
        ran = (
            int(stat.read_text().split()[0])
            for pid in _tree(self.pid)
            for stat in Path(f"/proc/{pid}/task").glob("*/schedstat")
        )
        return sum(ran) / 1e9

    def memory(self) -> float:
        """KiB of memory that its processes have of their own, shared pages in proportion (PSS)."""
        rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in _tree(self.pid))
        return sum(int(rollup.partition("\nPss:")[2].split()[0]) for rollup in rollups)


def nginx(port: int, upstream: str, directory: Path) -> Sequence[str]:
    """nginx as a pass-through, in one process, configured as its documentation advises for streams."""
    config = directory / "nginx.conf"
    config.write_text(_NGINX.format(port=port, upstream=upstream, directory=directory))
    return ["nginx", "-p", str(directory), "-c", str(config)]


def thirty_lines(port: int, upstream: str, directory: Path) -> Sequence[str]:
    return [sys.executable, "-P", "-m", "bench.thirty_lines", str(port)]


def packages(port: int, upstream: str, directory: Path) -> Sequence[str]:
    return [sys.executable, "-P", "-m", "bench.packages", str(port)]


def bare(port: int, upstream: str, directory: Path) -> Sequence[str]:
    return [sys.executable, "-P", "-m", "bench.bare", str(port)]


def gateway(port: int, upstream: str, directory: Path) -> Sequence[str]:
    """The gateway with its defaults, except that any number of generations may run, as in the others."""
    return [sys.executable, "-P", "-m", "gateway", f"--port={port}", "--max-active=100000", "--num-parallel=100000"]


def replicas(port: int, upstream: str, directory: Path) -> Sequence[str]:
    """Two gateways, and the Redis that both share."""
    return [sys.executable, "-P", "-m", "bench.replicas", str(port)]


def litellm(port: int, upstream: str, directory: Path) -> Sequence[str]:
    options = {"--model": "ollama_chat/bench", "--api_base": f"http://{upstream}", "--host": "127.0.0.1"}
    return ["litellm", *(word for option in options.items() for word in option), "--port", str(port)]


DEFAULT = [
    Contender(DIRECT),
    Contender(NGINX, command=nginx),
    Contender("thirty lines", command=thirty_lines, pings=True),
    Contender(GATEWAY, command=gateway, pings=True, is_gateway=True),
]
EXTRA = {
    "litellm": Contender("litellm", "/v1/chat/completions", litellm, needs="litellm"),
    "packages": Contender("packages alone", command=packages, only=("paced", "burst", "first-token")),
    "bare": Contender("bare relay", command=bare, only=("paced", "burst", "first-token")),
    "redis": Contender(
        REPLICAS, command=replicas, only=("paced", "first-token", "cancel", "shared"), needs="redis-server"
    ),
}


def other_gateway(checkout: Path) -> Contender:
    """The gateway of another checkout, to compare versions."""
    return Contender(str(checkout), command=gateway, checkout=checkout, pings=True, is_gateway=True)


@asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    """Run the upstream, and yield its port."""
    port = free_port()
    async with process([sys.executable, "-P", "-m", "bench.upstream", str(port)], ROOT, port, Path.cwd(), {}):
        yield port


@asynccontextmanager
async def serve(contender: Contender, upstream: int, directory: Path) -> AsyncIterator[Server]:
    """A fresh process of a contender, with `directory` as its working directory."""
    if contender.command is None:
        yield Server(contender, upstream, upstream)
        return
    port, address = free_port(), f"127.0.0.1:{upstream}"
    command = contender.command(port, address, directory)
    environment = {"OLLAMA_HOST": f"http://{address}", **_LITELLM}
    async with process(command, contender.checkout, port, directory, environment) as pid:
        yield Server(contender, port, upstream, pid, directory)


@asynccontextmanager
async def process(
    command: Sequence[str], checkout: Path, port: int, directory: Path, more: dict[str, str]
) -> AsyncIterator[int]:
    """Run a process, and yield its id once it takes connections on `port`. Its children end with it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "OLLAMA_"))}
    running = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env={**environment, "PYTHONPATH": str(checkout), **more},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # Ctrl+C is for the benchmark, which then ends its processes
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _listens(port):
                if running.returncode is not None:
                    raise RuntimeError(f"{command} ended with {running.returncode} before it served.")
                await asyncio.sleep(0.05)
        yield running.pid
    finally:
        # nothing here needs a graceful end; a process that has ended already may have left children
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        await running.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _tree(pid: int) -> list[int]:
    """A process and all of its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _tree(int(child)))]
