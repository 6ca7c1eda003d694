"""From a query string or a JSON body to an `Ask`, which names its caller."""

import asyncio
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

import orjson

from gateway.asks.bodies import STREAMED, StreamRequest, as_sent, check_body, check_shape, shown, to_json
from gateway.asks.bounds import Bounds, check_bounds, check_counts, check_text
from gateway.errors import InvalidRequest
from gateway.jobs import Claim, Json, Kind

MAX_QUERY_FIELDS = 100
_LONE_SURROGATE = re.compile(
    r"\\u[dD](?:[89abAB][\dA-Fa-f]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][\dA-Fa-f]{2}\\u[dD])[c-fC-F][\dA-Fa-f]{2})"
)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")

MAX_ESCAPES = 200_000
"""The most `\\u…` of a body that is mended."""

GATEWAY_OPTIONS = ("preset", "resume_window", "last_event_id", "idempotency_key")
PRESET_MODEL = "preset/"
"""What the name of a preset begins with where it is given as a model's, by clients that can name nothing else."""

BODY_OPTIONS = ("model", "prompt", "system", "think", "format", "keep_alive")


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: an address, the name of the API key if there is one, and the request's headers.

    The items of `headers` have one that is given twice twice, and all names in lower case.
    """

    address: str
    headers: Mapping[str, str]
    key: str | None
    request_id: str

    @property
    def identity(self) -> str:
        """The name of the key, or otherwise a network. Callers of one identity share one quota."""
        return self.key or network(self.address)


@lru_cache(maxsize=1024)
def network(address: str) -> str:
    """The part of an address that identifies a caller: all of an IPv4 address, the /64 of an IPv6 one.

    One household has every address of its /64. An IPv4 address may be written as an IPv6 one, and all of these are in
    one /64.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped or parsed in _NAT64:
        return str(ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF))
    return f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"


@dataclass(frozen=True, slots=True)
class Ask:
    """A valid request, before the operator's shaping.

    `body` is Ollama's request body without `stream`; it may lack a `model`. `resume_window` is in seconds. With an
    `idempotency_key` of the caller's own, equal asks are one. `whole` is set where Ollama would answer with one object
    and not with lines: it was told not to stream, or there is nothing to stream.
    """

    kind: Kind
    body: Json
    caller: Caller
    preset: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    resume_window: float = 0
    idempotency_key: str | None = None
    whole: bool = False

    @property
    def claim(self) -> Claim | None:
        """What makes this ask the same as another one. Nothing runs twice that generates nothing."""
        if self.idempotency_key is None or not self.kind.traits.generates:
            return None
        asked = to_json([self.kind, self.body, self.preset, self.variables], orjson.OPT_SORT_KEYS)
        return Claim(_digest(f"{self.caller.identity}\n{self.idempotency_key}".encode()), _digest(asked))

    def by_model(self) -> "Ask":
        """The same, under the preset that its model names as `preset/NAME`, if it does. Raises `InvalidRequest`."""
        name = preset_named(self.body.get("model"))
        if name is None:
            return self
        if self.preset not in (None, name):
            raise InvalidRequest("preset: the model names another one.")
        return replace(self, preset=name, body={field: self.body[field] for field in self.body if field != "model"})


def preset_named(model: str | None) -> str | None:
    """The preset that a model's name means, if it means one."""
    if model is None or not model.startswith(PRESET_MODEL):
        return None
    return model.removeprefix(PRESET_MODEL).removesuffix(":latest")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class GatewayOptions(NamedTuple):
    """What a request asks of the gateway itself."""

    preset: str | None
    variables: Mapping[str, str]
    resume_window: float
    idempotency_key: str | None = None


class Asks:
    """Turns requests into asks that keep within `bounds`. Every method raises `InvalidRequest` or `TooLarge`.

    `turn` is for large bodies, which take some milliseconds each: one at a time may have a turn of the loop.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.turn = asyncio.Lock()

    def by_query(self, kind: Kind, fields: Mapping[str, str], caller: Caller) -> Ask:
        """A one-shot GET: a prompt and options, for `EventSource`, which can send nothing else."""
        options, rest = _gateway_options(fields)
        for name in rest:
            if name not in BODY_OPTIONS and not name.startswith("options."):
                known = ", ".join([*BODY_OPTIONS, "options.NAME", "variables.NAME", *GATEWAY_OPTIONS])
                raise InvalidRequest(f"{shown(name)}: is not a query parameter. Known are {known}.")
        body = _body_of_query(kind, rest)
        check_body(kind, body)
        return self._ask(kind, body, caller, options)

    def by_body(self, kind: Kind, fields: Mapping[str, str], content: bytes, caller: Caller) -> Ask:
        """A one-shot POST: Ollama's own body, with the gateway's options in the query."""
        options, rest = _gateway_options(fields)
        for name in rest:
            known = f"variables.NAME, {', '.join(GATEWAY_OPTIONS)}; the rest belongs in the body"
            raise InvalidRequest(f"{shown(name)}: is not a query parameter of a POST. Known are {known}.")
        body = json_object(content)
        check_body(kind, body)
        return self._ask(kind, body, caller, options)

    def for_stream(self, content: bytes, caller: Caller) -> Ask:
        """The body of `POST /api/streams`."""
        body = json_object(content)
        given = check_shape(StreamRequest, body)
        kinds = [kind for kind in STREAMED if body.get(kind) is not None]
        if len(kinds) != 1:
            *others, last = STREAMED
            raise InvalidRequest(f"The body must have exactly one of {', '.join(others)} and {last}.")
        options = GatewayOptions(given.preset, given.variables or {}, given.resume_window or 0)
        return self._ask(kinds[0], body[kinds[0]], caller, options)

    def _ask(self, kind: Kind, body: Json, caller: Caller, options: GatewayOptions) -> Ask:
        if not 0 <= options.resume_window < float("inf"):
            raise InvalidRequest("resume_window: must be a number of seconds, 0 or more.")
        keys = [key for key in (caller.headers.get("idempotency-key"), options.idempotency_key) if key is not None]
        if not all(map(_IDEMPOTENCY_KEY.fullmatch, keys)):
            raise InvalidRequest("Idempotency-Key: must be 1 to 255 visible ASCII characters.")
        said = {Kind.CHAT: "messages", Kind.GENERATE: "prompt"}.get(kind)
        only_loads = said is not None and not body.get(said) and not body.get("images")
        whole = body.get("stream") is False or kind.traits.whole or only_loads
        body = as_sent(kind, body)
        check_bounds(body, self._bounds)
        return Ask(
            kind,
            body,
            caller,
            options.preset or None,
            options.variables,
            options.resume_window,
            next(iter(keys), None),
            whole,
        )


def parse_query(query: bytes) -> dict[str, str]:
    """A query string's fields. Raises `InvalidRequest` for bytes that are not UTF-8, and for a field given twice."""
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeDecodeError:
        raise InvalidRequest("The query is not valid UTF-8.") from None
    except ValueError:
        raise InvalidRequest(f"The query has more than {MAX_QUERY_FIELDS} fields.") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            raise InvalidRequest(f"{shown(name)}: is given more than once.")
        fields[name] = value
    return fields


def _gateway_options(fields: Mapping[str, str]) -> tuple[GatewayOptions, dict[str, str]]:
    """The gateway's own options, and the fields that are none of these."""
    rest = {name: value for name, value in fields.items() if name not in GATEWAY_OPTIONS}
    variables = {name: rest.pop(f"variables.{name}") for name in _named("variables.", fields)}
    try:
        window = float(fields.get("resume_window", "0"))
    except ValueError:
        raise InvalidRequest("resume_window: must be a number of seconds.") from None
    return GatewayOptions(fields.get("preset"), variables, window, fields.get("idempotency_key")), rest


def mended(content: bytes) -> str:
    """JSON with U+FFFD for whatever is no character, as Ollama reads it: half a surrogate pair, or invalid UTF-8.

    JavaScript sends half a pair when a text was cut inside an emoji.
    """
    text = content.decode(errors="replace")
    if "\0" in text or text.count("\\u") > MAX_ESCAPES:  # no JSON in any case; or too much work
        return text
    # Escaped backslashes are hidden first: the second one starts no escape. Plain passes, because a callback is slow.
    return _LONE_SURROGATE.sub("\ufffd", text.replace("\\\\", "\0")).replace("\0", "\\\\")


def _named(prefix: str, fields: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}


def _body_of_query(kind: Kind, fields: Mapping[str, str]) -> Json:
    """The body for Ollama that the query of a GET describes."""
    prompt = fields.get("prompt", "")
    if not prompt.strip():
        raise InvalidRequest("prompt: is missing. Ask with ?prompt=…")
    body: Json = {"model": fields["model"]} if fields.get("model") else {}
    if kind is Kind.CHAT:
        roles = {"system": "system", "prompt": "user"}
        body["messages"] = [{"role": role, "content": fields[name]} for name, role in roles.items() if name in fields]
    else:
        body |= {name: fields[name] for name in ("prompt", "system") if name in fields}
    body |= {name: _value(fields[name]) for name in ("think", "format", "keep_alive") if name in fields}
    if options := _named("options.", fields):
        body["options"] = {name: _option(name, value) for name, value in options.items()}
    return body


def _value(text: str) -> object:
    """A query value: JSON (`true`, `5`, a schema) where it is JSON, otherwise the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _option(name: str, text: str) -> object:
    value = _value(text)
    if name == "stop" and not isinstance(value, list):
        return [text]  # `options.stop=END` is what everybody writes
    return value


def json_object(content: bytes) -> Json:
    """A body as an object. Raises `InvalidRequest` or `TooLarge`."""
    check_text(content)
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        try:
            value = orjson.loads(mended(content))
        except orjson.JSONDecodeError:
            raise InvalidRequest(f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    check_counts(value)
    return value
