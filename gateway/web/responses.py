"""Errors as responses: the one place where an exception becomes a status and a body, in the client's dialect."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler, Scope

from gateway.dialects import events, ollama
from gateway.errors import GatewayError, InternalError, InvalidRequest, MethodNotAllowed, NotFound, TooLarge
from gateway.web.dialect import speaks_ollama

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""The headers of every response that does not set them itself."""

UNBUFFERED = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
EVENT_STREAM = {"Content-Type": events.CONTENT_TYPE} | UNBUFFERED
REAL_STATUSES = (401, 403)  # even for `EventSource`: a client that may not ask is told nothing more


def is_event_source(request: Request[Any]) -> bool:
    """Whether the client behaves like `EventSource`: it reads no body but that of a 200, and returns when cut off."""
    accepts = events.CONTENT_TYPE in request.headers.get("accept", "")
    return request.method == "GET" and accepts and not speaks_ollama(request.scope)


def head_too_large(limit: int) -> TooLarge:
    """The error of a request whose line and headers are larger than `limit` bytes."""
    return TooLarge(f"The request line and headers are larger than {limit} bytes (GATEWAY_MAX_HEAD_BYTES).", status=431)


def error_json(error: GatewayError, headers: Mapping[str, str] = {}, scope: Scope | None = None) -> Response:
    """An error as a real status with a JSON body, which is Ollama's for a request that speaks its dialect."""
    headers = {**headers, **({} if error.retry_after is None else {"Retry-After": str(error.retry_after)})}
    if scope and speaks_ollama(scope):
        status = ollama.status_of(error.status)
        return Response(ollama.error(error.message), status, {**headers, "Content-Type": ollama.JSON})
    return JSONResponse(error.payload(), status_code=error.status, headers=headers)


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    if is_event_source(request) and error.status not in REAL_STATUSES:
        return Response(events.error(error.payload()), headers=EVENT_STREAM)
    return error_json(error, scope=request.scope)


async def _http_error(request: Request, error: Exception) -> Response:
    """An error of Starlette's own: an unknown path, or a method that is not allowed."""
    assert isinstance(error, HTTPException)
    headers = error.headers or {}
    match error.status_code:
        case 404:
            return error_json(NotFound("There is nothing at this path."), headers, request.scope)
        case 405:
            allowed = ", ".join(_methods(request)) or headers.get("Allow", "")
            error = MethodNotAllowed(f"This path allows {allowed}.")
            return error_json(error, {**headers, "Allow": allowed}, request.scope)
        case status:
            return error_json(InvalidRequest(error.detail, status=status), headers, request.scope)


def _methods(request: Request) -> list[str]:
    """The methods that this path allows: Starlette names only those of the first of several routes."""
    path = request.scope["path"]
    routes = [route for route in request.app.routes if isinstance(route, Route) and route.path_regex.match(path)]
    return sorted({method for route in routes for method in route.methods or ()})


async def _crash(request: Request, error: Exception) -> Response:
    """A fault of the gateway. The traceback goes to the log, and nothing of it to the client."""
    # Starlette sends this response outside of all middlewares, which would have set the headers
    headers = SECURITY_HEADERS | {"X-Request-Id": request.scope["request_id"]}
    return error_json(InternalError("The gateway failed. Its log has the details."), headers, request.scope)


async def _gone(request: Request, error: Exception) -> Response:
    """The client left while it was still sending. Nobody reads this response, but it is not a crash."""
    return Response(status_code=499)


HANDLERS: dict[int | type[Exception], ExceptionHandler] = {
    GatewayError: _gateway_error,
    HTTPException: _http_error,
    ClientDisconnect: _gone,
    Exception: _crash,
}
