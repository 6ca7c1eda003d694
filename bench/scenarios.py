"""The scenarios that every contender is measured in. Each gives figures by the names that `report` explains."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from bench.client import Load, chat, fetch, get, percentile
from bench.contenders import REPLICAS, Contender, Server
from bench.replicas import OTHER, SOCKET
from bench.sizes import Sizes

RATE = 50
"""Tokens a second of a paced stream."""

ENDLESS = 10**9
LATE_MS = 100
"""A stream counts as carried while 99 of 100 tokens are no older than this on arrival."""

WAIT_SECONDS = 60

IDLE = 0.05
"""A server counts as done below this share of a core."""

Figures = dict[str, float]


async def silent(server: Server, sizes: Sizes) -> Figures:
    """Memory per stream without data: the client's connection and the one to Ollama."""
    async with _load(server, sizes) as streams:
        await _silent(server, streams, min(sizes.silent, 10))  # memory that is allocated once does not count
        before = server.memory()
        await _silent(server, streams, sizes.silent)
        return {"silent_kib": (server.memory() - before) / sizes.silent}


async def paced(server: Server, sizes: Sizes) -> Figures:
    async with _load(server, sizes) as streams:
        await streams.ask_many(server.contender.path, sizes.streams, rate=RATE, tokens=ENDLESS)
        cpu, tokens = await _measure(server, streams, sizes.settle, sizes.seconds)
        return {
            "paced_cpu_us": _each(cpu, tokens),
            "paced_p50_ms": percentile(streams.latencies, 50) / 1e6,
            "paced_p99_ms": percentile(streams.latencies, 99) / 1e6,
        }


async def burst(server: Server, sizes: Sizes) -> Figures:
    async with _load(server, sizes) as streams:
        await streams.ask_many(server.contender.path, sizes.burst_streams, rate=0, tokens=ENDLESS)
        cpu, tokens = await _measure(server, streams, sizes.settle / 2, sizes.burst_seconds)
        streams.close()
        await asyncio.sleep(sizes.settle)
        return {
            "burst_per_s": tokens / sizes.burst_seconds,
            "burst_cpu_us": _each(cpu, tokens),
            "burst_left": await fetch(server.upstream, "/bench/open"),
        }


async def first_token(server: Server, sizes: Sizes) -> Figures:
    waits: list[float] = []
    async with _load(server, sizes) as streams:
        for _ in range(sizes.requests):
            viewer = await streams.ask(server.contender.path, rate=0, tokens=1)
            await viewer.complete
            viewer.close()
            assert viewer.first, f"{server.contender.name} has answered without a token"
            waits.append((viewer.first - viewer.asked_at) / 1e6)
    return {"first_token_ms": percentile(waits, 50)}


async def cancel(server: Server, sizes: Sizes) -> Figures:
    """The time from a client's leaving a running stream to the closed connection at Ollama."""
    async with _load(server, sizes) as streams:
        await streams.ask_many(server.contender.path, sizes.cancels, rate=RATE // 5, tokens=ENDLESS)
        await _opened(server, sizes.cancels)
        await asyncio.sleep(sizes.settle)
        for viewer in streams.viewers:
            viewer.close()
            await asyncio.sleep(0.01)
        await _opened(server, 0)
        closed = await fetch(server.upstream, "/bench/closed")
        waits = [(closed[str(viewer.seed)] - viewer.closed_at) / 1e6 for viewer in streams.viewers]
        return {"cancel_p50_ms": percentile(waits, 50), "cancel_p99_ms": percentile(waits, 99)}


async def viewers(server: Server, sizes: Sizes) -> Figures:
    """CPU per token that each further viewer of a stream costs, relative to the first."""
    async with _load(server, sizes) as streams:
        urls = [(await _create(server, RATE, ENDLESS)) for _ in range(sizes.viewed)]
        costs = []
        for more in (1, sizes.viewers - 1):
            for _ in range(more):
                for url in urls:
                    await streams.view(get(url))
                    await asyncio.sleep(0.001)
            cpu, tokens = await _measure(server, streams, sizes.settle, sizes.count_seconds)
            costs.append(_each(cpu, tokens) * len(streams.viewers))
        return {"viewer_percent": (costs[1] - costs[0]) / (sizes.viewers - 1) / costs[0] * 100}


async def replay(server: Server, sizes: Sizes) -> Figures:
    """The time to read a retained log from its start."""
    times: list[float] = []
    async with _load(server, sizes) as streams:
        url = await _create(server, 0, sizes.events)
        await (await streams.view(get(url))).complete
        for _ in range(sizes.reads):
            streams.latencies.clear()
            viewer = await streams.view(get(url))
            await viewer.complete
            times.append((viewer.seen - viewer.asked_at) / 1e6)
            assert len(streams.latencies) == sizes.events
    return {"replay_ms": percentile(times, 50)}


async def shared(server: Server, sizes: Sizes) -> Figures:
    """Streams that run at one replica and are watched there, or at another one; and what they cost Redis."""
    other = int((server.directory / OTHER).read_text())
    figures: Figures = {}
    for where, port in (("here", server.port), ("there", other)):
        async with _load(server, sizes, port) as streams:
            for _ in range(sizes.shared):
                await streams.view(get(await _create(server, RATE, ENDLESS)))
            memory, before = await _redis(server, "used_memory"), await _redis(server, "total_commands_processed")
            cpu, tokens = await _measure(server, streams, sizes.settle, sizes.seconds)
            commands = await _redis(server, "total_commands_processed") - before
            every = tokens * (1 + sizes.settle / sizes.seconds)
            figures |= {
                f"{where}_cpu_us": _each(cpu, tokens),
                f"{where}_p50_ms": percentile(streams.latencies, 50) / 1e6,
                f"{where}_p99_ms": percentile(streams.latencies, 99) / 1e6,
                f"{where}_commands": commands / every,
                f"{where}_token_kib": (await _redis(server, "used_memory") - memory) / every / 1024,
            }
    return figures


async def _redis(server: Server, name: str) -> int:
    """A number out of Redis's INFO."""
    reader, writer = await asyncio.open_unix_connection(server.directory / SOCKET)
    try:
        writer.write(b"INFO\r\n")
        text = await reader.readexactly(int((await reader.readline())[1:]))
        return int(text.partition(f"\r\n{name}:".encode())[2].split()[0])
    finally:
        writer.close()


async def growth(server: Server, sizes: Sizes) -> Figures:
    """CPU per token by the number of streams."""
    figures: Figures = {}
    for count in sizes.counts:
        async with _load(server, sizes) as streams:
            await streams.ask_many(server.contender.path, count, rate=RATE, tokens=ENDLESS)
            cpu, tokens = await _measure(server, streams, sizes.settle / 2, sizes.count_seconds)
            figures[f"at_{count}_us"] = _each(cpu, tokens)
            figures[f"at_{count}_percent"] = cpu / sizes.count_seconds * 100
    return figures


async def capacity(server: Server, sizes: Sizes) -> Figures:
    """The most streams that are carried: the largest of a few counts, then by bisection."""
    low = high = 0
    for high in sizes.capacity:
        if not await _carries(server, high, sizes):
            break
        low = high
    while high - low > max(low, 8) // 8:
        middle = (low + high) // 2
        low, high = (middle, high) if await _carries(server, middle, sizes) else (low, middle)
    return {"capacity": low}


async def kept_alive(server: Server, sizes: Sizes) -> Figures:
    """Very many streams without data for a minute."""
    async with _load(server, sizes) as streams:
        await _silent(server, streams, sizes.kept)
        cpu, _ = await _measure(server, streams, sizes.settle, sizes.kept_seconds)
        return {
            "kept_alive": sum(viewer.alive for viewer in streams.viewers),
            "kept_cpu_percent": cpu / sizes.kept_seconds * 100,
        }


@asynccontextmanager
async def _load(server: Server, sizes: Sizes, port: int = 0) -> AsyncIterator[Load]:
    """A load that is gone afterwards, even if a server does not notice that its clients have left."""
    streams = Load(port or server.port)
    try:
        yield streams
    finally:
        streams.close()
        await asyncio.sleep(sizes.leave)
        await fetch(server.upstream, "/bench/stop")
        await _rest(server)


async def _rest(server: Server) -> None:
    """Wait until a server has finished its work, which would take CPU from the next measurement."""
    for _ in range(WAIT_SECONDS * 10 if server.pid else 0):
        before = server.cpu()
        await asyncio.sleep(0.1)
        if server.cpu() - before < IDLE * 0.1:
            return


async def _carries(server: Server, count: int, sizes: Sizes) -> bool:
    """Whether one of two tries succeeds: something else may use the machine for a moment."""
    return await _in_time(server, count, sizes) or await _in_time(server, count, sizes)


async def _in_time(server: Server, count: int, sizes: Sizes) -> bool:
    async with _load(server, sizes) as streams:
        await streams.ask_many(server.contender.path, count, rate=RATE, tokens=ENDLESS)
        await _measure(server, streams, sizes.settle, sizes.count_seconds)
        promised = count * RATE * sizes.count_seconds
        return len(streams.latencies) > 0.95 * promised and percentile(streams.latencies, 99) < LATE_MS * 1e6


async def _measure(server: Server, streams: Load, settle: float, seconds: float) -> tuple[float, int]:
    """The CPU seconds used and the tokens received in `seconds`, after `settle` seconds."""
    await asyncio.sleep(settle)
    streams.latencies.clear()
    before = server.cpu() if server.pid else math.nan
    await asyncio.sleep(seconds)
    return (server.cpu() if server.pid else math.nan) - before, len(streams.latencies)


def _each(cpu: float, tokens: int) -> float:
    """Microseconds of CPU per token. A server that is too slow may have sent none in time."""
    return cpu / tokens * 1e6 if tokens else math.nan


async def _silent(server: Server, streams: Load, count: int) -> None:
    """Open `count` more streams without data."""
    for _ in range(count):
        await streams.ask(server.contender.path, rate=0, tokens=0)
        if len(streams.viewers) % 100 == 0:
            await _opened(server, len(streams.viewers))  # otherwise the backlog would overflow
    await _opened(server, len(streams.viewers))


async def _opened(server: Server, count: int) -> None:
    """Wait until `count` streams are open at the upstream."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (await fetch(server.upstream, "/bench/open")) != count:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.01)


async def _create(server: Server, rate: int, tokens: int) -> str:
    created = await fetch(server.port, "/api/streams", {"chat": chat(rate, tokens, 0)})
    return str(created["url"])


class Scenario(NamedTuple):
    measure: Callable[[Server, Sizes], Awaitable[Figures]]
    concerns: Callable[[Contender], bool] = lambda contender: True
    once: bool = False


SCENARIOS = {
    "silent": Scenario(silent, lambda contender: contender.command is not None),  # first, while the process is fresh
    "paced": Scenario(paced),
    "burst": Scenario(burst),
    "first-token": Scenario(first_token),
    "cancel": Scenario(cancel),
    "viewers": Scenario(viewers, lambda contender: contender.is_gateway),
    "replay": Scenario(replay, lambda contender: contender.is_gateway),
    "shared": Scenario(shared, lambda contender: contender.name == REPLICAS),
    "growth": Scenario(growth, lambda contender: contender.command is not None),
    "kept-alive": Scenario(kept_alive, lambda contender: contender.pings),
    "capacity": Scenario(capacity, once=True),  # it takes as long as half of a round
}
