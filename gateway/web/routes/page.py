"""The bundled page and its files, and the contract for programs."""

import mimetypes
import re
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.web.state import GatewayRequest

PACKAGE = Path(__file__).parent.parent.parent
STATIC = next(path for path in (PACKAGE / "static", PACKAGE.parent / "static") if path.is_dir())
"""It stands beside the code in an installed wheel, and at the top of a checkout."""

REVALIDATE = {"Cache-Control": "no-cache"}  # otherwise a browser may show yesterday's page after an upgrade

mimetypes.init()  # it reads files, which the first request would otherwise do in the event loop
mimetypes.add_type("text/typescript", ".ts")  # otherwise it would be a video


# What stands at the beginning of a line, up to the code behind it: a quarter of the page's compressed bytes.
_COMMENT = re.compile(rb"^[ \t]*(?://[^\n]*|/\*.*?\*/[ \t]*)", re.MULTILINE | re.DOTALL)
_COMMENTED = (".js", ".css")


class Files(StaticFiles):
    """The files as they are, revalidated."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(REVALIDATE)
        return response


class PageFiles(Files):
    """The page's files, scripts and styles without their comments. Lines keep their numbers."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if not (isinstance(response, FileResponse) and path.endswith(_COMMENTED)):
            return response
        content = await run_in_threadpool(Path(response.path).read_bytes)
        for name in ("content-length", "accept-ranges"):  # of the file as it is
            del response.headers[name]
        return Response(_COMMENT.sub(_line_ends, content), headers=response.headers)


def _line_ends(comment: re.Match[bytes]) -> bytes:
    return b"\n" * comment[0].count(b"\n")


FILES, PAGE_FILES = Files(directory=STATIC), PageFiles(directory=STATIC)


async def index(request: Request) -> FileResponse:
    """The page."""
    return FileResponse(STATIC / "index.html", headers=REVALIDATE)


async def client_module(request: Request) -> Response:
    """The client for any frontend, as an ES module."""
    return await FILES.get_response("client.js", request.scope)


async def client_types(request: Request) -> Response:
    """The client's types and documentation, for TypeScript."""
    return await FILES.get_response("client.d.ts", request.scope)


async def openapi(request: GatewayRequest) -> Response:
    """The OpenAPI document."""
    return Response(request.state["openapi"], media_type="application/json", headers=REVALIDATE)
