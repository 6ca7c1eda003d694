"""The installed models: what a picker shows, and which one is asked when a request names none."""

import asyncio
from typing import TypedDict

from gateway.errors import GatewayError
from gateway.ollama import Json, Ollama
from gateway.upstreams import Upstreams

SHOW_AT_ONCE = 8


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
    """The models of all Ollama servers. Details of one are asked for once: they belong to its digest."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._details: dict[str, Json] = {}
        self._show = asyncio.Semaphore(SHOW_AT_ONCE)

    async def all(self) -> list[Model]:
        """Newest first, as Ollama lists them. Raises `UpstreamError`."""
        found, loaded = await asyncio.gather(self._upstreams.tags(), self._loaded())
        details = await asyncio.gather(*(self._detail(*each) for each in found))
        tags = [tag for _, tag in found]
        self._details = {_digest(tag): detail for tag, detail in zip(tags, details, strict=True) if detail}
        return [_model(*each, loaded) for each in zip(tags, details, strict=True)]

    async def first(self) -> str | None:
        """The first installed model that can answer."""
        for _, tag in await self._upstreams.tags():
            if "completion" in tag.get("capabilities", ["completion"]):
                return str(tag["name"])
        return None

    async def _loaded(self) -> dict[str, Json]:
        try:
            return {model["name"]: model for model in await self._upstreams.ps()}
        except GatewayError:  # a model list without marks is better than none
            return {}

    async def _detail(self, ollama: Ollama, tag: Json) -> Json:
        """Capabilities and context length, which `/api/tags` knows of some models only."""
        if _digest(tag) not in self._details:
            async with self._show:
                try:
                    return await ollama.show(tag["name"])
                except GatewayError:  # deleted meanwhile, or broken: the others are still worth a list
                    return {}
        return self._details[_digest(tag)]


def _digest(tag: Json) -> str:
    return str(tag.get("digest") or tag["name"])


def _model(tag: Json, detail: Json, loaded: dict[str, Json]) -> Model:
    details = tag.get("details") or {}
    info = detail.get("model_info") or {}
    running = loaded.get(tag["name"])
    return {
        "name": tag["name"],
        "size": tag.get("size", 0),
        "parameters": details.get("parameter_size", ""),
        "quantization": details.get("quantization_level", ""),
        "context_length": details.get("context_length")
        or info.get(f"{info.get('general.architecture')}.context_length"),
        "loaded_context_length": running.get("context_length") if running else None,
        "capabilities": detail.get("capabilities") or tag.get("capabilities") or [],
        "loaded": running is not None,
        "modified_at": tag.get("modified_at", ""),
    }
