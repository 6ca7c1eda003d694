"""The composition root: the parts of a gateway, and its lifespan."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from gateway.asks.bounds import Bounds
from gateway.asks.hook_runner import HookError, HookRunner, find_hook
from gateway.asks.parsing import Asks
from gateway.asks.presets import Preset, PresetError, parse_presets
from gateway.asks.shaping import Rules, Shaper
from gateway.hooks import Hook
from gateway.jobs import Kind, Limits
from gateway.ops.health import Readiness
from gateway.ops.journal import Access, Journal
from gateway.ops.metrics import Metrics
from gateway.settings import PRESETS, ConfigurationError, Settings, read_config
from gateway.streams.ledger import Ledger
from gateway.streams.log import LogStore, Peers
from gateway.streams.memory import MemoryLogs
from gateway.streams.places import Rules as QueueRules
from gateway.streams.pulse import Pulse
from gateway.streams.queue import LocalQueue, Queue
from gateway.streams.quotas import Quota, Quotas
from gateway.streams.registry import Streams
from gateway.streams.running import Running
from gateway.streams.shelf import Shelf
from gateway.upstream.client import OllamaClient
from gateway.upstream.models import Models
from gateway.upstream.servers import OllamaServer, Upstreams
from gateway.web.keys import Keys
from gateway.web.openapi import document
from gateway.web.responses import HANDLERS
from gateway.web.routes.table import ROUTES
from gateway.web.security import LOCALHOST_ORIGIN, Authentication, Guard
from gateway.web.state import GatewayState

QUERY_TIMEOUT = 5.0  # in seconds, for a short request to Ollama, such as the list of its models


class Gateway(Starlette):
    """An app that puts the server's own `send` into the scope, as `send_body`: a stream's body passes no middleware.

    Its own `receive` is there, too, by which any middleware can see that the client has left.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["send_body"], scope["receive"] = send, receive
        try:
            await super().__call__(scope, receive, send)
        finally:
            del scope["send_body"], scope["receive"]  # they hold the scope: no one else is to free them


def create_app(settings: Settings) -> Starlette:
    """A gateway, ready to be served. Its streams end when the server calls `Streams.drain`.

    Raises `ConfigurationError` for presets or a hook that cannot be used.
    """
    _read_presets(settings)
    hook = _hook(settings)
    keys = Keys(settings.keys())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[GatewayState]:
        upstreams = _upstreams(settings)
        runner = HookRunner(hook, settings.hook_timeout) if hook else None
        running = Running()
        ledger = Ledger(settings.max_log_bytes)
        quota = Quota(settings.client_max_streams, settings.client_max_queued, settings.client_starts_per_minute)
        # anyio imports its parts at their first use, for which the first request of a file would have to wait.
        backend = _backend(settings, running, ledger, keys, upstreams.servers)
        async with await anyio.open_file(os.devnull), upstreams, backend as (logs, queue, peers):
            metrics = Metrics(queue, logs, running, ledger)
            streams = Streams(
                upstreams=upstreams,
                logs=logs,
                queue=queue,
                running=running,
                ledger=ledger,
                peers=peers,
                quotas=Quotas(quota, running, queue),
                limits=Limits(
                    settings.first_token_timeout,
                    settings.idle_timeout,
                    settings.total_timeout,
                    settings.unwatched_grace,
                    settings.reconnect_seconds,
                ),
                attach_timeout=settings.attach_timeout,
                max_resume_window=settings.max_resume_window,
                observers=[Pulse(settings.status_interval), metrics, Journal()],
            )
            models = Models(upstreams)
            yield {
                "asks": Asks(Bounds(settings.max_messages, settings.max_images)),
                "keys": keys,
                "streams": streams,
                "models": models,
                "shaper": Shaper(_rules(settings), models, lambda: _read_presets(settings), runner),
                "readiness": Readiness(upstreams, streams),
                "metrics": metrics,
                "ping_interval": settings.ping_interval,
                "allow_preview": settings.allow_preview,
                "openapi": orjson.dumps(document(ROUTES)),
            }
            await streams.drain(0)
        if runner is not None:
            runner.close()

    app = Gateway(
        routes=ROUTES,
        middleware=[
            Middleware(Access),
            Middleware(
                Guard,
                allowed_hosts=settings.allowed_hosts,
                cors_origins=settings.cors_origins,
                max_head_bytes=settings.max_head_bytes,
                max_body_bytes=settings.max_body_bytes,
            ),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_origin_regex=LOCALHOST_ORIGIN,
                allow_credentials=True,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "User-Agent"],
                expose_headers=["Content-Location", "Location", "Retry-After", "X-Request-Id"],
            ),
            Middleware(Authentication, keys=keys),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would name the host and the scheme that a proxy hides
    return app


def _upstreams(settings: Settings) -> Upstreams:
    return Upstreams(
        [
            OllamaClient(
                url=url,
                setting=f"number {number} of GATEWAY_OLLAMA_URLS" if settings.ollama_urls else "GATEWAY_OLLAMA_URL",
                connect_timeout=settings.connect_timeout,
                query_timeout=QUERY_TIMEOUT,
                max_line=settings.max_line_bytes,
            )
            for number, url in enumerate(settings.upstreams, 1)
        ]
    )


@asynccontextmanager
async def _backend(
    settings: Settings, running: Running, ledger: Ledger, keys: Keys, servers: Sequence[OllamaServer]
) -> AsyncIterator[tuple[LogStore, Queue, Peers | None]]:
    """Logs and queue: of this process alone, or those that all replicas share, with the logouts of `keys`."""
    shelf: Shelf[Any] = Shelf(
        ledger, max_stream_bytes=settings.max_stream_bytes, retain_seconds=settings.retain_seconds
    )
    rules = QueueRules(settings.max_active, settings.swap_patience, settings.num_parallel)
    if settings.redis_url:
        from gateway.replicas.logouts import SharedLogouts
        from gateway.replicas.logs import RedisLogs
        from gateway.replicas.queue import SharedQueue
        from gateway.replicas.replica import Replica

        replica = Replica(settings.redis_url, settings.redis_prefix)
        logs = RedisLogs(replica, shelf, running)
        queue = SharedQueue(replica, rules, settings.max_queued, servers)
        keys.listeners.append(SharedLogouts(replica, keys.logouts).tell)
        async with replica, logs, queue:
            yield logs, queue, logs
    else:
        yield MemoryLogs(shelf), LocalQueue(rules, settings.max_queued, servers), None
    shelf.close()


def _rules(settings: Settings) -> Rules:
    return Rules(
        default_model=settings.default_model,
        default_preset=settings.default_preset,
        presets_only=settings.presets_only,
        permissions=frozenset({Kind.PULL.traits.permission or ""} if settings.allow_pull else ()),
        pull_hosts=settings.pull_hosts,
        truncate=settings.truncate,
        hook_headers=settings.hook_headers,
        max_prompt_chars=settings.max_prompt_chars,
    )


def _read_presets(settings: Settings) -> dict[str, Preset]:
    try:
        presets = parse_presets(read_config(settings.config).get(PRESETS, {}))
    except PresetError as error:
        raise ConfigurationError(f"{settings.config}: {error}") from None
    if settings.default_preset not in (None, *presets):
        raise ConfigurationError(f'GATEWAY_DEFAULT_PRESET: there is no preset "{settings.default_preset}".')
    return presets


def _hook(settings: Settings) -> Hook | None:
    try:
        return find_hook(settings.hook) if settings.hook else None
    except HookError as error:
        raise ConfigurationError(f"GATEWAY_HOOK: {settings.hook}: {error}.") from error
