"""The results as a table and as a plot."""

import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from bench.contenders import DIRECT, GATEWAY, NGINX, ROOT
from bench.scenarios import RATE, Figures
from bench.sizes import Sizes

Rounds = Sequence[Mapping[str, Figures]]
"""The figures of each contender in each round."""

PACKAGES = ("starlette", "sse-starlette", "uvicorn", "uvloop", "httptools", "aiohttp", "orjson")


class Figure(NamedTuple):
    """`digits` after the point are shown."""

    title: str
    digits: int


def figures(sizes: Sizes) -> dict[str, Figure]:
    """All that can stand in the table, by the names that scenarios give."""
    paced = f"{sizes.streams} streams × {RATE} tokens/s"
    burst = f"{sizes.burst_streams} streams, no pacing"
    return {
        "paced_cpu_us": Figure(f"CPU per token, µs ({paced})", 1),
        "paced_p50_ms": Figure(f"Age of a token on arrival, p50, ms ({paced})", 2),
        "paced_p99_ms": Figure("… p99, ms", 2),
        "added_p50_ms": Figure("Added to direct, p50, ms", 2),
        "added_p99_ms": Figure("… p99, ms", 2),
        "burst_cpu_us": Figure(f"CPU per token, µs ({burst})", 2),
        "burst_per_s": Figure(f"Tokens/s ({burst})", 0),
        "burst_left": Figure(f"… still running {sizes.settle:g} s after their clients left", 0),
        "first_token_ms": Figure("Time to first token, p50, ms", 2),
        "added_first_token_ms": Figure("Added to direct, p50, ms", 2),
        "capacity": Figure(f"Streams × {RATE} tokens/s with p99 under 100 ms", 0),
        "silent_kib": Figure("Memory per silent stream, KiB", 1),
        "kept_alive": Figure(f"Of {sizes.kept} silent streams alive after {sizes.kept_seconds:g} s", 0),
        "kept_cpu_percent": Figure("… CPU, % of a core", 1),
        "cancel_p50_ms": Figure("Client gone to Ollama's connection closed, p50, ms", 2),
        "cancel_p99_ms": Figure("… p99, ms", 2),
        "viewer_percent": Figure("Each further viewer, % of the first one's CPU per token", 0),
        "replay_ms": Figure(f"Reading a retained log of {sizes.events} events, ms", 1),
        "here_cpu_us": Figure(f"CPU per token with Redis, µs ({sizes.shared} streams, watched where they run)", 1),
        "here_p50_ms": Figure("… age of a token on arrival, p50, ms", 2),
        "here_p99_ms": Figure("… p99, ms", 2),
        "here_commands": Figure("… Redis commands per token", 2),
        "here_token_kib": Figure("… Redis memory per token, KiB", 2),
        "there_cpu_us": Figure("CPU per token with Redis, µs (the same, watched at the other replica)", 1),
        "there_p50_ms": Figure("… age of a token on arrival, p50, ms", 2),
        "there_p99_ms": Figure("… p99, ms", 2),
        "there_commands": Figure("… Redis commands per token", 2),
        "there_token_kib": Figure("… Redis memory per token, KiB", 2),
        **{f"at_{count}_us": Figure(f"CPU per token at {count} streams, µs", 1) for count in sizes.counts},
    }


_ADDED = {
    "added_p50_ms": "paced_p50_ms",
    "added_p99_ms": "paced_p99_ms",
    "added_first_token_ms": "first_token_ms",
}


def medians(rounds: Rounds) -> dict[str, Figures]:
    """The median of each figure over the rounds that have it. What is added to direct is computed in each round."""
    collected: dict[str, dict[str, list[float]]] = {}
    for each in rounds:
        for contender, measured in each.items():
            direct = each.get(DIRECT, {})
            added = {
                name: measured[of] - direct[of]
                for name, of in _ADDED.items()
                if contender != DIRECT and of in measured and of in direct
            }
            for name, value in (measured | added).items():
                if math.isfinite(value):
                    collected.setdefault(contender, {}).setdefault(name, []).append(value)
    return {
        contender: {name: statistics.median(values) for name, values in measured.items()}
        for contender, measured in collected.items()
    }


def table(measured: Mapping[str, Figures], sizes: Sizes) -> str:
    """Markdown: a row for each figure, a column for each contender, and the gateway's ratios."""
    columns = [*measured, *(f"{GATEWAY} ÷ {other}" for other in (NGINX, DIRECT) if {GATEWAY, other} <= set(measured))]
    lines = [_row(["", *columns]), _row(["---", *("--:" for _ in columns)])]
    for name, figure in figures(sizes).items():
        cells = [
            f"{each[name]:,.{figure.digits}f}".replace(",", " ") if name in each else "" for each in measured.values()
        ]
        for other in (NGINX, DIRECT):
            if {GATEWAY, other} <= set(measured):
                mine, theirs = measured[GATEWAY].get(name), measured[other].get(name)
                cells.append(f"{mine / theirs:.2f}" if mine is not None and theirs else "")
        if any(cells):
            lines.append(_row([figure.title, *cells]))
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """The machine and the versions of the software."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": f"{os.cpu_count()} × {cpu[1] if cpu else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "nginx": _says("nginx", "-v").rpartition("/")[2],
        **{package: version(package) for package in PACKAGES},
        "commit": _says("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
    }


def plot(measured: Mapping[str, Figures], sizes: Sizes) -> str:
    """An SVG of the CPU that contenders use, by number of streams. A straight line is a linear cost."""
    width, height, left, bottom = 720, 400, 60, 50
    lines = {
        contender: [(count, each[f"at_{count}_percent"]) for count in sizes.counts if f"at_{count}_percent" in each]
        for contender, each in measured.items()
    }
    lines = {contender: points for contender, points in lines.items() if points}
    most = max(sizes.counts)
    top: float = max((percent for points in lines.values() for _, percent in points), default=100)
    top = math.ceil(top / 50) * 50

    def x(count: float) -> float:
        return left + count / most * (width - left - 150)

    def y(percent: float) -> float:
        return height - bottom - percent / top * (height - bottom - 30)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="18" font-size="14">CPU, % of a core, by number of streams × {RATE} tokens/s</text>',
    ]
    for percent in (top * part / 5 for part in range(6)):
        parts.append(f'<path d="M{left} {y(percent):.1f}H{x(most):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y(percent) + 4:.1f}" text-anchor="end">{percent:g}</text>')
    parts += [
        f'<text x="{x(count):.1f}" y="{height - bottom + 20}" text-anchor="middle">{count}</text>'
        for count in sizes.counts
        if count * 20 >= most  # the labels of fewer would cover each other
    ]
    for (contender, points), color in zip(lines.items(), _COLORS, strict=False):
        path = " ".join(f"{x(count):.1f},{y(percent):.1f}" for count, percent in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(c):.1f}" cy="{y(p):.1f}" r="3" fill="{color}"/>' for c, p in points]
        count, percent = points[-1]
        parts.append(f'<text x="{x(count) + 8:.1f}" y="{y(percent) + 4:.1f}" fill="{color}">{contender}</text>')
    return "\n".join([*parts, "</svg>\n"])


_COLORS = ("#1b7837", "#b35806", "#2166ac", "#762a83", "#555")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _says(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return (said.stdout + said.stderr).strip()
