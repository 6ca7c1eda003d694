"""The composition root: what a gateway is made of, its routes and its lifespan."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from gateway.admission import Admission, LocalAdmission
from gateway.health import Readiness
from gateway.hooks import Hook, HookError, HookRunner, find_hook
from gateway.journal import Access, Journal
from gateway.logs import LogStore
from gateway.logs.memory import MemoryLogs
from gateway.metrics import Metrics
from gateway.models import Models
from gateway.ollama import Ollama
from gateway.openapi import document
from gateway.presets import Preset, PresetError, parse_presets
from gateway.pulse import Pulse
from gateway.quotas import Quota, Quotas
from gateway.relay import Limits
from gateway.requests import Bounds
from gateway.responses import HANDLERS
from gateway.routes import health, models, page, presets, session, streams
from gateway.security import LOCALHOST_ORIGIN, SESSION_PATH, Authentication, Guard, Keys
from gateway.settings import PRESETS, ConfigurationError, Settings, read_config
from gateway.shaping import Rules, Shaper
from gateway.state import GatewayState
from gateway.streams import Streams
from gateway.upstreams import Upstreams

QUERY_TIMEOUT = 5.0
"""Seconds for the short questions to Ollama: models, readiness."""

METHODS = ["GET", "POST"]
COMPRESSED = [Middleware(GZipMiddleware)]

ROUTES = [
    Route("/api/chat", streams.chat, methods=METHODS),
    Route("/api/generate", streams.generate, methods=METHODS),
    Route("/api/streams", streams.create, methods=["POST"]),
    Route("/api/streams/{sid}", streams.read, methods=["GET"]),
    Route("/api/streams/{sid}", streams.stop, methods=["DELETE"]),
    Route("/api/models", models.models),
    Route("/api/presets", presets.presets),
    Route("/api/preview", presets.preview, methods=["POST"]),
    Route(SESSION_PATH, session.create, methods=["POST"]),
    Route(SESSION_PATH, session.delete, methods=["DELETE"]),
    Route("/healthz", health.healthz),
    Route("/readyz", health.readyz),
    Route("/metrics", health.metrics),
    Route("/openapi.json", page.openapi),
    Route("/client.js", page.client, middleware=COMPRESSED),
    Route("/client.d.ts", page.client_types, middleware=COMPRESSED),
    Route("/", page.index),
    Mount("/static", page.FILES, middleware=COMPRESSED),
]


class Gateway(Starlette):
    """An app whose requests know how the server itself sends: `scope["send"]` is for the body of a stream.

    Middlewares only have to do with how a response begins, and going through all of them is a good part of what a
    token costs.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["send"] = send
        await super().__call__(scope, receive, send)


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
        async with upstreams, _backend(settings) as (logs, admission, serve):
            metrics = Metrics(admission, logs)
            quotas = Quotas(
                Quota(settings.client_max_streams, settings.client_max_queued, settings.client_starts_per_minute)
            )
            streams = Streams(
                upstreams,
                logs,
                admission,
                Pulse(settings.status_interval),
                limits=Limits(settings.first_token_timeout, settings.idle_timeout, settings.total_timeout),
                attach_timeout=settings.attach_timeout,
                max_resume_window=settings.max_resume_window,
                observers=[metrics, quotas, Journal()],
            )
            metrics.watch(streams)
            serve(streams)
            models = Models(upstreams)
            yield {
                "bounds": Bounds(settings.max_messages, settings.max_images, settings.max_prompt_chars),
                "keys": keys,
                "quotas": quotas,
                "streams": streams,
                "models": models,
                "shaper": Shaper(_rules(settings), models, lambda: _read_presets(settings), runner),
                "readiness": Readiness(upstreams, streams),
                "metrics": metrics,
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
                allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
                expose_headers=["Location", "Retry-After", "X-Request-Id"],
            ),
            Middleware(Authentication, keys=keys),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would name the host and scheme that a proxy has hidden
    return app


def _upstreams(settings: Settings) -> Upstreams:
    return Upstreams(
        [
            Ollama(
                url,
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
    settings: Settings,
) -> AsyncIterator[tuple[LogStore, Admission, Callable[[Streams], None]]]:
    """Logs and queue, of this process or shared; the last makes streams known to those who share them."""
    bounds: dict[str, Any] = {
        "max_stream_bytes": settings.max_stream_bytes,
        "max_log_bytes": settings.max_log_bytes,
        "retain_seconds": settings.retain_seconds,
        "idle_seconds": settings.ping_interval,
    }
    places = {"max_active": settings.max_active, "max_queued": settings.max_queued}
    if not settings.redis_url:
        memory = MemoryLogs(**bounds)
        yield memory, LocalAdmission(**places), lambda _: None
        memory.close()
        return
    from gateway.logs.redis import RedisLogs
    from gateway.replicas import Replica
    from gateway.shared_admission import SharedAdmission

    replica = Replica(settings.redis_url)
    logs = RedisLogs(replica, **bounds)
    admission = SharedAdmission(replica, **places)
    async with replica, logs, admission:
        yield logs, admission, logs.serve


def _rules(settings: Settings) -> Rules:
    return Rules(
        default_model=settings.default_model,
        default_preset=settings.default_preset,
        presets_only=settings.presets_only,
        allow_pull=settings.allow_pull,
        truncate=settings.truncate,
        hook_headers=tuple(name.lower() for name in settings.hook_headers),
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
