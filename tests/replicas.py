"""Several gateways that share one Redis, as processes behind a real nginx that balances round-robin."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.demo import Simulator
from tests.gateways import Gateway, gateway
from tests.processes import free_port
from tests.redis_server import Redis
from tests.servers import serve

NGINX = """
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream gateways {{
{servers}
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
            proxy_next_upstream error;
        }}
    }}
}}
"""


@asynccontextmanager
async def nginx(*urls: str) -> AsyncIterator[str]:
    """A round-robin balancer in front of these servers. A server that refuses a connection is left out for a second."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        servers = "\n".join(
            f"        server {url.removeprefix('http://')} max_fails=1 fail_timeout=1s;" for url in urls
        )
        (Path(directory) / "nginx.conf").write_text(NGINX.format(servers=servers, port=port))
        running = await asyncio.create_subprocess_exec(
            *("nginx", "-p", directory, "-c", "nginx.conf", "-e", "stderr"), stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await listening(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            await running.wait()


async def listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


@asynccontextmanager
async def in_process(
    ollama: Simulator | str, redis: Redis, count: int, **settings: Any
) -> AsyncIterator[list[Gateway]]:
    """Replicas in the loop of the test, whose state can be looked into."""
    async with AsyncExitStack() as stack:
        if isinstance(ollama, Simulator):
            ollama = await stack.enter_async_context(serve(ollama.app))
        yield [await stack.enter_async_context(gateway(ollama, redis_url=redis.url, **settings)) for _ in range(count)]
