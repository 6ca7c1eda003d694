"""Two gateways on one Redis, for the benchmark: `python -m bench.replicas PORT`, in a directory of its own.

The first gateway listens on PORT; files tell where the second one and Redis are.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

OTHER = "other"
"""File with the port of the second gateway."""

SOCKET = "redis.sock"
"""Where Redis listens."""


def main() -> None:
    port = sys.argv[1]
    url = f"unix://{Path.cwd() / SOCKET}"
    redis = ["redis-server", "--port 0", f"--unixsocket {SOCKET}", "--save", "", "--appendonly no"]
    subprocess.Popen(redis)
    while not Path(SOCKET).exists():
        time.sleep(0.01)
    command = [
        sys.executable,
        "-P",
        "-m",
        "gateway",
        f"--redis-url={url}",
        "--max-active=100000",
        "--num-parallel=100000",
    ]
    other = subprocess.Popen([*command, "--port=0"], stdout=subprocess.PIPE, text=True)
    assert other.stdout
    Path(OTHER).write_text(other.stdout.readline().strip().rpartition(":")[2])
    subprocess.Popen([*command, f"--port={port}"])
    signal.pause()  # until the benchmark ends the whole group


if __name__ == "__main__":
    main()
