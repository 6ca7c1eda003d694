"""Presets: what an operator writes in the configuration file to decide what the model sees."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from gateway.errors import InvalidRequest
from gateway.relay import Kind
from gateway.requests import Ask, ChatBody, Format, GenerateBody, Json, KeepAlive, Options, Think

ALWAYS_ALLOWED = frozenset({"messages", "prompt", "images"})
"""What a client brings to every preset: the conversation itself."""

OVERRIDABLE = (ChatBody.model_fields.keys() | GenerateBody.model_fields.keys()) - ALWAYS_ALLOWED

ROLES = frozenset({"user", "assistant", "tool"})
"""Who may speak in a client's messages. Ollama reads `SYSTEM` as `system`, so others are named, not searched for."""

# `{{name}}` is the text `{name}`; braces around anything but a name, as in JSON, are just braces
_NAME = r"[A-Za-z_]\w*"
_PLACEHOLDER = re.compile(rf"\{{\{{({_NAME})\}}\}}|\{{({_NAME})\}}")


_PLAINLY = {
    "extra_forbidden": "is not known here",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "tuple_type": "must be a list",
}
"""What an operator is told, where pydantic would speak of Python."""


class PresetError(Exception):
    """One line that names preset and field, and quotes nothing of their content."""


def _variable_name(value: str) -> str:
    if not re.fullmatch(_NAME, value) or value == "prompt":
        raise ValueError("a variable's name has letters, digits and _, does not begin with a digit, and is not prompt")
    return value


class Variable(BaseModel):
    """A value the client may give; without a `default` it must."""

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
    variables: dict[Annotated[str, AfterValidator(_variable_name)], Variable] = {}  # before the templates that use them
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
                raise ValueError("must contain {prompt}, the place of what the user wrote")
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

    def apply(self, ask: Ask) -> Json:
        """The Ollama body that an ask with this preset becomes. Raises `InvalidRequest`."""
        values = self._values(ask.variables)
        system = None if self.system is None else _fill(self.system, values)
        given = dict(ask.body)
        options = self.options.model_dump(exclude_unset=True)
        options |= self._admitted(given.pop("options", None) or {}, options, "options")
        own: Json = self.model_dump(include={"model", "format", "think", "keep_alive"}, exclude_none=True)
        body = own | self._admitted(given, own)
        if options:
            body["options"] = options
        if ask.kind is Kind.CHAT:
            body["messages"] = self._messages(body.get("messages", []), system, values)
        elif prompt := body.get("prompt"):  # without a prompt the request only loads the model
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

    def _admitted(self, given: Json, own: Json, within: str = "") -> Json:
        """What the client may set of the fields it gave. Null, and what the preset says too, is no override."""
        admitted = {}
        for field, value in given.items():
            name = f"{within}.{field}" if within else field
            if value is None:
                continue
            if name in ALWAYS_ALLOWED or name in self.overrides or within in self.overrides:
                admitted[field] = value
            elif field not in own or own[field] != value:
                raise self._refused(name)
        return admitted

    def _refused(self, name: str) -> InvalidRequest:
        allowed = f"only {', '.join(self.overrides)}" if self.overrides else "nothing else"
        return InvalidRequest(f"{name[:100]}: the preset decides this; a request may set {allowed}.")

    def _messages(self, messages: list[Json], system: str | None, values: dict[str, str]) -> list[Json]:
        """The conversation under the preset's system prompt, the template around its newest user message."""
        for role in {message["role"] for message in messages} - ROLES:
            if role != "system":
                raise InvalidRequest(f"messages.role: {role[:100]} is none of {', '.join(sorted(ROLES))}.")
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
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(["presets", name, *(str(part) for part in first["loc"] if part != "[key]")])
        what = _PLAINLY.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise PresetError(f"{where}: {what}.") from None


def _placeholders(template: str) -> set[str]:
    return {name for _, name in _PLACEHOLDER.findall(template) if name}


def _fill(template: str, values: Mapping[str, str]) -> str:
    """One pass, so that what a user wrote is never read as a template."""
    return _PLACEHOLDER.sub(lambda match: f"{{{match[1]}}}" if match[1] else values[match[2]], template)
