"""Measure: `scripts/bench --help`."""

import argparse
import asyncio
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import uvloop

from bench import report
from bench.contenders import DEFAULT, EXTRA, ROOT, Contender, other_gateway, serve, upstream
from bench.scenarios import SCENARIOS, Figures
from bench.sizes import QUICK, Sizes

SPARE_FILES = 500
"""Open files that a process needs beside its two connections per stream."""


def main() -> int:
    options = _options()
    extra = [EXTRA[name] for name in options.extra]
    needs = ["nginx", *(each.needs for each in extra if each.needs)]
    missing = [command for command in needs if not shutil.which(command)]
    if missing or not Path("/proc/self/schedstat").exists():
        print(f"Missing: {' '.join(missing) or '/proc/self/schedstat (Linux)'}", file=sys.stderr)
        return 2
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    sizes = QUICK if options.quick else Sizes()
    sizes = replace(sizes, kept=min(sizes.kept, (files - SPARE_FILES) // 2))
    contenders = DEFAULT + extra + [other_gateway(each) for each in options.compare]
    names = [name for name in SCENARIOS if not options.only or name in options.only]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rounds = runner.run(measure(contenders, names, options.rounds, sizes))
    measured = report.medians(rounds)
    table = report.table(measured, sizes)
    options.output.mkdir(parents=True, exist_ok=True)
    result = {"machine": report.machine(), "sizes": asdict(sizes), "medians": measured, "rounds": rounds}
    (options.output / "results.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    (options.output / "table.md").write_text(table + "\n")
    (options.output / "streams.svg").write_text(report.plot(measured, sizes))
    print(f"{', '.join(f'{name} {value}' for name, value in report.machine().items())}\n\n{table}")
    return 0


async def measure(
    contenders: Sequence[Contender], names: Sequence[str], rounds: int, sizes: Sizes
) -> list[dict[str, Figures]]:
    """The figures of each contender in each round. A round has fresh processes, all running at the same time."""
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    measured: list[dict[str, Figures]] = []
    for number in range(rounds):
        figures: dict[str, Figures] = {contender.name: {} for contender in contenders}
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(upstream())
            servers = []
            for contender in contenders:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
                servers.append(await stack.enter_async_context(serve(contender, port, directory)))
            for name in names:
                scenario = SCENARIOS[name]
                turn = number % len(servers)  # no contender is always the first
                for server in servers[turn:] + servers[:turn]:
                    only = server.contender.only
                    concerned = name in only if only else scenario.concerns(server.contender)
                    if concerned and not (scenario.once and number):
                        print(f"round {number + 1}: {name}, {server.contender.name}", file=sys.stderr)
                        figures[server.contender.name] |= await scenario.measure(server, sizes)
        measured.append(figures)
    return measured


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/bench", description="Measures the gateway beside its alternatives.")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds; medians are shown (default: 5)")
    parser.add_argument("--quick", action="store_true", help="tiny numbers: to see that it works, not to measure")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="just this scenario; may be repeated")
    parser.add_argument("--with", dest="extra", action="append", default=[], choices=EXTRA, help="one more contender")
    parser.add_argument(
        "--compare", action="append", default=[], type=Path, metavar="DIR", help="the gateway of another checkout, too"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results", help="where the results go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
