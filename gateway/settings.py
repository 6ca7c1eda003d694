"""All configuration: flags, `GATEWAY_*` environment variables, `.env` and `gateway.toml`, in that precedence.

Imported only by `cli` and `app`; everything else is given plain values.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliImplicitFlag,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

PREFIX = "GATEWAY_"
DEFAULT_CONFIG = "gateway.toml"
PRESETS = "presets"
"""The one table of the configuration file that holds no settings."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[PositiveFloat, Field(allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], NoDecode]


class ConfigurationError(Exception):
    """One readable line that names the setting at fault."""


class Settings(BaseSettings):
    """Every setting. A description is what `--help` and the reference show."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        extra="ignore",
        frozen=True,
        cli_prog_name="ollama-sse-gateway",
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    ollama_url: str = Field("", description="Where Ollama is; else OLLAMA_HOST, else http://127.0.0.1:11434.")
    ollama_urls: Names = Field((), description="Several Ollama servers instead of GATEWAY_OLLAMA_URL; comma-separated.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    config: str = Field(DEFAULT_CONFIG, description="Configuration file; the default may be missing.")
    demo: CliImplicitFlag[bool] = Field(False, description="Serve the built-in simulator instead of Ollama.")

    ping_interval: PositiveSeconds = Field(15, description="Seconds between keepalive comments.")
    status_interval: PositiveSeconds = Field(2, description="Seconds between status events until the first token.")
    connect_timeout: PositiveSeconds = Field(5, description="Seconds to connect to Ollama.")
    first_token_timeout: Seconds = Field(
        600, description="Seconds to the first token: covers the model's load and the prompt. 0 is no limit."
    )
    idle_timeout: Seconds = Field(120, description="Seconds between two tokens. 0 is no limit.")
    total_timeout: Seconds = Field(0, description="Seconds for a whole generation. 0 is no limit.")

    max_active: PositiveInt = Field(64, description="Generations at Ollama at once; others wait in the queue.")
    max_queued: int = Field(256, ge=0, description="Requests that may wait; one more is `busy`.")
    attach_timeout: PositiveSeconds = Field(
        10, description="Seconds that a stream made by POST /api/streams waits for its first viewer."
    )
    max_resume_window: Seconds = Field(300, description="The longest `resume_window` a client may ask for, in seconds.")
    retain_seconds: Seconds = Field(60, description="Seconds that an ended stream can still be read.")
    max_body_bytes: PositiveInt = Field(20 * 2**20, description="The largest request body.")
    max_line_bytes: PositiveInt = Field(16 * 2**20, description="The longest line accepted from Ollama.")
    max_stream_bytes: PositiveInt = Field(32 * 2**20, description="The most that is kept of one stream.")
    max_log_bytes: PositiveInt = Field(512 * 2**20, description="The most that is kept of all streams.")
    drain_seconds: Seconds = Field(20, description="Seconds that running generations get to finish at shutdown.")

    allow_pull: CliImplicitFlag[bool] = Field(False, description="Let clients pull models.")
    default_model: str | None = Field(None, description="Model of a request that names none; else the first installed.")
    default_preset: str | None = Field(None, description="Preset of a request that names none.")
    presets_only: CliImplicitFlag[bool] = Field(False, description="Refuse requests without a preset.")
    truncate: CliImplicitFlag[bool] = Field(
        True, description="Let Ollama drop the beginning of a conversation too long for the model; else it is an error."
    )
    hook: str | None = Field(None, description="package.module:function that shapes every request.")
    hook_timeout: PositiveSeconds = Field(5, description="Seconds that the hook may take.")
    hook_headers: Names = Field((), description="Request headers that the hook may see; comma-separated.")
    allow_preview: CliImplicitFlag[bool] = Field(
        False, description="Serve POST /api/preview, which shows what Ollama would be sent, system prompts included."
    )
    redis_url: str = Field("", description="Redis that several replicas share, as redis://host:6379/0; else memory.")
    log_format: Literal["console", "json"] = Field("console", description="Log lines for a person, or JSON objects.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    client_timeout: PositiveSeconds = Field(
        30, description="Seconds until a client that acknowledges nothing that was sent counts as gone."
    )
    request_timeout: PositiveSeconds = Field(60, description="Seconds that a client may take to send a request.")
    max_url_bytes: int = Field(65_535, gt=0, le=65_535, description="The longest URL, prompt and all.")
    max_head_bytes: PositiveInt = Field(128 * 2**10, description="The largest request line with headers.")
    max_messages: int = Field(2000, ge=0, description="Messages in a request. 0 is any number.")
    max_images: int = Field(32, ge=0, description="Images in a request. 0 is any number.")
    max_prompt_chars: int = Field(2_000_000, ge=0, description="Characters of text in a request. 0 is any number.")

    api_keys: SecretStr = Field(SecretStr(""), description="Keys that may ask, as name:key, comma-separated.")
    api_keys_file: str | None = Field(None, description="File with more keys, as name:key, one a line.")
    client_max_streams: int = Field(0, ge=0, description="Streams that one key or address may run at once. 0 is any.")
    client_max_queued: int = Field(0, ge=0, description="Requests of one key or address that may wait. 0 is any.")
    client_starts_per_minute: int = Field(0, ge=0, description="Starts of one key or address per minute. 0 is any.")
    trusted_proxies: Names = Field(
        (), description="Addresses or networks of proxies whose X-Forwarded-For is believed; comma-separated."
    )
    allowed_hosts: Names = Field(
        (), description="Host names the gateway answers to, beside local ones and addresses; comma-separated, * is any."
    )
    cors_origins: Names = Field(
        (),
        description="Origins that may use the gateway beside itself and localhost; comma-separated, * is any.",
    )

    @field_validator("ollama_url", mode="before")
    @classmethod
    def _ollama_url(cls, value: object) -> object:
        return ollama_url(value) if isinstance(value, str) and value else value

    @field_validator("ollama_urls", "cors_origins", "hook_headers", "trusted_proxies", "allowed_hosts", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for each in value.split(",") if (part := each.strip()))
        return value

    @field_validator("ollama_urls")
    @classmethod
    def _ollama_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        urls = tuple(map(ollama_url, value))
        if len(set(urls)) < len(urls):
            raise ValueError("must name each server once")
        return urls

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: str) -> str:
        if value and not re.match(r"(rediss?|unix)://.", value):
            raise ValueError("is not an address such as redis://host:6379/0")
        return value

    @field_validator("api_keys")
    @classmethod
    def _api_keys(cls, value: SecretStr) -> SecretStr:
        parse_keys(value.get_secret_value())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin not in ("*", "null") and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                raise ValueError(f'"{origin}" is not an origin such as https://chat.example.com')
        return tuple(map(str.lower, value))  # as browsers write them

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, _ConfigFile(settings_cls)

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The URLs of all Ollama servers, without trailing slashes."""
        return self.ollama_urls or (self.ollama_url or ollama_url(os.environ.get("OLLAMA_HOST", "")),)

    def keys(self) -> dict[str, str]:
        """All API keys by name. Raises `ConfigurationError` for a file that cannot be used."""
        keys = parse_keys(self.api_keys.get_secret_value())
        if self.api_keys_file:
            try:
                more = parse_keys(Path(self.api_keys_file).read_text())
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"GATEWAY_API_KEYS_FILE: {self.api_keys_file}: {error}.") from None
            if not more:  # which would leave the gateway open
                raise ConfigurationError(f"GATEWAY_API_KEYS_FILE: {self.api_keys_file}: has no keys.")
            keys |= more
        return keys

    def summary(self) -> str:
        """The settings that differ from their defaults, secrets masked, for one line at start."""
        shown = {
            name: _masked(value)
            for name, field in type(self).model_fields.items()
            if (value := getattr(self, name)) != field.default and name not in ("ollama_url", "ollama_urls")
        }
        return " ".join([f"ollama={_masked(self.upstreams)}", *(f"{name}={value}" for name, value in shown.items())])


class _ConfigFile(PydanticBaseSettingsSource):
    """`gateway.toml`: the settings' names in lower case without their prefix, and tables that are read elsewhere."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise KeyError(field_name)  # values are given all at once, below

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config") or DEFAULT_CONFIG
        values = read_config(str(path))
        values.pop(PRESETS, None)
        unknown = [name for name in values if name not in self.settings_cls.model_fields]
        if unknown:
            raise ConfigurationError(f'{path}: "{unknown[0]}" is not a setting.')
        return values


def read_config(path: str) -> dict[str, Any]:
    """What a configuration file says; the default one may be missing. Raises `ConfigurationError`."""
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        if path == DEFAULT_CONFIG:
            return {}
        raise ConfigurationError(f"GATEWAY_CONFIG: there is no file {path}.") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}.") from None


def load(arguments: Sequence[str] = ()) -> Settings:
    """The settings as they are in force here. Raises `ConfigurationError`; `--help` exits."""
    try:
        settings = CliApp.run(Settings, list(arguments), cli_exit_on_error=False, cli_show_env_vars=True)
    except SettingsError as error:
        raise ConfigurationError(
            f"{str(error).removeprefix('error parsing CLI: ')} (--help lists the flags)."
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        message = first["msg"].removeprefix("Value error, ")
        flag = name.replace("_", "-")
        given = "" if name == "api_keys" else f", not {_masked(first['input'])[:100]!r}"
        raise ConfigurationError(f"{PREFIX}{name.upper()} (--{flag}): {message}{given}.") from None
    if settings.ollama_url and settings.ollama_urls:
        raise ConfigurationError("GATEWAY_OLLAMA_URL and GATEWAY_OLLAMA_URLS are both set: one of them must go.")
    try:
        if not settings.demo:
            _ = settings.upstreams
    except ValueError as error:
        raise ConfigurationError(f"OLLAMA_HOST: {error}, not {_masked(os.environ['OLLAMA_HOST'])!r}.") from None
    return settings


def ollama_url(address: str) -> str:
    """An address as Ollama's own tools take it in OLLAMA_HOST, as a URL without a trailing slash.

    Scheme and port may be missing; a bind address (0.0.0.0, ::) means loopback.
    Source: envconfig.Host in Ollama.
    """
    text = address.strip().strip("\"'") or "127.0.0.1"
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if scheme not in ("http", "https"):
        raise ValueError("must be an http:// or https:// address")
    if rest.count(":") > 1 and not rest.startswith("[") and "@" not in rest:
        rest = f"[{rest}]"  # a bare IPv6 address
    parts = urlsplit(f"{scheme}://{rest}")
    default_port = {"http": 80, "https": 443}[scheme] if separator else 11434
    try:
        port = parts.port or default_port
    except ValueError:
        raise ValueError("has a port that is not a number from 1 to 65535") from None
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname or "", parts.hostname or "")
    if re.search(r"[^\w.:%-]", host):
        raise ValueError("is not an address")
    credentials, at, _ = parts.netloc.rpartition("@")
    netloc = f"{credentials}{at}{f'[{host}]' if ':' in host else host}:{port}"
    return urlunsplit((scheme, netloc, parts.path.rstrip("/"), "", ""))


def parse_keys(text: str) -> dict[str, str]:
    """`name:key` pairs, separated by commas or line ends; lines that begin with # are comments.

    Raises `ValueError`, which quotes no key.
    """
    keys: dict[str, str] = {}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for number, pair in enumerate(filter(None, map(str.strip, ",".join(lines).split(","))), 1):
        name, _, key = pair.partition(":")
        if not re.fullmatch(r"[\w.@-]{1,64}", name) or not re.fullmatch(r"[!-~]{16,}", key):
            raise ValueError(f"pair {number} is not name:key with a key of at least 16 characters")
        if name in keys:
            raise ValueError(f"the name {name} is given twice")
        keys[name] = key
    return keys


def unknown_variables() -> list[str]:
    """Names in the environment that look like settings and are none: likely a slip of the pen."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def _masked(value: object) -> str:
    """A value to be shown, without the credentials of a URL, whose scheme may be missing."""
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return re.sub(r"((?<=://)|(^|(?<=,))[^/@,]*:)[^/]*@", "***@", text)
