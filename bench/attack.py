"""Attack a gateway, one flood after another, beside an honest client that is to be served: `scripts/attack --help`."""

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import aiohttp
import uvloop

from bench.client import percentile
from bench.contenders import ROOT, Contender, Server, free_port, process, serve, upstream
from bench.floods import FLOODS, MALLORY

ADA = "ada-ada-ada-ada-ada"
ASK_SECONDS = 0.1  # between two questions of the honest client
LIMITS = ("--client-max-streams=16", "--client-max-queued=8", "--max-active=64", "--max-log-bytes=134217728")
"""The gateway's settings under attack, besides keys: limits for each client, and 128 MiB for what clients hold."""

QUESTION = "/api/chat?model=bench&prompt=rate=50+tokens=5+seed=1"


@dataclass
class Honest:
    """A client that asks again and again. `first_ms` has the time to the first token of each answer."""

    url: str
    first_ms: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    async def ask(self, seconds: float) -> None:
        """Ask until the time is over, whether earlier questions have been answered or not."""
        end = monotonic() + seconds
        headers = {"Authorization": f"Bearer {ADA}"}
        async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as group:
            while monotonic() < end:
                group.create_task(self._ask_once(session))
                await asyncio.sleep(ASK_SECONDS)

    async def _ask_once(self, session: aiohttp.ClientSession) -> None:
        asked = monotonic()
        first, answer = 0.0, b""
        try:
            async with session.get(self.url + QUESTION, timeout=aiohttp.ClientTimeout(total=30)) as response:
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if not first and b'"done":false' in answer:
                        first = monotonic()
        except (aiohttp.ClientError, TimeoutError) as error:
            answer += repr(error).encode()
        if b'"outcome":"complete"' in answer:
            self.first_ms.append((first - asked) * 1000)
        else:
            self.lost.append(answer.decode(errors="replace")[-300:])


async def run(names: list[str], seconds: float) -> bool:
    """Print a row for each flood. Returns whether the honest client was served throughout."""
    served = True
    print("| flood | attempts/s | honest answers | first token p50, p99 (ms) | lost | memory (MiB) |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        hostile = free_port()
        command = [sys.executable, "-P", "-m", "bench.floods", "hostile", str(hostile)]
        async with upstream() as ollama, process(command, ROOT, hostile, Path(directory), {}):
            contender = Contender("attacked", command=lambda port, address, _: attacked(port, address, hostile))
            async with serve(contender, ollama, Path(directory)) as gateway:
                for name in ["none", *names]:
                    served &= await row(name, gateway, seconds)
    return served


def attacked(port: int, ollama: str, hostile: int) -> list[str]:
    """The command of the gateway."""
    urls = f"--ollama-urls=http://{ollama},http://127.0.0.1:{hostile}"
    return [sys.executable, "-P", "-m", "gateway", f"--port={port}", urls, f"--api-keys=ada:{ADA},m:{MALLORY}", *LIMITS]


async def row(name: str, gateway: Server, seconds: float) -> bool:
    honest = Honest(f"http://127.0.0.1:{gateway.port}")
    command = [sys.executable, "-P", "-m", "bench.floods", name, str(gateway.port), str(seconds)]
    attempts = 0
    if name == "none":
        await honest.ask(seconds)
    else:
        flood = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        (printed, _), _ = await asyncio.gather(flood.communicate(), honest.ask(seconds))
        attempts = int(printed)
    p50, p99 = (percentile(honest.first_ms, part) for part in (50, 99))
    figures = f"{len(honest.first_ms)} | {p50:.0f}, {p99:.0f} | {len(honest.lost)} | {gateway.memory() / 1024:.0f}"
    print(f"| {name} | {attempts / seconds:,.0f} | {figures} |", flush=True)
    for answer in honest.lost[:3]:
        print(answer, file=sys.stderr)
    return not honest.lost and p99 < 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/attack", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="duration of each flood (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=FLOODS, help="this flood; may be given several times")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(run(options.only or list(FLOODS), options.seconds)) else 1


if __name__ == "__main__":
    sys.exit(main())
