"""Presets: what an operator writes in the configuration file to decide what the model sees."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gateway.errors import InvalidRequest
from gateway.relay import Kind
from gateway.requests import Ask, ChatBody, Format, GenerateBody, Json, KeepAlive, Options, Think

ALWAYS_ALLOWED = frozenset({"messages", "prompt", "images"})
"""What a client brings to every preset: the conversation itself."""

OVERRIDABLE = (ChatBody.model_fields.keys() | GenerateBody.model_fields.keys()) - ALWAYS_ALLOWED

# `{{name}}` is the text `{name}`; braces around anything but a name, as in JSON, are just braces
_PLACEHOLDER = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")


class PresetError(Exception):
    """One line that names preset and field, and quotes nothing of their content."""


class Variable(BaseModel):
    """A value the client may give; without a `default` it must."""

    model_config = ConfigDict(extra="forbid")

    default: str | None = None
    description: str = ""


class Preset(BaseModel):
    """One `[presets.NAME]` table. `prompt` is the template that the newest user message is put into.

    `overrides` names what else the client may set: body fields, or single options as `options.NAME`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    description: str = ""
    model: str | None = Field(None, min_length=1)
    system: str | None = None
    prompt: str = "{prompt}"
    variables: dict[str, Variable] = {}
    options: Options | None = None
    format: Format | None = None
    think: Think | None = None
    keep_alive: KeepAlive | None = None
    overrides: tuple[str, ...] = ()

    @field_validator("variables", mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        """`lang = "French"` is short for `lang = { default = "French" }`."""
        if not isinstance(value, dict):
            return value
        return {name: {"default": each} if isinstance(each, str) else each for name, each in value.items()}

    @field_validator("overrides")
    @classmethod
    def _known_overrides(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in OVERRIDABLE and not name.startswith("options."):
                raise ValueError(f'"{name}" cannot be overridden; known are {", ".join(sorted(OVERRIDABLE))}')
        return value

    @model_validator(mode="after")
    def _known_placeholders(self) -> "Preset":
        for name in self.variables:
            if not re.fullmatch(r"[A-Za-z_]\w*", name) or name == "prompt":
                raise ValueError(f'variables: "{name}" is not a name a variable can have')
        for field, allowed in (("prompt", {"prompt", *self.variables}), ("system", set(self.variables))):
            used = _placeholders(getattr(self, field) or "")
            if unknown := sorted(used - allowed):
                raise ValueError(
                    f"{field}: {{{unknown[0]}}} is not a variable of this preset; for the text itself, write "
                    f"{{{{{unknown[0]}}}}}"
                )
        if "prompt" not in _placeholders(self.prompt):
            raise ValueError("prompt: must contain {prompt}, the place of what the user wrote")
        return self

    def apply(self, ask: Ask) -> Json:
        """The Ollama body that an ask with this preset becomes. Raises `InvalidRequest`."""
        values = self._values(ask.variables)
        body = {name: value for name, value in ask.body.items() if self._may_set(name, value)}
        own: Json = self.model_dump(include={"model", "format", "think", "keep_alive"}, exclude_none=True)
        if options := self._options(body.pop("options", None)):
            own["options"] = options
        body = own | body
        system = None if self.system is None else _fill(self.system, values)
        if ask.kind is Kind.CHAT:
            body["messages"] = self._messages(body.get("messages") or [], system, values)
        elif prompt := body.get("prompt"):
            body["prompt"] = _fill(self.prompt, values | {"prompt": prompt})
            if system is not None:
                body.setdefault("system", system)
        return body

    def _values(self, given: Mapping[str, str]) -> dict[str, str]:
        for name in given:
            if name not in self.variables:
                raise InvalidRequest(f"variables.{name[:100]}: is not a variable of this preset.")
        values = {}
        for name, variable in self.variables.items():
            value = given.get(name, variable.default)
            if value is None:
                raise InvalidRequest(f"variables.{name}: is missing.")
            values[name] = value
        return values

    def _may_set(self, name: str, value: object) -> bool:
        """Whether the client's field goes into the body. What says the same as the preset is no override."""
        if name == "options":
            for option, its_value in (value if isinstance(value, dict) else {}).items():
                if not self._allowed(f"options.{option}", "options") and self._option(option) != its_value:
                    raise self._refused(f"options.{option}")
        elif name not in ALWAYS_ALLOWED and not self._allowed(name):
            if value is not None and getattr(self, name, None) != value:
                raise self._refused(name)
            return False
        return True

    def _allowed(self, *names: str) -> bool:
        return any(name in self.overrides for name in names)

    def _refused(self, name: str) -> InvalidRequest:
        allowed = f"only {', '.join(self.overrides)}" if self.overrides else "nothing else"
        return InvalidRequest(f"{name[:100]}: the preset decides this; a request may set {allowed}.")

    def _option(self, name: str) -> object:
        return (self.options.model_dump(exclude_none=True) if self.options else {}).get(name)

    def _options(self, given: Json | None) -> Json:
        return (self.options.model_dump(exclude_unset=True) if self.options else {}) | (given or {})

    def _messages(self, messages: list[Json], system: str | None, values: dict[str, str]) -> list[Json]:
        """The conversation under the preset's system prompt, the template around its newest user message."""
        if any(message["role"] == "system" for message in messages):
            if not self._allowed("system"):
                raise self._refused("system")
            system = None
        messages = list(messages)
        for index in reversed(range(len(messages))):
            if messages[index]["role"] == "user":
                prompt = messages[index].get("content") or ""
                filled = _fill(self.prompt, values | {"prompt": prompt})
                messages[index] = messages[index] | {"content": filled}
                break
        if system is not None and messages:  # without messages the request only loads the model
            messages.insert(0, {"role": "system", "content": system})
        return messages


def parse_presets(tables: object) -> dict[str, Preset]:
    """The `presets` table of a configuration file. Raises `PresetError`."""
    if not isinstance(tables, dict):
        raise PresetError("presets: must be tables such as [presets.translate].")
    return {name: _parse(name, table) for name, table in tables.items()}


def _parse(name: str, table: Any) -> Preset:
    if not re.fullmatch(r"[\w-]{1,64}", name):
        raise PresetError(f'presets: "{name}" is not a name: use letters, digits, - and _.')
    try:
        return Preset.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(["presets", name, *map(str, first["loc"])])
        raise PresetError(f"{where}: {first['msg'].removeprefix('Value error, ')}.") from None


def _placeholders(template: str) -> set[str]:
    return {name for _, name in _PLACEHOLDER.findall(template) if name}


def _fill(template: str, values: Mapping[str, str]) -> str:
    """One pass, so that what a user wrote is never read as a template."""
    return _PLACEHOLDER.sub(lambda match: f"{{{match[1]}}}" if match[1] else values[match[2]], template)
