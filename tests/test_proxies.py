"""The proxy recipes in deploy/, run by the real nginx and the real Caddy in front of a gateway."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from playwright.async_api import async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from gateway.demo import Simulator
from tests.gateways import gateway
from tests.servers import serve
from tests.sse import Events, ending, messages, text

DEPLOY = Path(__file__).parent.parent / "deploy"
CHAT = "/api/chat?model=m&prompt=Hello"
NGINX = """
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    gzip on; # what the recipe has to hold out against
    gzip_types *;
    include gateway.conf;
}
"""


class Proxy(Protocol):
    def __call__(self, upstream: str, directory: Path) -> AbstractAsyncContextManager[str]:
        """A proxy in front of `upstream`, a base URL; yields its own base URL."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def tls_server(port: int, *command: str, **environment: str) -> AsyncIterator[str]:
    """A program that serves HTTPS on `port`, once it does; yields the base URL."""
    running = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environment})
    try:
        while not await shakes_hands(port):
            assert running.returncode is None, f"{command[0]} ended"
            await asyncio.sleep(0.02)
        yield f"https://localhost:{port}"
    finally:
        if running.returncode is None:
            running.terminate()
        await running.wait()


async def shakes_hands(port: int) -> bool:
    """Whether TLS works there. Caddy listens before it has its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@asynccontextmanager
async def nginx(upstream: str, directory: Path) -> AsyncIterator[str]:
    port = free_port()
    recipe = (DEPLOY / "nginx.conf").read_text()
    for ours, here in {
        "server 127.0.0.1:8000;": f"server {upstream.removeprefix('http://')};",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/nginx/chat.example.com.": "",
        "proxy_read_timeout 60s;": "proxy_read_timeout 5s;",
    }.items():
        assert ours in recipe
        recipe = recipe.replace(ours, here)
    (directory / "nginx.conf").write_text(NGINX)
    (directory / "gateway.conf").write_text(recipe)
    certificate = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
        *("-subj", "/CN=localhost", "-keyout", "key", "-out", "crt"),
        cwd=directory,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await certificate.wait() == 0
    command = ("nginx", "-p", str(directory), "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;")
    async with tls_server(port, *command) as url:
        yield url


@asynccontextmanager
async def caddy(upstream: str, directory: Path) -> AsyncIterator[str]:
    port = free_port()
    async with tls_server(
        port,
        *("caddy", "run", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")),
        UPSTREAM=upstream,
        HTTPS_PORT=str(port),
        HTTP_PORT=str(free_port()),
        XDG_DATA_HOME=str(directory),
        XDG_CONFIG_HOME=str(directory),
    ) as url:
        yield url


@pytest.fixture(params=[nginx, caddy])
def proxy(request: pytest.FixtureRequest) -> Proxy:
    chosen: Proxy = request.param
    return chosen


class StepOllama:
    """An Ollama that sends its next line when the test calls `step`, and ends each answer after `tokens`."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.asked = 0
        self._steps = asyncio.Semaphore(0)
        self._changed = asyncio.Condition()
        self.app = Starlette(
            routes=[Route("/api/chat", self._chat, methods=["POST"]), Route("/api/{name}", self._list)]
        )

    def step(self, lines: int = 1) -> None:
        for _ in range(lines):
            self._steps.release()

    async def until_asked(self, times: int) -> None:
        """Return once so many answers are open at the same time: none ends without a step."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.asked >= times)

    async def _list(self, request: Request) -> JSONResponse:
        return JSONResponse({"models": []})

    async def _chat(self, request: Request) -> StreamingResponse:
        async with self._changed:
            self.asked += 1
            self._changed.notify_all()
        return StreamingResponse(self._lines(), media_type="application/x-ndjson")

    async def _lines(self) -> AsyncIterator[bytes]:
        for number in range(self.tokens):
            await self._steps.acquire()
            yield b'{"message":{"role":"assistant","content":"%d "},"done":false}\n' % number
        await self._steps.acquire()
        yield b'{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}\n'


async def test_a_silent_load_outlasts_the_read_timeout(tmp_path: Path, proxy: Proxy) -> None:
    """nginx cuts after 5 s without a byte; the model loads for 12 s; the pings bridge it."""
    simulator = Simulator(load_seconds=12, prompt_seconds=0, token_rate=0)
    async with (
        gateway(simulator, ping_interval=1, status_interval=60) as running,
        proxy(running.url, tmp_path) as url,
        running.session.get(f"{url}/api/chat?prompt=Hello", ssl=False) as response,
    ):
        events = Events(response)
        received = [event async for event in events]
    assert ending(received) == ("complete", None)
    assert text(received)
    assert events.pings >= 10


async def test_each_token_passes_before_the_next_is_made(tmp_path: Path, proxy: Proxy) -> None:
    """In lockstep: a proxy that held a token back would never be sent another."""
    ollama = StepOllama(tokens=50)
    async with (
        serve(ollama.app) as ollama_url,
        gateway(ollama_url) as running,
        proxy(running.url, tmp_path) as url,
        running.session.get(url + CHAT, ssl=False, headers={"Accept-Encoding": "gzip"}) as response,
    ):
        assert "Content-Encoding" not in response.headers
        events = Events(response)
        for number in range(50):
            ollama.step()
            assert (await events.next()).json["message"]["content"] == f"{number} "
        ollama.step()
        rest = [event async for event in events]
    assert ending(rest) == ("complete", None)
    assert len(messages(rest)) == 1


async def test_leaving_through_the_proxy_frees_ollama(tmp_path: Path, proxy: Proxy) -> None:
    """While the model loads nothing is sent, so no failing write tells the proxy: it has to watch its client, and
    before nginx's read time-out would end the silence anyway."""
    simulator = Simulator(load_seconds=60)
    async with (
        gateway(simulator, ping_interval=60, status_interval=60) as running,
        proxy(running.url, tmp_path) as url,
    ):
        async with running.session.get(f"{url}/api/chat?prompt=Hello", ssl=False) as response:
            await Events(response).next("status")
            await simulator.until(lambda: simulator.states["loading"] == 1)
            connection = response.connection
            assert connection
            assert connection.transport
            connection.transport.abort()  # a close would wait for the proxy's part in TLS's own goodbye
        async with asyncio.timeout(4):
            await simulator.until(lambda: simulator.states["cancelled"] == 1)


async def test_one_browser_reads_30_streams_at_once_over_http2(tmp_path: Path, proxy: Proxy) -> None:
    """All 30 are open before any may end; over HTTP/1.1 the seventh would wait for the first."""
    ollama = StepOllama(tokens=3)
    read_30 = """
        path => Promise.all(Array.from({length: 30}, () => new Promise((resolve, reject) => {
            const source = new EventSource(path)
            let text = ""
            source.onerror = () => reject(new Error("an EventSource failed"))
            source.onmessage = ({data}) => {
                const {message, done, error} = JSON.parse(data)
                text += error ?? message.content
                if (done || error) { source.close(); resolve(text) }
            }
        })))
    """
    async with (
        serve(ollama.app) as ollama_url,
        gateway(ollama_url) as running,
        proxy(running.url, tmp_path) as url,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
        )
        page = await browser.new_page(ignore_https_errors=True)
        await page.goto(f"{url}/healthz")
        protocol = await page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol")
        reading = asyncio.create_task(page.evaluate(read_30, CHAT))
        await ollama.until_asked(30)
        ollama.step(30 * 4)
        texts = await reading
        await browser.close()
    assert protocol == "h2"
    assert texts == ["0 1 2 "] * 30
