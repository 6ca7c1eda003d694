"""Runs the checks against one server, with a gateway of its own in front of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from tests.live.checks import CHECKS, Check, NotApplicable, Sides
from tests.live.pace import STATUS_INTERVAL, Pace, Unsuitable, measure
from tests.live.sides import Gateway, Ollama
from tests.processes import process

CHECK_SECONDS = 120
"""Seconds after which a check has failed."""


@dataclass(frozen=True)
class Row:
    """`verdict` is `ok`, `FAILED` with what went wrong, or why the check does not apply."""

    check: str
    direct: str
    gateway: str
    verdict: str

    @property
    def failed(self) -> bool:
        return self.verdict.startswith("FAILED")


async def run(url: str, name: str | None = None, checks: Mapping[str, Check] = CHECKS) -> AsyncIterator[Row]:
    """The rows of the table as they come. Raises `Unsuitable` before the first one."""
    async with _sides(url, name) as sides:
        yield Row("model", sides.ollama.model, "", "ok")
        for each, check in checks.items():
            yield await _row(each, check, sides)


async def _row(name: str, check: Check, sides: Sides) -> Row:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            seen = await check(sides)
    except NotApplicable as reason:
        return Row(name, "", "", f"does not apply: {reason}")
    except Exception as error:
        return Row(name, "", "", f"FAILED: {type(error).__name__}: {error}")
    return Row(name, seen.direct, seen.gateway, "ok" if seen.good else "FAILED")


@asynccontextmanager
async def _sides(url: str, name: str | None) -> AsyncIterator[Sides]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        ollama = await _ollama(url, session, name)
        with TemporaryDirectory(prefix="test-live-") as directory:
            flags = (f"--ollama-url={url}", f"--status-interval={STATUS_INTERVAL}")
            async with process(Path(directory), *flags) as gateway:
                yield Sides(ollama, Gateway(gateway.url, session, ollama), await _pace(ollama))


async def _pace(ollama: Ollama) -> Pace:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await measure(ollama)
    except TimeoutError:
        raise Unsuitable(f"{ollama.model} is too slow or in use: not measured in {CHECK_SECONDS} s.") from None


async def _ollama(url: str, session: aiohttp.ClientSession, name: str | None) -> Ollama:
    """The server with the model of that name, or else with its smallest one that can chat."""
    try:
        tags = (await Ollama(url, session).get("/api/tags"))["models"]
    except (aiohttp.ClientError, ValueError, KeyError):
        raise Unsuitable(f"No Ollama answers at {url}.") from None
    wanted = [tag["name"] for tag in sorted(tags, key=lambda tag: tag["size"])]
    if name is not None:
        wanted = [each for each in wanted if each in (name, f"{name}:latest")]
    for each in wanted:
        ollama = Ollama(url, session, each)
        if "completion" in (await ollama.show()).get("capabilities", ()):
            return ollama
    raise Unsuitable(f"{url} has no {name or 'model'} that can chat.")
