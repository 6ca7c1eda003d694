"""Presets: tables of the configuration file in which an operator decides what the model sees."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from gateway.asks.bodies import FIELDS, Options, shown
from gateway.asks.fields import Format, KeepAlive, Think
from gateway.asks.parsing import Ask
from gateway.errors import InvalidRequest
from gateway.hooks import texts
from gateway.jobs import Json, Kind
from gateway.upstream.wire import normal_name
from gateway.validation import explain

ALWAYS_ALLOWED = frozenset({"messages", "prompt", "images"})  # the conversation itself
OVERRIDABLE = FIELDS - ALWAYS_ALLOWED
EMBEDDING = frozenset({"input", "dimensions", "truncate"})
"""What a client may always set where texts are embedded."""
NOTHING: tuple[object, ...] = (None, "", [], {})
"""Values that Ollama reads as no value. Its own clients send them for whatever their user has not set."""

ROLES = frozenset({"user", "assistant", "tool"})
"""What a client may have."""

# `{{name}}` is the text `{name}`; braces around anything but a name, as in JSON, are just braces
_NAME = r"[A-Za-z_]\w*"
_PLACEHOLDER = re.compile(rf"\{{\{{({_NAME})\}}\}}|\{{({_NAME})\}}")


class PresetError(Exception):
    """A preset is wrong. The message is one line that names preset and field, and quotes nothing of their content."""


def _variable_name(value: str) -> str:
    if not re.fullmatch(_NAME, value) or value == "prompt":
        raise ValueError("a variable's name has letters, digits and _, does not begin with a digit, and is not prompt")
    return value


class Variable(BaseModel):
    """A value that the client may give, or must give if there is no `default`."""

    model_config = ConfigDict(extra="forbid")

    default: str | None = None
    description: str = ""


class Preset(BaseModel):
    """One `[presets.NAME]` table. `prompt` is the template that the newest user message is put into.

    `overrides` names what else the client may set: body fields, or single options as `options.NAME`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    model: str | None = Field(None, min_length=1)
    # These stand before the templates that use them, because fields are validated in their order.
    variables: dict[Annotated[str, AfterValidator(_variable_name)], Variable] = {}
    system: str | None = None
    prompt: str = "{prompt}"
    options: Options = Options()
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

    @field_validator("system", "prompt")
    @classmethod
    def _known_placeholders(cls, value: str | None, info: ValidationInfo) -> str | None:
        used, known = _placeholders(value or ""), set(info.data.get("variables", ()))
        if info.field_name == "prompt":
            known.add("prompt")
            if "prompt" not in used:
                raise ValueError("must contain {prompt}, which stands for the user's text")
        if "variables" in info.data and (unknown := min(used - known, default=None)):
            raise ValueError(
                f"{{{unknown}}} is not a variable of this preset; for the text itself, write {{{{{unknown}}}}}"
            )
        return value

    @field_validator("overrides")
    @classmethod
    def _known_overrides(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in OVERRIDABLE and not name.startswith("options."):
                raise ValueError(f'"{name}" cannot be overridden; known are {", ".join(sorted(OVERRIDABLE))}')
        return value

    def own_chars(self) -> int:
        """The characters of text that a body has of the preset, and not of the client, at most."""
        values = {name: variable.default or "" for name, variable in self.variables.items()} | {"prompt": ""}
        own = {"system": _fill(self.system or "", values), "prompt": _fill(self.prompt, values), "format": self.format}
        return sum(map(len, texts(own)))

    def apply(self, ask: Ask) -> Json:
        """The body for Ollama that an ask with this preset becomes. Raises `InvalidRequest`."""
        if ask.kind.traits.whole:  # texts to embed, which are for no prompt: only the model and its options count
            free = {name: value for name, value in ask.body.items() if name in EMBEDDING}
            others = {name: value for name, value in ask.body.items() if name not in EMBEDDING}
            return self._with_own(others, {"model", "keep_alive"}) | free
        values = self._values(ask.variables)
        system = None if self.system is None else _fill(self.system, values)
        body = self._with_own(ask.body, {"model", "format", "think", "keep_alive"})
        if ask.kind is Kind.CHAT:
            body["messages"] = self._messages(body.get("messages", []), system, values)
        elif prompt := body.get("prompt"):  # without a prompt the request only loads the model
            body["prompt"] = _fill(self.prompt, values | {"prompt": prompt})
            if system is not None:
                body.setdefault("system", system)
        return body

    def _with_own(self, given: Json, names: set[str]) -> Json:
        """The preset's own values for these fields, and what the client may set beside them."""
        given = dict(given)
        options = self.options.model_dump(exclude_unset=True)
        options |= self._admitted(given.pop("options", None) or {}, "options")
        own: Json = self.model_dump(include=names, exclude_none=True)
        return own | self._admitted(given) | ({"options": options} if options else {})

    def _values(self, given: Mapping[str, str]) -> dict[str, str]:
        for name in given:
            if name not in self.variables:
                raise InvalidRequest(f"variables.{shown(name)}: is not a variable of this preset.")
        values = {}
        for name, variable in self.variables.items():
            value = given.get(name, variable.default)
            if value is None:
                raise InvalidRequest(f"variables.{name}: is missing.")
            values[name] = value
        return values

    def _admitted(self, given: Json, within: str = "") -> Json:
        """Those of the given fields that the client may set.

        Others are refused whatever the preset's own value is: the answer to the right guess would tell it. Only the
        model, which every answer names, may be given as it is, because Ollama's own clients always send one.
        """
        admitted = {}
        for field, value in given.items():
            name = f"{within}.{field}" if within else field
            if value is None:
                continue
            if name in ALWAYS_ALLOWED or name in self.overrides or within in self.overrides:
                admitted[field] = value
            elif not (value in NOTHING or (name == "raw" and not value) or (name == "model" and self._runs(value))):
                raise self._refused(name)
        return admitted

    def _runs(self, model: str) -> bool:
        """Whether this is the preset's model, by any of its names."""
        return self.model is not None and normal_name(self.model) == normal_name(model)

    def _refused(self, name: str) -> InvalidRequest:
        allowed = f"only {', '.join(self.overrides)}" if self.overrides else "nothing else"
        return InvalidRequest(f"{shown(name)}: the preset decides this; a request may set {allowed}.")

    def _messages(self, messages: list[Json], system: str | None, values: dict[str, str]) -> list[Json]:
        """The conversation under the preset's system prompt, with the template around its newest user message."""
        for role in {message["role"] for message in messages} - ROLES:
            if role != "system":
                raise InvalidRequest(f"messages.role: {shown(role)} is none of {', '.join(sorted(ROLES))}.")
            if "system" not in self.overrides:
                raise self._refused("system")
            system = None
        messages = list(messages)
        for index in reversed(range(len(messages))):
            if messages[index]["role"] == "user":
                filled = _fill(self.prompt, values | {"prompt": messages[index].get("content") or ""})
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
        problem = explain(error, "a table")
        raise PresetError(f"{'.'.join(['presets', name, *problem.path])}: {problem.message}.") from None


def _placeholders(template: str) -> set[str]:
    return {name for _, name in _PLACEHOLDER.findall(template) if name}


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Fill a template in one pass, so that what a user wrote is never read as a template."""
    return _PLACEHOLDER.sub(lambda match: f"{{{match[1]}}}" if match[1] else values[match[2]], template)
