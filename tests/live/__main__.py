"""Check a real Ollama: `scripts/test-live --help`."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterable, Sequence
from time import monotonic

from tests.live.pace import Unsuitable
from tests.live.suite import Row, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 if nothing failed, 1 if something did, 2 if there was nothing to check."""
    parser = argparse.ArgumentParser(
        "scripts/test-live",
        description="Checks what the gateway relies on of an Ollama. It loads and unloads one model there, no more.",
    )
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:11434", help="of Ollama (default: %(default)s)")
    parser.add_argument("--model", help="to chat with (default: the smallest one that can)")
    options = parser.parse_args(arguments)
    try:
        return asyncio.run(show(run(options.url.rstrip("/"), options.model)))
    except Unsuitable as reason:
        print(reason, file=sys.stderr)
        return 2


async def show(rows: AsyncIterable[Row]) -> int:
    """Print each row of the table as it arrives. Returns the exit code."""
    _print(Row("check", "direct", "gateway", "verdict"))
    print("|---|---|---|---|")
    failed, begin = 0, monotonic()
    async for row in rows:
        _print(row)
        failed += row.failed
    print(f"\n{failed or 'none'} failed, in {monotonic() - begin:.0f} s")
    return 1 if failed else 0


def _print(row: Row) -> None:
    cells = (_cell(row.check, 35), _cell(row.direct, 42), _cell(row.gateway, 42), row.verdict)
    print(f"| {' | '.join(cells)} |", flush=True)


def _cell(text: str, width: int) -> str:
    text = " ".join(text.replace("|", "¦").split())
    return (text if len(text) <= width else text[: width - 1] + "…").ljust(width)


if __name__ == "__main__":
    sys.exit(main())
