"""What models there are."""

from starlette.responses import JSONResponse

from gateway.state import GatewayRequest


async def models(request: GatewayRequest) -> JSONResponse:
    """The installed models, which one is the default, and whether more may be pulled."""
    state = request.state
    return JSONResponse(
        {
            "models": await state["models"].all(),
            "default": state["shaper"].default_model,
            "allow_pull": state["allow_pull"],
        }
    )
