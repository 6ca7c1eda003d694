"""What Ollama's own clients ask besides for streams: which models there are, what runs, and which version.

Several servers look like one. Each preset is listed as a model, `preset/NAME`, which tells nothing that it sets.
"""

from starlette.responses import Response

from gateway.asks.bodies import ShowBody, check_shape
from gateway.asks.parsing import PRESET_MODEL, json_object, preset_named
from gateway.asks.presets import Preset
from gateway.dialects import ollama
from gateway.errors import InvalidRequest, ModelNotFound, OllamaUnreachable
from gateway.jobs import Json
from gateway.upstream.servers import Upstreams
from gateway.upstream.wire import normal_name, without_paths
from gateway.web.state import GatewayRequest, body_of

_SHOWN = ("details", "model_info", "capabilities", "modified_at")
"""What is shown of a preset's model: not its own template, system prompt or parameters either."""

_UNKNOWN: Json = {
    "modified_at": "0001-01-01T00:00:00Z",
    "size": 0,
    "digest": "0" * 64,  # the command line shows the first twelve characters, and fails if there are fewer
    "details": {
        **dict.fromkeys(("parent_model", "format", "family"), ""),
        "families": None,
        **dict.fromkeys(("parameter_size", "quantization_level"), ""),
    },
}
"""What is listed of a preset whose model is not installed."""


async def root(request: GatewayRequest) -> Response:
    """What Ollama says at its root, by which its command line sees that it is there."""
    return Response("Ollama is running", media_type="text/plain")


async def version(request: GatewayRequest) -> Response:
    """The version of the first server that answers."""
    servers = await _upstreams(request).check()
    for server in servers:
        if server["version"] is not None:
            return _json({"version": server["version"]})
    raise OllamaUnreachable(str(servers[0]["problem"]))


async def tags(request: GatewayRequest) -> Response:
    """The models that can be asked for: those installed on any server, unless only presets may be, and the presets."""
    shaper = request.state["shaper"]
    installed = [tag for _, tag in await _upstreams(request).tags()]
    by_name = {normal_name(tag["name"]): tag for tag in installed}
    listed = [] if shaper.rules.presets_only else installed
    for name, preset in shaper.presets.items():
        model = preset.model or shaper.rules.default_model or ""
        own = {"name": PRESET_MODEL + name, "model": PRESET_MODEL + name}
        listed.append(own | _UNKNOWN | by_name.get(normal_name(model), {}) | own)
    return _json({"models": listed})


async def ps(request: GatewayRequest) -> Response:
    """The models that are loaded on any server."""
    upstreams = _upstreams(request)
    return _json({"models": await upstreams.answers.get("ps", upstreams.ps)})


async def show(request: GatewayRequest) -> Response:
    """One model, as the server has it that would be asked."""
    shaper = request.state["shaper"]
    async with body_of(request) as content:
        asked = check_shape(ShowBody, json_object(content))
    model = asked.model or asked.name
    if not model:
        raise InvalidRequest("model is required", status=400)
    name = preset_named(model)
    if name not in shaper.presets if name else shaper.rules.presets_only:
        raise ModelNotFound(f"model '{model}' not found")
    if name is None:
        return _json(without_paths(await _show(request, model)))
    shown = await _show(request, await _model_of(request, shaper.presets[name]))
    return _json({field: shown[field] for field in _SHOWN if field in shown})


async def refuse(request: GatewayRequest) -> Response:
    """What changes the models of Ollama."""
    raise InvalidRequest("The gateway does not manage models: ask Ollama itself.", status=403)


def _upstreams(request: GatewayRequest) -> Upstreams:
    return request.state["streams"].upstreams


async def _show(request: GatewayRequest, model: str) -> Json:
    upstreams = _upstreams(request)

    async def ask() -> Json:
        return await upstreams.ask(model, lambda server: server.show(model))

    return await upstreams.answers.get(f"show {normal_name(model)}", ask)


async def _model_of(request: GatewayRequest, preset: Preset) -> str:
    return preset.model or request.state["shaper"].rules.default_model or await request.state["models"].first() or ""


def _json(value: Json) -> Response:
    return Response(ollama.written(value), headers={"Content-Type": ollama.JSON})
