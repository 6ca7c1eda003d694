"""What presets there are, and what a request with one becomes."""

from starlette.responses import JSONResponse, Response

from gateway.errors import NotFound
from gateway.requests import ask_for_stream, check_bounds
from gateway.state import GatewayRequest, client


async def presets(request: GatewayRequest) -> JSONResponse:
    """Names, descriptions and variables. Never a system prompt or a template."""
    shaper = request.state["shaper"]
    return JSONResponse(
        {
            "presets": [
                {
                    "name": name,
                    "description": preset.description,
                    "variables": [{"name": variable, **its.model_dump()} for variable, its in preset.variables.items()],
                    "overrides": preset.overrides,
                }
                for name, preset in shaper.presets.items()
            ],
            "default": shaper.rules.default_preset,
            "only": shaper.rules.presets_only,
        }
    )


async def preview(request: GatewayRequest) -> Response:
    """The exact body that Ollama would be sent for a `POST /api/streams`."""
    if not request.state["allow_preview"]:
        raise NotFound("Previews are off here (GATEWAY_ALLOW_PREVIEW).")
    ask = ask_for_stream(await request.body())
    check_bounds(ask.body, request.state["bounds"])
    job = await request.state["shaper"].shape(ask, client(request))
    return Response(job.body, headers={"Content-Type": "application/json", "Cache-Control": "no-store"})
