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

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliImplicitFlag,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from gateway.upstream.address import masked, ollama_url
from gateway.validation import explain, parse_keys

PREFIX = "GATEWAY_"
DEFAULT_CONFIG = "gateway.toml"
PRESETS = "presets"
"""The one table of the configuration file that holds no settings."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[PositiveFloat, Field(allow_inf_nan=False)]


def _split(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Comma-separated, or a list in the configuration file."""


class ConfigurationError(Exception):
    """The configuration cannot be used. The message is one readable line that names the setting at fault."""


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

    ollama_url: str = Field("", description="Ollama's URL; default: OLLAMA_HOST, else http://127.0.0.1:11434.")
    ollama_urls: Names = Field((), description="Several Ollama URLs, comma-separated, in place of GATEWAY_OLLAMA_URL.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    config: str = Field(DEFAULT_CONFIG, description="Configuration file; the default one may be missing.")
    demo: CliImplicitFlag[bool] = Field(False, description="Serve the built-in simulator instead of Ollama.")

    ping_interval: PositiveSeconds = Field(15, description="Seconds between keepalive comments.")
    status_interval: PositiveSeconds = Field(2, description="Seconds between status events until the first token.")
    connect_timeout: PositiveSeconds = Field(5, description="Seconds to connect to Ollama.")
    first_token_timeout: Seconds = Field(
        600, description="Seconds until the first token, model load and prompt included. 0 is no limit."
    )
    idle_timeout: Seconds = Field(120, description="Seconds between two tokens. 0 is no limit.")
    total_timeout: Seconds = Field(0, description="Seconds for a whole generation. 0 is no limit.")

    max_active: PositiveInt = Field(64, description="Generations at Ollama at once; others wait in the queue.")
    num_parallel: int = Field(
        0, ge=0, description="Of them, for each model at a server: its OLLAMA_NUM_PARALLEL. 0 finds out."
    )
    max_queued: int = Field(256, ge=0, description="Requests that may wait; one more is refused as `busy`.")
    swap_patience: Seconds = Field(25, description="Longest wait, in seconds, for a model that displaces one in use.")
    unwatched_grace: Seconds = Field(
        10, description="Seconds that a stream which nobody reads keeps its slot while others wait. 0 is no limit."
    )
    reconnect_seconds: Seconds = Field(
        30, description="Seconds that requests wait for an Ollama that is down; 0 fails them at once."
    )
    attach_timeout: PositiveSeconds = Field(
        10, description="Seconds that a stream made by POST /api/streams waits for its first viewer."
    )
    max_resume_window: Seconds = Field(300, description="Seconds that a client may ask for as `resume_window`.")
    retain_seconds: Seconds = Field(60, description="Seconds that a stream can still be read after its end.")
    max_body_bytes: PositiveInt = Field(20 * 2**20, description="The largest request body.")
    max_line_bytes: PositiveInt = Field(16 * 2**20, description="The longest line accepted from Ollama.")
    max_stream_bytes: PositiveInt = Field(32 * 2**20, description="Bytes that are kept of one stream.")
    max_log_bytes: PositiveInt = Field(512 * 2**20, description="Bytes that all requests and streams may hold.")
    drain_seconds: Seconds = Field(20, description="Seconds that running generations get to finish at shutdown.")

    allow_pull: CliImplicitFlag[bool] = Field(False, description="Let clients pull models.")
    pull_hosts: Names = Field(
        (), description="Registries that models may be pulled from, besides Ollama's own; comma-separated."
    )
    default_model: str | None = Field(
        None, description="Model of requests that name none; default: the first installed."
    )
    default_preset: str | None = Field(None, description="Preset of a request that names none.")
    presets_only: CliImplicitFlag[bool] = Field(False, description="Refuse requests without a preset.")
    truncate: CliImplicitFlag[bool] = Field(
        True,
        description="Drop the beginning of a conversation that is too long for the model; otherwise it is an error.",
    )
    hook: str | None = Field(None, description="Function that shapes every request, as package.module:function.")
    hook_timeout: PositiveSeconds = Field(5, description="Seconds that the hook may take.")
    hook_headers: Names = Field((), description="Request headers that the hook may see; comma-separated.")
    allow_preview: CliImplicitFlag[bool] = Field(
        False, description="Serve POST /api/preview, which shows the body for Ollama, system prompts included."
    )
    redis_url: str = Field("", description="Redis that replicas share, as redis://host:6379/0; default: no Redis.")
    redis_prefix: str = Field("gateway:", description="What the names of all keys in Redis begin with.")
    log_format: Literal["console", "json"] = Field("console", description="Log lines for people, or JSON objects.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    client_timeout: PositiveSeconds = Field(
        30, description="Seconds without an acknowledgement of sent data, after which a client counts as gone."
    )
    request_timeout: PositiveSeconds = Field(60, description="Seconds that a client may take to send a request.")
    max_url_bytes: int = Field(65_535, gt=0, le=65_535, description="The longest URL, prompt included.")
    max_head_bytes: PositiveInt = Field(128 * 2**10, description="The largest request line with headers.")
    max_messages: int = Field(2000, ge=0, description="Messages in one request. 0 is no limit.")
    max_images: int = Field(32, ge=0, description="Images in one request. 0 is no limit.")
    max_prompt_chars: int = Field(2_000_000, ge=0, description="Characters of text in one request. 0 is no limit.")

    api_keys: SecretStr = Field(SecretStr(""), description="API keys as name:key, comma-separated; none: open to all.")
    api_keys_file: str | None = Field(None, description="File with more API keys, one name:key per line.")
    client_max_streams: int = Field(0, ge=0, description="Streams of one key or address at once. 0 is no limit.")
    client_max_queued: int = Field(0, ge=0, description="Waiting requests of one key or address. 0 is no limit.")
    client_starts_per_minute: int = Field(
        0, ge=0, description="Starts per minute of one key or address. 0 is no limit."
    )
    trusted_proxies: Names = Field(
        (), description="Addresses or networks of proxies whose X-Forwarded-For is trusted; comma-separated."
    )
    allowed_hosts: Names = Field(
        (), description="Host names to answer to, besides local names and addresses; comma-separated; * is any."
    )
    cors_origins: Names = Field(
        (), description="Origins that may use the gateway, besides its own and localhost; comma-separated; * is any."
    )

    @field_validator("ollama_url", mode="before")
    @classmethod
    def _ollama_url(cls, value: object) -> object:
        return ollama_url(value) if isinstance(value, str) and value else value

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

    @field_validator("cors_origins", "allowed_hosts", "hook_headers", "pull_hosts")
    @classmethod
    def _lower_case(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(str.lower, value))  # as browsers write them, and because their case means nothing

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin not in ("*", "null") and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                raise ValueError(f'"{origin}" is not an origin such as https://chat.example.com')
        return value

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
                more = parse_keys(Path(self.api_keys_file).read_text("utf-8"))  # in any locale
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"GATEWAY_API_KEYS_FILE: {self.api_keys_file}: {error}.") from None
            if not more:  # without a key, everybody could use the gateway
                raise ConfigurationError(f"GATEWAY_API_KEYS_FILE: {self.api_keys_file}: has no keys.")
            keys |= more
        return keys

    def summary(self) -> str:
        """The settings that differ from their defaults, secrets masked, for one line at start."""
        shown = {
            name: masked(value)
            for name, field in type(self).model_fields.items()
            if (value := getattr(self, name)) != field.default and name not in ("ollama_url", "ollama_urls")
        }
        return " ".join([f"ollama={masked(self.upstreams)}", *(f"{name}={value}" for name, value in shown.items())])


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
    """The content of a configuration file; the default one may be missing. Raises `ConfigurationError`."""
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
    """The settings of this process, from all sources. Raises `ConfigurationError`; `--help` exits."""
    try:
        settings = CliApp.run(Settings, list(arguments), cli_exit_on_error=False, cli_show_env_vars=True)
    except SettingsError as error:
        problem = str(error).removeprefix("error parsing CLI: ")
        raise ConfigurationError(f"{problem} (--help lists the flags).") from None
    except ValidationError as error:
        path, message, value = explain(error)
        name = path[0]
        flag = name.replace("_", "-")
        given = "" if name == "api_keys" else f", not {masked(value)[:100]!r}"
        raise ConfigurationError(f"{PREFIX}{name.upper()} (--{flag}): {message}{given}.") from None
    if settings.ollama_url and settings.ollama_urls:
        raise ConfigurationError("GATEWAY_OLLAMA_URL and GATEWAY_OLLAMA_URLS are both set. Remove one of them.")
    try:
        if not settings.demo:
            _ = settings.upstreams
    except ValueError as error:
        raise ConfigurationError(f"OLLAMA_HOST: {error}, not {masked(os.environ['OLLAMA_HOST'])!r}.") from None
    return settings


def unknown_variables() -> list[str]:
    """Names in the environment that look like settings but are not: most likely typing errors."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
