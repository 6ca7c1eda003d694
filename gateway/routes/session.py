"""A session for the page: a key, once, for a cookie that no script can read."""

from starlette.responses import Response

from gateway.errors import Unauthorized
from gateway.security import SESSION_COOKIE
from gateway.state import GatewayRequest

SESSION_SECONDS = 30 * 24 * 3600


async def create(request: GatewayRequest) -> Response:
    """Turn the key that the request brings into a cookie. Without keys there is nothing to turn."""
    keys, name = request.state["keys"], request.scope["key"]
    if keys and name is None:
        raise Unauthorized("This is not a key of the gateway.")
    response = Response(status_code=204)
    if name is not None:
        response.set_cookie(
            SESSION_COOKIE,
            keys.session(name),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
    return response


async def delete(request: GatewayRequest) -> Response:
    """Forget the session."""
    response = Response(status_code=204)
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
    return response
