"""Where Ollama is: addresses as people write them, and as they may be shown."""

import re
from urllib.parse import urlsplit, urlunsplit


def ollama_url(address: str) -> str:
    """A URL without a trailing slash, from an address as Ollama's own tools (envconfig.Host) take it in OLLAMA_HOST.

    Scheme and port may be missing; a bind address (0.0.0.0, ::) means loopback.
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
    if ":" in host:
        host = f"[{host}]"
    netloc = f"{credentials}{at}{host}:{port}"
    return urlunsplit((scheme, netloc, parts.path.rstrip("/"), "", ""))


def masked(value: object) -> str:
    """A value to be shown, without the credentials of a URL, even of one without a scheme."""
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    # The password may have a slash, which ends the address for some, or stand in the query, as Redis permits.
    text = re.sub(r"(?<=://)(?:(?!,\w+://)[^\s?#])*@|(^|(?<=,))[^/@,]*:[^/]*@", "***@", text)
    return re.sub(r"(?<=[?&])(username|password)=[^&\s]*", r"\1=***", text)
