"""The command line as a process: what it prints, how it refuses, how it ends."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from gateway import __version__
from gateway.cli import main
from tests.processes import INSTALLED, process
from tests.sse import Event, Events, ending, messages, text
from tests.upstreams import ONCE_DONE, silence, streams, token, upstream


def run(directory: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A run that ends by itself, in `directory` and without settings from outside."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *flags],
        cwd=directory,
        env={"PYTHONPATH": str(INSTALLED), "PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_version(tmp_path: Path) -> None:
    ended = run(tmp_path, "--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, __version__ + "\n", "")


def test_help(tmp_path: Path) -> None:
    ended = run(tmp_path, "--help")
    assert ended.returncode == 0
    assert "--ollama-url" in ended.stdout
    assert "GATEWAY_OLLAMA_URL" in ended.stdout


@pytest.mark.parametrize(
    ("flags", "environment", "line"),
    [
        (["--port=http"], {}, "GATEWAY_PORT (--port): "),
        ([], {"GATEWAY_PORT": "http"}, "GATEWAY_PORT (--port): "),
        (["--ollama-url=ftp://x"], {}, "GATEWAY_OLLAMA_URL (--ollama-url): "),
        ([], {"OLLAMA_HOST": "ftp://x"}, "OLLAMA_HOST: must be an http:// or https:// address, not 'ftp://x'."),
        (["--prot=1"], {}, "unrecognized arguments: --prot=1"),
        (["--config=nowhere.toml"], {}, "GATEWAY_CONFIG: there is no file nowhere.toml."),
        (["--host=192.0.2.1", "--port=0"], {}, "GATEWAY_HOST, GATEWAY_PORT: cannot listen on 192.0.2.1:0: "),
        (["--host=nowhere.invalid"], {}, "GATEWAY_HOST, GATEWAY_PORT: cannot listen on nowhere.invalid:8000: "),
        (["--host=" + "a" * 70], {}, "GATEWAY_HOST, GATEWAY_PORT: cannot listen on aaa"),
    ],
)
def test_wrong_setting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    flags: list[str],
    environment: dict[str, str],
    line: str,
) -> None:
    """Exit code 2 and one line that names the setting; no traceback, and no URL that would never answer."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(flags) == 2
    printed, said = capfd.readouterr()
    assert printed == ""
    assert said.startswith(f"ollama-sse-gateway: {line}")
    assert said.count("\n") == 1


def test_port_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        ended = run(tmp_path, f"--port={port}")
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        f"ollama-sse-gateway: GATEWAY_HOST, GATEWAY_PORT: cannot listen on 127.0.0.1:{port}: "
    )


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_start_and_stop(tmp_path: Path, sig: signal.Signals) -> None:
    """It serves at the URL that it prints, logs its settings without credentials, and ends with success at a signal."""
    environment = {"GATEWAY_OLLAMA_URL": "http://me:secret@127.0.0.1:9", "GATEWAY_PROT": "1"}
    async with process(tmp_path, **environment) as gw, aiohttp.ClientSession() as session:
        async with session.get(gw.url + "/healthz") as response:
            assert response.status == 200
        os.kill(gw.pid, sig)
        assert await gw.ended() == 0
    log = "\n".join(gw.log)
    assert "ollama=http://***@127.0.0.1:9" in log
    assert "secret" not in log
    assert "GATEWAY_PROT is set but is not a setting." in log
    assert "Traceback" not in log


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "localhost"])
async def test_printed_url_can_be_opened(tmp_path: Path, host: str) -> None:
    async with process(tmp_path, f"--host={host}") as gw, aiohttp.ClientSession() as session:
        assert "0.0.0.0" not in gw.url
        async with session.get(gw.url + "/healthz") as response:
            assert response.status == 200


async def test_demo(tmp_path: Path) -> None:
    """One command and no Ollama: the page, the models and an answer; a wrong OLLAMA_HOST does not matter."""
    async with process(tmp_path, "--demo", OLLAMA_HOST="ftp://x") as gw, aiohttp.ClientSession() as session:
        async with session.get(gw.url) as response:
            assert response.status == 200
            assert "<title>" in await response.text()
        async with session.get(f"{gw.url}/api/chat?model=fault:burst-20&prompt=Hi") as response:
            events = [event async for event in Events(response)]
        assert ending(events) == ("complete", None)
        assert text(events)
        gw.terminate()
        assert await gw.ended() == 0
    assert "Traceback" not in "\n".join(gw.log)


async def test_nothing_of_a_prompt_or_an_answer_is_logged(tmp_path: Path) -> None:
    async with upstream(streams(token("top-secret-answer"), ONCE_DONE)) as ollama:
        environment = {"GATEWAY_OLLAMA_URL": ollama.url, "GATEWAY_LOG_LEVEL": "debug"}
        async with process(tmp_path, **environment) as gw, aiohttp.ClientSession() as session:
            async with session.get(f"{gw.url}/api/chat?model=m&prompt=top-secret-question") as response:
                assert b"top-secret-answer" in await response.read()
            gw.terminate()
            assert await gw.ended() == 0
    assert "top-secret" not in "\n".join(gw.log)


async def test_stop_with_a_silent_ollama(tmp_path: Path) -> None:
    """SIGTERM ends every stream once, within the drain's time, although Ollama says nothing."""
    async with upstream(silence) as ollama:
        flags = (f"--ollama-url={ollama.url}", "--drain-seconds=0.2", "--status-interval=0.1", "--num-parallel=10")
        async with process(tmp_path, *flags) as gw, aiohttp.ClientSession() as session:
            responses = [await session.get(f"{gw.url}/api/chat?model=m&prompt=Hi") for _ in range(10)]
            await ollama.until(lambda: ollama.open == 10)
            gw.terminate()
            readings = await asyncio.gather(*map(read, responses))
            assert await gw.ended() == 0
        await ollama.until(lambda: ollama.open == 0)
    for events in readings:
        assert ending(events) == ("error", "shutting_down")
        assert messages(events)[-1].json["phase"] in ("starting", "loading")
    assert "Traceback" not in "\n".join(gw.log)


async def read(response: aiohttp.ClientResponse) -> list[Event]:
    return [event async for event in Events(response)]


@pytest.mark.slow
async def test_stop_with_a_request_half_sent(tmp_path: Path) -> None:
    """A client that never finishes its body delays the exit no longer than the grace period."""
    async with process(tmp_path, "--ollama-url=http://127.0.0.1:9") as gw:
        address = urlsplit(gw.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        async with aiohttp.ClientSession() as session, session.get(gw.url + "/healthz") as response:
            assert response.status == 200
        gw.terminate()
        async with asyncio.timeout(30):
            assert await gw.ended() == 0
        writer.close()
    assert "Traceback" not in "\n".join(gw.log)
