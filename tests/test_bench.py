"""The benchmark runs, gives a figure for all that it claims to measure, and leaves nothing behind."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.contenders import REPLICAS
from bench.report import figures
from bench.scenarios import SCENARIOS
from bench.sizes import QUICK

ROOT = Path(__file__).parent.parent
EXTRAS = ("redis", "packages", "bare")
COMMAND = (sys.executable, "-P", "-m", "bench", "--quick", "--rounds=1", *(f"--with={name}" for name in EXTRAS))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_every_scenario_gives_figures(tmp_path: Path) -> None:
    run = subprocess.run(
        [*COMMAND, f"--output={tmp_path}"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    measured = json.loads((tmp_path / "results.json").read_text())["medians"]
    assert all(f"round 1: {scenario}, " in run.stderr for scenario in SCENARIOS)
    assert set(measured["gateway"]) | set(measured[REPLICAS]) >= set(figures(QUICK))
    assert all(math.isfinite(value) for each in measured.values() for value in each.values())
    for contender in ("nginx", "thirty lines"):
        assert {"paced_cpu_us", "burst_per_s", "added_p50_ms", "silent_kib", "cancel_p99_ms"} <= set(
            measured[contender]
        )
    for contender in ("packages alone", "bare relay"):
        assert {"paced_cpu_us", "burst_cpu_us", "first_token_ms"} <= set(measured[contender])
    assert "paced_p99_ms" in measured["direct"]
    table = (tmp_path / "table.md").read_text()
    assert table in run.stdout
    assert all(figure.title in table for figure in figures(QUICK).values())
    assert (tmp_path / "streams.svg").read_text().count("<polyline") == 3


def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, f"--output={tmp_path}"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr
        for line in run.stderr:
            if line == "round 1: burst, gateway\n":
                break
        started = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        assert len(started) == len(["upstream", "nginx", "thirty lines", "gateway", *EXTRAS])
        run.send_signal(signal.SIGINT)
        run.stderr.read()
    assert run.returncode != 0
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert not list(tmp_path.iterdir())
