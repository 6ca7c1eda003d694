"""The bundled page and its files, and the contract for programs."""

import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.state import GatewayRequest

PACKAGE = Path(__file__).parent.parent
STATIC = next(path for path in (PACKAGE / "static", PACKAGE.parent / "static") if path.is_dir())
"""Beside the code in an installed wheel, at the top of a checkout."""

REVALIDATE = {"Cache-Control": "no-cache"}
"""Without this a browser may show yesterday's page after an upgrade."""

mimetypes.init()  # reads files, which the first request would otherwise do in the event loop
mimetypes.add_type("text/typescript", ".ts")  # else it is a video


class Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(REVALIDATE)
        return response


FILES = Files(directory=STATIC)


async def index(request: Request) -> FileResponse:
    """The page."""
    return FileResponse(STATIC / "index.html", headers=REVALIDATE)


async def client(request: Request) -> Response:
    """The client for any frontend, as an ES module."""
    return await FILES.get_response("client.js", request.scope)


async def client_types(request: Request) -> Response:
    """Its types and documentation, for TypeScript."""
    return await FILES.get_response("client.d.ts", request.scope)


async def openapi(request: GatewayRequest) -> Response:
    """This document."""
    return Response(request.state["openapi"], media_type="application/json", headers=REVALIDATE)
