"""Sessions for the page, which exchanges its key for a cookie that no script can read."""

from starlette.responses import Response

from gateway.errors import Unauthorized
from gateway.web.keys import SESSION_COOKIE, SESSION_SECONDS, bearer
from gateway.web.state import GatewayRequest


async def create(request: GatewayRequest) -> Response:
    """Exchange the request's key for a cookie. A gateway without keys sets none."""
    keys, name = request.state["keys"], request.scope["key"]
    if keys and (name is None or bearer(request.headers) is None):  # a session could be renewed for ever
        raise Unauthorized("This API key is not known.")
    response = Response(status_code=204)
    if name is not None:
        response.set_cookie(
            SESSION_COOKIE,
            keys.session(name),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            # The proxy in front may not be trusted to tell. The gateway's own page is, by its origin.
            secure=request.url.scheme == "https" or request.headers.get("origin") == f"https://{request.url.netloc}",
        )
    return response


async def delete(request: GatewayRequest) -> Response:
    """End all sessions of the request's key, in every browser, and delete the cookie."""
    keys = request.state["keys"]
    for name in set(keys.holders(request.headers)):  # of all cookies: a planted one must not keep the right one alive
        keys.end_sessions(name)
    response = Response(status_code=204)
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
    return response
