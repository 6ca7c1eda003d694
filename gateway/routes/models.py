"""What models there are."""

from starlette.responses import JSONResponse

from gateway.state import GatewayRequest


async def models(request: GatewayRequest) -> JSONResponse:
    """The installed models, which one is the default, and whether more may be pulled."""
    state = request.state
    rules = state["shaper"].rules
    return JSONResponse(
        {
            "models": await state["models"].all(),
            "default": rules.default_model,
            "allow_pull": rules.allow_pull,
        }
    )
