"""Shaping: from what the client asks to what Ollama is sent. Presets come first, the operator's hook last."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from gateway.asks.bodies import BODIES, as_sent, check_body, shown, to_json
from gateway.asks.bounds import check_prompt
from gateway.asks.hook_runner import FAILED, HookRunner
from gateway.asks.parsing import Ask
from gateway.asks.presets import Preset
from gateway.errors import InvalidRequest, ShapeFailed, TooLarge
from gateway.hooks import HookRequest
from gateway.jobs import Job, Json
from gateway.upstream.models import Models
from gateway.upstream.wire import DEFAULT_REGISTRY, model_key, registry_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's settings for requests.

    `permissions` names the settings that allow clients some kind of stream, `pull_hosts` the registries besides
    Ollama's own that models may be pulled from, and `hook_headers` the headers that the hook may see; the latter two
    are in lower case. `max_prompt_chars` bounds what Ollama is sent; 0 means no limit.
    """

    default_model: str | None = None
    default_preset: str | None = None
    presets_only: bool = False
    permissions: frozenset[str] = frozenset()
    pull_hosts: tuple[str, ...] = ()
    truncate: bool = True
    hook_headers: tuple[str, ...] = ()
    max_prompt_chars: int = 0


@dataclass(eq=False)
class Shaper:
    """Applies rules, presets and hook to every request.

    `read_presets` reads the configuration file. It raises an exception of one readable line when the file is broken.
    """

    rules: Rules
    models: Models
    read_presets: Callable[[], dict[str, Preset]]
    hook: HookRunner | None

    def __post_init__(self) -> None:
        self.presets = self.read_presets()

    def reload(self) -> None:
        """Read the presets once more. If the file is broken, the presets in force stay, and the log says why."""
        try:
            self.presets = self.read_presets()
        except Exception as error:  # whatever is wrong with the new file, the old presets work
            logger.error("the presets stay as they were: %s", error)
        else:
            logger.info("presets reloaded: %s", ", ".join(self.presets) or "none")

    async def shape(self, ask: Ask) -> Job:
        """The job that an ask becomes. Raises `InvalidRequest`, `TooLarge`, `Rejected` or `ShapeFailed`."""
        permission = ask.kind.traits.permission
        if permission is not None and permission not in self.rules.permissions:
            raise InvalidRequest(f"Clients may not ask for a {ask.kind} here ({permission}).", status=403)
        if not ask.kind.traits.generates:
            self._check_registry(ask.body["model"])
            return _job(ask, ask.body, to_json(ask.body))
        name = ask.preset or self.rules.default_preset
        preset = self._preset(name, ask)
        body = await self._with_model(preset.apply(ask) if preset else ask.body)
        if not self.rules.truncate and body.get("truncate") is None:
            body["truncate"] = False
        sent = await self._sent(body, preset)
        if self.hook is None:
            return _job(ask, body, sent, shaped=preset is not None)
        shaped = await self.hook(self._hook_request(ask, name, sent))
        try:
            body = _checked(ask, shaped)
            return _job(ask, body, await self._sent(body, preset), shaped=True)
        except (InvalidRequest, TooLarge) as error:
            logger.error("the hook returned a body that cannot be sent: %s", error)
            raise ShapeFailed(FAILED) from None

    def _check_registry(self, model: str) -> None:
        """Ollama asks whatever host a name begins with, and tells what it found there."""
        registry = registry_of(model)
        if registry not in (DEFAULT_REGISTRY, *self.rules.pull_hosts):
            raise InvalidRequest(f"No model may be pulled from {registry} here (GATEWAY_PULL_HOSTS).", status=403)

    def _preset(self, name: str | None, ask: Ask) -> Preset | None:
        if name is None:
            if self.rules.presets_only:
                raise InvalidRequest("preset: is missing. The gateway takes no request without a preset.")
            for variable in ask.variables:
                raise InvalidRequest(f"variables.{shown(variable)}: needs a preset, and the request names none.")
            return None
        preset = self.presets.get(name)
        if preset is None:
            raise InvalidRequest(f"preset: there is no preset called {shown(name)}.")
        return preset

    async def _with_model(self, body: Json) -> Json:
        """The body with a model, which stands first."""
        model = body.get("model") or self.rules.default_model or await self.models.first()
        if not model:
            raise InvalidRequest("model: is missing, and Ollama has no model installed to use by default.")
        return {"model": model} | {field: value for field, value in body.items() if field != "model"}

    async def _sent(self, body: Json, preset: Preset | None) -> bytes:
        """The body as Ollama is sent it. Raises `TooLarge`."""
        sent = to_json(body)
        if 0 < self.rules.max_prompt_chars < len(sent):  # no text is longer than its JSON
            await asyncio.sleep(0)  # counting may take as long as reading did: others come first
            check_prompt(body, self.rules.max_prompt_chars, preset.own_chars() if preset else None)
        return sent

    def _hook_request(self, ask: Ask, preset: str | None, sent: bytes) -> HookRequest:
        """What the hook is given: its own copy of the body. Raises `InvalidRequest` for what it could not check."""
        if ask.body.get("context"):
            raise InvalidRequest("context: is not taken here, because the gateway's hook cannot read tokens.")
        headers: dict[str, str] = {}
        for name, value in ask.caller.headers.items():
            if name in self.rules.hook_headers:
                if name in headers:  # a client's own beside that of a proxy: the hook would see one of them
                    raise InvalidRequest(f"{name}: is given more than once in the head.", status=400)
                headers[name] = value
        return HookRequest(ask.kind, orjson.loads(sent), preset, ask.variables, ask.caller.address, headers)


def _checked(ask: Ask, shaped: object) -> Json:
    """What the hook returned, as Ollama is sent it. Raises `InvalidRequest`."""
    if not isinstance(shaped, dict):
        raise InvalidRequest("It is not a dictionary.")
    check_body(ask.kind, shaped)
    if not shaped.get("model"):
        raise InvalidRequest("model: is missing.")
    # Without the fields that only the client knows of: one may tell Ollama to show the prompt.
    known = BODIES[ask.kind].model_fields
    body = as_sent(ask.kind, shaped)
    return {name: value for name, value in body.items() if name in known or name not in ask.body}


def _job(ask: Ask, body: Json, sent: bytes, *, shaped: bool = False) -> Job:
    caller = ask.caller
    model, request = body["model"], (caller.identity, caller.request_id, ask.resume_window)
    return Job(
        ask.kind, model, sent, *request, shaped, model_key(model, body), *_conversation(body.get("messages") or ())
    )


def _conversation(messages: Sequence[Json]) -> tuple[int, int]:
    """What stands for all messages, and for those that the last answer in them was given to."""
    whole = beginning = 0
    for message in messages:
        if message["role"] == "assistant":
            beginning = whole
        images = [(len(each), each[-64:]) for each in message.get("images") or ()]  # all of it would take milliseconds
        whole = hash((whole, message["role"], message.get("content"), repr(images), repr(message.get("tool_calls"))))
    return whole, beginning
