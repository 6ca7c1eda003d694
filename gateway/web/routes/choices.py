"""What a client can choose from: models and presets, and what a request becomes under a preset."""

from starlette.responses import JSONResponse, Response

from gateway.errors import NotFound
from gateway.jobs import Kind
from gateway.upstream.models import listed_name
from gateway.web.state import GatewayRequest, body_of, caller


async def models(request: GatewayRequest) -> JSONResponse:
    """The installed models, the default one, and whether more may be pulled."""
    found, rules = await request.state["models"].all(), request.state["shaper"].rules
    allow_pull = Kind.PULL.traits.permission in rules.permissions
    default = listed_name(rules.default_model, found)
    return JSONResponse({"models": found, "default": default, "allow_pull": allow_pull})


async def presets(request: GatewayRequest) -> JSONResponse:
    """Names, descriptions and variables. Never a system prompt or a template."""
    shaper = request.state["shaper"]
    listed = [
        {
            "name": name,
            "description": preset.description,
            "variables": [{"name": variable, **its.model_dump()} for variable, its in preset.variables.items()],
            "overrides": preset.overrides,
        }
        for name, preset in shaper.presets.items()
    ]
    rules = shaper.rules
    return JSONResponse({"presets": listed, "default": rules.default_preset, "only": rules.presets_only})


async def preview(request: GatewayRequest) -> Response:
    """The exact body that Ollama would be sent for a `POST /api/streams`."""
    if not request.state["allow_preview"]:
        raise NotFound("Previews are off here (GATEWAY_ALLOW_PREVIEW).")
    async with body_of(request) as content:
        job = await request.state["shaper"].shape(request.state["asks"].for_stream(content, caller(request)))
    return Response(job.body, headers={"Content-Type": "application/json", "Cache-Control": "no-store"})
