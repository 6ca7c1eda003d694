"""The command line: serve, beside Ollama or with `--demo` against the built-in simulator."""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Sequence

import uvicorn
import uvloop

from gateway import __version__, journal
from gateway.app import create_app
from gateway.demo import Simulator
from gateway.server import Server, config, listen
from gateway.settings import ConfigurationError, Settings, load, unknown_variables

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal. Returns the process's exit code: 0 after a stop, 2 when it could not start."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments:
        print(__version__)
        return 0
    try:
        settings = load(arguments)
        sock = listen(settings.host, settings.port, settings.client_timeout)
    except ConfigurationError as error:
        return _refuse(str(error))
    except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
        return _refuse(f"GATEWAY_HOST, GATEWAY_PORT: cannot listen on {settings.host}:{settings.port}: {error}.")
    journal.configure(settings.log_format, settings.log_level)
    for name in unknown_variables():
        logger.warning("%s is set but is not a setting.", name)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, sock))
    except ConfigurationError as error:
        return _refuse(str(error))


async def _serve(settings: Settings, sock: socket.socket) -> int:
    async with contextlib.AsyncExitStack() as stack:
        if settings.demo:
            url = await stack.enter_async_context(_simulator())
            settings = settings.model_copy(update={"ollama_url": url, "ollama_urls": ()})
        if settings.redis_url:
            await _check_redis(settings.redis_url)
        server = Server(
            config(
                create_app(settings),
                max_url_bytes=settings.max_url_bytes,
                max_head_bytes=settings.max_head_bytes,
                request_timeout=settings.request_timeout,
                trusted_proxies=settings.trusted_proxies,
            ),
            settings.drain_seconds,
        )
        logger.info("settings: %s", settings.summary())
        port = sock.getsockname()[1]
        host = "127.0.0.1" if settings.host in ("", "0.0.0.0", "::") else settings.host
        print(f"Open http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        await server.serve([sock])
    return 0


@contextlib.asynccontextmanager
async def _simulator() -> AsyncIterator[str]:
    """The simulator's URL, while it is served in this process."""
    sock = listen("127.0.0.1", 0, Settings.model_fields["client_timeout"].default)
    server = uvicorn.Server(uvicorn.Config(Simulator().app, log_config=None, access_log=False, server_header=False))
    # not `serve`, which would catch the signals that are meant for the gateway
    task = asyncio.create_task(server._serve([sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def _check_redis(url: str) -> None:
    try:
        from gateway.replicas import unreachable
    except ImportError:
        raise ConfigurationError("GATEWAY_REDIS_URL: needs a package: pip install ollama-sse-gateway[redis].") from None
    if problem := await unreachable(url):
        raise ConfigurationError(f"GATEWAY_REDIS_URL: Redis is not there: {problem}.")


def _refuse(line: str) -> int:
    print(f"ollama-sse-gateway: {line}", file=sys.stderr)
    return 2
