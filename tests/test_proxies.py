"""The proxy recipes in deploy/, run by the real nginx and the real Caddy in front of a gateway."""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiohttp
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from yarl import URL

from gateway.demo import Simulator
from tests.asks import CHAT, chat, quick
from tests.gateways import gateway
from tests.page.pages import chromium
from tests.processes import free_port
from tests.servers import serve
from tests.sse import Events, ending, messages, text

DEPLOY = Path(__file__).parent.parent / "deploy"
NGINX = """
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    gzip on; # the recipe must work in spite of it
    gzip_types *;
    include gateway.conf;
}
"""


class Proxy(Protocol):
    def __call__(self, upstream: str, directory: Path) -> AbstractAsyncContextManager[str]:
        """A proxy in front of `upstream`, a base URL; yields its own base URL. Its logs are `*.log` in `directory`."""


@asynccontextmanager
async def tls_server(port: int, directory: Path, *command: str, **environment: str) -> AsyncIterator[str]:
    """Start a program that serves HTTPS on `port`, and yield the base URL once it does."""
    with (directory / "stderr.log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environment}, stderr=log)
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
    """Whether TLS works on this port. Caddy listens before it has its certificate."""
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
        "/var/log/nginx/": "",
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
    async with tls_server(port, directory, *command) as url:
        yield url


@asynccontextmanager
async def caddy(upstream: str, directory: Path) -> AsyncIterator[str]:
    port = free_port()
    async with tls_server(
        port,
        directory,
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
        """Return once `times` answers are open at the same time: none ends without a step."""
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
    simulator = quick(load_seconds=12)
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


@pytest.mark.parametrize("stream", [True, False])
async def test_a_silent_load_outlasts_it_for_ollamas_clients_too(tmp_path: Path, proxy: Proxy, stream: bool) -> None:
    """Spaces bridge it, and come before the answer, which is what it would have been."""
    simulator = quick(load_seconds=7)
    async with (
        gateway(simulator, ping_interval=1, status_interval=60) as running,
        proxy(running.url, tmp_path) as url,
        running.session.post(f"{url}/ollama/api/chat", json=chat("Hello", stream=stream), ssl=False) as response,
    ):
        received = await response.read()
    answer = received.lstrip(b" ")
    assert len(received) - len(answer) >= 5
    told = [orjson.loads(line) for line in answer.splitlines()]
    assert [line["done"] for line in told] == [False] * (len(told) - 1) + [True]
    assert (len(told) > 1) is stream
    assert "".join(line["message"]["content"] for line in told)


async def test_each_token_passes_before_the_next_is_made(tmp_path: Path, proxy: Proxy) -> None:
    """A proxy that held a token back would never be sent another."""
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


async def test_each_line_passes_before_the_next_is_made(tmp_path: Path, proxy: Proxy) -> None:
    """As above, for Ollama's own clients."""
    ollama = StepOllama(tokens=50)
    headers = {"Accept-Encoding": "gzip"}
    async with serve(ollama.app) as ollama_url, gateway(ollama_url) as running, proxy(running.url, tmp_path) as url:
        ollama.step()
        async with running.session.post(
            f"{url}/ollama/api/chat", json=chat("Hi"), ssl=False, headers=headers
        ) as response:
            assert "Content-Encoding" not in response.headers
            for number in range(50):
                line = orjson.loads(await response.content.readline())
                assert line["message"]["content"] == f"{number} "
                ollama.step()
            assert orjson.loads(await response.content.read())["done"]


def logged(directory: Path, caplog: pytest.LogCaptureFixture) -> str:
    """All that a proxy has logged, and the gateway behind it."""
    proxys = "".join(file.read_text() for file in directory.glob("*.log"))
    return proxys + "".join(str(vars(record)) for record in caplog.records)


async def test_no_log_has_a_prompt_or_an_id(tmp_path: Path, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """Whether the query is one or, by a mistake, part of the path; and when the gateway is away, too."""
    caplog.set_level("DEBUG", "gateway")
    async with AsyncExitStack() as front, aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        async with gateway(quick()) as running:
            url = await front.enter_async_context(proxy(running.url, tmp_path))
            async with session.post(f"{url}/api/streams", json={"chat": chat("My secret")}) as made:
                sid = (await made.json())["id"]
            headers = {"Referer": f"{url}/?prompt=My+secret", "Last-Event-ID": f"{sid}-1"}
            for path in ("chat?prompt=My+secret", "chat%3Fprompt=My+secret", f"streams/{sid}", f"/streams//{sid}/?a"):
                async with session.get(URL(f"{url}/api/{path}", encoded=True), headers=headers) as response:
                    await response.read()
            async with session.delete(f"{url}/api/streams/{sid}") as response:
                assert response.status == 204
        for path in ("chat?prompt=My+secret", f"streams/{sid}"):
            async with session.get(f"{url}/api/{path}") as response:
                assert response.status == 502
    log = logged(tmp_path, caplog)
    assert log.count("/api/chat") >= 3
    assert log.count(f"/api/streams/{sid[:8]}...") >= 4
    assert f"/api/streams/{sid[:8]}…" in log
    assert "secret" not in log
    assert sid[:9] not in log


def test_both_recipes_for_nginx_log_alike() -> None:
    """Only one of them is run here."""
    recipes = [(DEPLOY / name).read_text() for name in ("nginx.conf", "nginx-scale.conf")]
    one, other = (
        re.findall(
            r"^(?:map .*\{\n(?:    .*\n)+\}|log_format .*|    access_log .*|    error_log .*)$", recipe, re.MULTILINE
        )
        for recipe in recipes
    )
    assert one == other
    assert len(one) == 4


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
        gateway(ollama_url, num_parallel=30) as running,
        proxy(running.url, tmp_path) as url,
        chromium() as browser,
    ):
        page = await browser.new_page(ignore_https_errors=True)
        await page.goto(f"{url}/healthz")
        protocol = await page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol")
        reading = asyncio.create_task(page.evaluate(read_30, CHAT))
        await ollama.until_asked(30)
        ollama.step(30 * 4)
        texts = await reading
    assert protocol == "h2"
    assert texts == ["0 1 2 "] * 30
