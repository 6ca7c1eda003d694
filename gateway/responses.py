"""Errors as responses: the one place where an exception becomes a status and a body."""

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from gateway.errors import GatewayError, InternalError, InvalidRequest, MethodNotAllowed, NotFound
from gateway.sse import error_response, is_event_source

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer has, unless it says otherwise."""

REAL_STATUSES = (401, 403)
"""Statuses that stay what they are even for `EventSource`: who may not ask is told nothing more."""


def error_json(error: GatewayError, headers: dict[str, str] | None = None) -> Response:
    """An error as a real status with a JSON body."""
    headers = dict(headers or {})
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse(error.payload(), status_code=error.status, headers=headers)


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    if is_event_source(request) and error.status not in REAL_STATUSES:
        return error_response(error)
    return error_json(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: an unknown path, a method that is not allowed."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            return error_json(NotFound("There is nothing here."), headers)
        case 405:
            allowed = ", ".join(_methods(request)) or headers.get("Allow", "")
            return error_json(MethodNotAllowed(f"Allowed here: {allowed}."), headers | {"Allow": allowed})
        case status:
            return error_json(InvalidRequest(error.detail, status=status), headers)


def _methods(request: Request) -> list[str]:
    """What this path allows: Starlette names only what the first of several routes does."""
    path = request.scope["path"]
    routes = [route for route in request.app.routes if isinstance(route, Route) and route.path_regex.match(path)]
    return sorted({method for route in routes for method in route.methods or ()})


async def _crash(request: Request, error: Exception) -> Response:
    """A fault of ours. The traceback goes to the log, nothing of it to the client."""
    # Starlette answers this outside of all middleware
    headers = SECURITY_HEADERS | {"X-Request-Id": request.scope["request_id"]}
    return error_json(InternalError("The gateway failed. Its log has the details."), headers)


async def _gone(request: Request, error: Exception) -> Response:
    """The client left while it was still sending: nobody reads this, but it is not a crash."""
    return Response(status_code=499)


HANDLERS: dict[int | type[Exception], ExceptionHandler] = {
    GatewayError: _gateway_error,
    HTTPException: _http_error,
    ClientDisconnect: _gone,
    Exception: _crash,
}
