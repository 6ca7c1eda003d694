"""The table of routes: each path and its handler."""

from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route

from gateway.jobs import STREAMS_PATH, Kind
from gateway.web.dialect import OLLAMA
from gateway.web.routes import choices, health, ollama, page, session, streams
from gateway.web.security import SESSION_PATH

_COMPRESSED = [Middleware(GZipMiddleware)]

ROUTES = [
    *(
        Route(kind.traits.route, handler, methods=["GET", "POST"])
        for kind, handler in {Kind.CHAT: streams.chat, Kind.GENERATE: streams.generate}.items()
        if kind.traits.route
    ),
    *(
        Route(OLLAMA + kind.traits.path, handler, methods=["POST"])
        for kind, handler in {
            Kind.CHAT: streams.chat,
            Kind.GENERATE: streams.generate,
            Kind.EMBED: streams.embed,
            Kind.EMBEDDINGS: streams.embeddings,
            Kind.PULL: streams.pull,
        }.items()
    ),
    Route(OLLAMA + "/", ollama.root),
    Route(OLLAMA + "/api/version", ollama.version),
    Route(OLLAMA + "/api/tags", ollama.tags),
    Route(OLLAMA + "/api/ps", ollama.ps),
    Route(OLLAMA + "/api/show", ollama.show, methods=["POST"]),
    *(Route(f"{OLLAMA}/api/{name}", ollama.refuse, methods=["POST"]) for name in ("create", "copy", "push")),
    Route(OLLAMA + "/api/delete", ollama.refuse, methods=["DELETE"]),
    Route(OLLAMA + "/api/blobs/{digest}", ollama.refuse, methods=["HEAD", "POST"]),
    Route(STREAMS_PATH, streams.create, methods=["POST"]),
    Route(STREAMS_PATH + "/{sid}", streams.read, methods=["GET"]),
    Route(STREAMS_PATH + "/{sid}", streams.stop, methods=["DELETE"]),
    Route("/api/models", choices.models),
    Route("/api/presets", choices.presets),
    Route("/api/preview", choices.preview, methods=["POST"]),
    Route(SESSION_PATH, session.create, methods=["POST"]),
    Route(SESSION_PATH, session.delete, methods=["DELETE"]),
    Route("/healthz", health.healthz),
    Route("/readyz", health.readyz),
    Route("/metrics", health.metrics),
    Route("/openapi.json", page.openapi),
    Route("/client.js", page.client_module, middleware=_COMPRESSED),
    Route("/client.d.ts", page.client_types, middleware=_COMPRESSED),
    Route("/", page.index),
    Mount("/static", page.PAGE_FILES, middleware=_COMPRESSED),
]
