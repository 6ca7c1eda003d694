"""Shaping: from what the client asks to what Ollama is sent. Presets first, the operator's hook last."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import InvalidRequest, ShapeFailed
from gateway.hooks import FAILED, HookRequest, HookRunner
from gateway.models import Models
from gateway.presets import Preset
from gateway.relay import Job, Kind
from gateway.requests import Ask, Json, check_body

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: an address, and all request headers with lower-case names."""

    address: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's settings. `hook_headers` are lower-case names of headers that the hook may see."""

    default_model: str | None = None
    default_preset: str | None = None
    presets_only: bool = False
    allow_pull: bool = False
    truncate: bool = True
    hook_headers: tuple[str, ...] = ()


class Shaper:
    """Applies rules, presets and hook to every request.

    `read_presets` reads the configuration file, raising an exception of one readable line when it is broken.
    """

    def __init__(
        self,
        rules: Rules,
        models: Models,
        read_presets: Callable[[], dict[str, Preset]],
        hook: HookRunner | None,
    ) -> None:
        self.rules = rules
        self.presets = read_presets()
        self._models = models
        self._read_presets = read_presets
        self._hook = hook

    def reload(self) -> None:
        """Read the presets again; a broken file keeps those in force and says so."""
        try:
            self.presets = self._read_presets()
        except Exception as error:  # whatever is wrong with the new file: the old presets work
            logger.error("the presets stay as they were: %s", error)
        else:
            logger.info("presets reloaded: %s", ", ".join(self.presets) or "none")

    async def shape(self, ask: Ask, client: Client) -> Job:
        """The job that an ask becomes. Raises `InvalidRequest`, `Rejected` or `ShapeFailed`."""
        if ask.kind is Kind.PULL:
            return self._pull(ask)
        name = ask.preset or self.rules.default_preset
        body = self._apply_preset(name, ask)
        model = body.get("model") or self.rules.default_model or await self._models.first()
        if not model:
            raise InvalidRequest("model: is missing, and Ollama has none installed to fall back on.")
        body = {"model": model} | {field: value for field, value in body.items() if field != "model"}
        if not self.rules.truncate and body.get("truncate") is None:
            body["truncate"] = False
        content = _json(body)
        if self._hook is None:
            return Job(ask.kind, model, content)
        headers = {name: value for name, value in client.headers.items() if name in self.rules.hook_headers}
        return await self._call_hook(
            self._hook,
            HookRequest(ask.kind, orjson.loads(content), name, ask.variables, client.address, headers),
        )

    def _pull(self, ask: Ask) -> Job:
        if not self.rules.allow_pull:
            raise InvalidRequest("Pulling models is not allowed here (GATEWAY_ALLOW_PULL).", status=403)
        return Job(ask.kind, ask.body["model"], _json(ask.body))

    def _apply_preset(self, name: str | None, ask: Ask) -> Json:
        if name is None:
            if self.rules.presets_only:
                raise InvalidRequest("preset: is missing; only presets may be asked for here.")
            if ask.variables:
                raise InvalidRequest(f"variables.{next(iter(ask.variables))[:100]}: there is no preset to use it.")
            return ask.body
        preset = self.presets.get(name)
        if preset is None:
            raise InvalidRequest(f"preset: there is none called {name[:100]}.")
        return preset.apply(ask)

    async def _call_hook(self, hook: HookRunner, request: HookRequest) -> Job:
        kind = Kind(request.kind)
        body: Any = await hook(request)
        try:
            if not isinstance(body, dict):
                raise InvalidRequest("It is not a dictionary.")
            check_body(kind, body)
            if not body.get("model"):
                raise InvalidRequest("model: is missing.")
            content = _json({field: value for field, value in body.items() if field != "stream"})
        except InvalidRequest as error:
            logger.error("the hook returned a body that cannot be sent: %s", error)
            raise ShapeFailed(FAILED) from None
        return Job(kind, body["model"], content)


def _json(body: Json) -> bytes:
    try:
        return bytes(memoryview(orjson.dumps(body)))  # a copy: what orjson makes keeps the 4 KiB that it began with
    except orjson.JSONEncodeError as error:  # a client's body can be nested deeper than orjson writes
        raise InvalidRequest(f"The body cannot be written as JSON: {error}.") from None
