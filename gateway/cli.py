"""The command line: serve in front of Ollama or, with `--demo`, of the built-in simulator."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from functools import partial

import uvicorn
import uvloop

from gateway import __version__
from gateway.app import create_app
from gateway.demo import Simulator
from gateway.ops import journal
from gateway.ops.heap import keep_large_pieces_apart
from gateway.ops.output import say
from gateway.settings import ConfigurationError, Settings, load, unknown_variables
from gateway.web.files import SPARE_FILES, OpenFiles, raise_limit
from gateway.web.server import GatewayServer, listen, server_config, several

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal. Returns the process's exit code: 0 after a stop, 2 when it could not start."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be obeyed: by default it would kill
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments:
        print(__version__)
        return 0
    try:
        settings = load(arguments)
        sock = listen(settings.host, settings.port, settings.client_timeout)
    except ConfigurationError as error:
        return _refuse(str(error))
    except (OSError, UnicodeError) as error:  # UnicodeError for a host that cannot be a name
        return _refuse(f"GATEWAY_HOST, GATEWAY_PORT: cannot listen on {settings.host}:{settings.port}: {error}.")
    keep_large_pieces_apart()
    journal.configure(settings.log_format, settings.log_level)
    for name in unknown_variables():
        logger.warning("%s is set but is not a setting.", name)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, sock))
    except ConfigurationError as error:
        logging.shutdown()  # what was logged comes first
        return _refuse(str(error))


async def _serve(settings: Settings, sock: socket.socket) -> int:
    async with contextlib.AsyncExitStack() as stack:
        if settings.demo:
            url = await stack.enter_async_context(_simulator())
            settings = settings.model_copy(update={"ollama_url": url, "ollama_urls": ()})
        if settings.redis_url:
            await _check_redis(settings.redis_url)
        server = GatewayServer(
            server_config(
                create_app(settings),
                max_url_bytes=settings.max_url_bytes,
                max_head_bytes=settings.max_head_bytes,
                request_timeout=settings.request_timeout,
                trusted_proxies=settings.trusted_proxies,
                files=_files(settings.max_active, settings.max_queued),
            ),
            settings.drain_seconds,
            partial(_say_where, settings.host, sock.getsockname()[1]),
        )
        logger.info("settings: %s", settings.summary())
        await server.serve(several(sock))
    return 0


def _files(max_active: int, max_queued: int) -> OpenFiles:
    limit, reserved = raise_limit(), max_active + SPARE_FILES  # each stream that runs has a connection to Ollama
    needed = reserved + max_active + max_queued
    if limit < needed:
        message = "GATEWAY_MAX_ACTIVE and GATEWAY_MAX_QUEUED need %d open files, but the limit is %d (ulimit -n)."
        logger.warning(message, needed, limit)
    return OpenFiles(limit, reserved)


def _say_where(host: str, port: int) -> None:
    host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    if ":" in host:  # an IPv6 address
        host = f"[{host}]"
    line = f"Open http://{host}:{port}"
    if not say(sys.stdout, line):
        logger.warning("standard output cannot be written to. %s", line)


@contextlib.asynccontextmanager
async def _simulator() -> AsyncIterator[str]:
    """The simulator's URL, while it is served in this process."""
    sock = listen("127.0.0.1", 0, Settings.model_fields["client_timeout"].default)
    server = uvicorn.Server(
        uvicorn.Config(Simulator(max_loaded=2).app, log_config=None, access_log=False, server_header=False)
    )
    # `serve` would catch the signals that are meant for the gateway
    task = asyncio.create_task(server._serve([sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def _check_redis(url: str) -> None:
    try:
        from gateway.replicas.connection import unreachable
    except ImportError:
        raise ConfigurationError("GATEWAY_REDIS_URL: needs a package: pip install ollama-sse-gateway[redis].") from None
    if problem := await unreachable(url):
        raise ConfigurationError(f"GATEWAY_REDIS_URL: Redis cannot be reached: {problem}.")


def _refuse(line: str) -> int:
    say(sys.stderr, f"ollama-sse-gateway: {line}")
    return 2
