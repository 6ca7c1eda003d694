"""The installed models: what a picker shows, and which one answers a request that names none."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from gateway.errors import GatewayError
from gateway.jobs import Json
from gateway.upstream.client import OllamaClient
from gateway.upstream.servers import Upstreams
from gateway.upstream.wire import context_length, normal_name, weights


class Model(TypedDict):
    """`size` is in bytes; `context_length` is the model's own limit, `loaded_context_length` what it runs with now."""

    name: str
    size: int
    parameters: str
    quantization: str
    context_length: int | None
    loaded_context_length: int | None
    capabilities: list[str]
    loaded: bool
    modified_at: str


class Models:
    """The models of all Ollama servers. A model's details are asked for once and kept by its digest."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._details: dict[str, _Detail] = {}

    async def all(self) -> list[Model]:
        """Newest first, as Ollama lists them. Raises `UpstreamError`."""
        return await self._upstreams.answers.get("models", self._all)

    async def _all(self) -> list[Model]:
        found, loaded = await asyncio.gather(self._upstreams.tags(), self._loaded())
        details = await asyncio.gather(*(self._detail(*each) for each in found))
        tags = [tag for _, tag in found]
        self._details = {_digest(tag): detail for tag, detail in zip(tags, details, strict=True) if detail.known}
        names = [normal_name(tag["name"]) for tag in tags]
        # Ollama lists a model that is loaded by the name that loaded it: others may have the same weights.
        runners = {each.weights: loaded[name] for name, each in zip(names, details, strict=True) if name in loaded}
        running = [
            loaded.get(name) or runners.get(each.weights or name) for name, each in zip(names, details, strict=True)
        ]
        return [_model(*each) for each in zip(tags, details, running, strict=True)]

    async def first(self) -> str | None:
        """The first installed model that can answer."""
        for _, tag in await self._upstreams.tags():
            if "completion" in (tag.get("capabilities") or ["completion"]):
                return str(tag["name"])
        return None

    async def _loaded(self) -> dict[str, Json]:
        try:
            return {normal_name(model["name"]): model for model in await self._upstreams.ps()}
        except GatewayError:  # a list without `loaded` marks is better than none
            return {}

    async def _detail(self, client: OllamaClient, tag: Json) -> "_Detail":
        if _digest(tag) not in self._details:
            try:
                shown = await client.show(tag["name"])
            except GatewayError:  # the model was deleted meanwhile or is broken: list it without details
                return _Detail()
            return _Detail(shown.get("capabilities") or [], context_length(shown), weights(shown), known=True)
        return self._details[_digest(tag)]


@dataclass(frozen=True, slots=True)
class _Detail:
    """What is kept of the answer of `/api/show`, which may be megabytes: `/api/tags` has it for some models only."""

    capabilities: Sequence[str] = ()
    context_length: int | None = None
    weights: str | None = None
    known: bool = False


def listed_name(name: str | None, models: list[Model]) -> str | None:
    """The name under which a list has a model that is called `name` somewhere; `name` itself if it is not listed."""
    wanted = normal_name(name or "")
    return next((model["name"] for model in models if normal_name(model["name"]) == wanted), name)


def _digest(tag: Json) -> str:
    return str(tag.get("digest") or tag["name"])


def _model(tag: Json, detail: _Detail, running: Json | None) -> Model:
    details = tag.get("details") or {}
    return {
        "name": tag["name"],
        "size": tag.get("size") or 0,
        "parameters": details.get("parameter_size") or "",
        "quantization": details.get("quantization_level") or "",
        "context_length": details.get("context_length") or detail.context_length,
        "loaded_context_length": running.get("context_length") if running else None,
        "capabilities": list(detail.capabilities) or tag.get("capabilities") or [],
        "loaded": running is not None,
        "modified_at": tag.get("modified_at") or "",
    }
