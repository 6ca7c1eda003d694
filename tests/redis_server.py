"""A real Redis, on a free port, without anything on disk."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis as client

from tests.processes import free_port


class Redis:
    """`run` is a command over a connection of its own; `freeze` and `thaw` stop the process as a hanging host would."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._client = client.Redis(port=port, socket_timeout=10)
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it, empty."""
        self._process = subprocess.Popen(
            ["redis-server", f"--port {self.port}", "--bind 127.0.0.1", "--save", "", "--appendonly no"],
            cwd=tempfile.gettempdir(),
            stdout=subprocess.DEVNULL,
        )
        for _ in range(1000):
            try:
                self.run("PING")
            except client.ConnectionError:
                assert self._process.poll() is None, "redis-server has ended"
            else:
                return
        raise AssertionError("redis-server does not answer")

    def kill(self) -> None:
        """End it at once; what it held is gone."""
        self._process.kill()
        self._process.wait()
        self._client.connection_pool.disconnect()

    def close(self) -> None:
        """Close its connection to the test."""
        self._client.close()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def run(self, *command: Any) -> Any:
        return self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    def keys(self) -> dict[str, int]:
        """All keys, with what is left of their life in milliseconds."""
        return {key.decode(): self.run("PTTL", key) for key in self.run("KEYS", "*")}

    def commands(self) -> int:
        """How many commands it has run."""
        info: dict[str, Any] = self.run("INFO", "stats")
        return int(info["total_commands_processed"])


@contextmanager
def redis_server() -> Iterator[Redis]:
    """A Redis for one user."""
    redis = Redis(free_port())
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()
        redis.close()
