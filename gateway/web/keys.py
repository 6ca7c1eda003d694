"""API keys, the sessions that stand for them, and what a wrong key costs."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers

from gateway.asks.parsing import network

SESSION_COOKIE = "gateway_session"
SESSION_SECONDS = 30 * 24 * 3600

# The standard library's parser takes half a minute for a hostile cookie, and gives up on a foreign one.
_SESSION = re.compile(rf"(?:^|;)\s*{SESSION_COOKIE}=([0-9a-f]{{92}})\s*(?=;|$)")
_TAG, _HEAD = 16, 28  # characters of a session: where its tag ends, and where its time does

CLOCK_SKEW_MS = 10_000  # how far the clocks of two replicas may differ

TRY_SECONDS = 1.0  # what each wrong key costs its network
FREE_SECONDS = 10.0  # what a network may owe before its wrong keys wait: people mistype, and scripts are outdated
MAX_DELAY_SECONDS = 10.0
MAX_NETWORKS = 10_000


class SessionSigner:
    """Makes the sessions of one key: a tag that stands for the key, the time of issue in ms, and a signature, in hex.

    A session proves that its holder knew the key, and the key cannot be derived from it.
    """

    def __init__(self, key: str) -> None:
        self._secret = hmac.digest(key.encode(), b"ollama-sse-gateway session", "sha256")
        self.tag = hmac.digest(self._secret, b"tag", "sha256").hex()[:_TAG]

    def sign(self, issued: int) -> str:
        head = f"{self.tag}{issued:012x}"
        return head + hmac.digest(self._secret, head.encode(), "sha256").hex()


class Keys:
    """The operator's API keys, by name. Without keys, everybody who passes the `Guard` may ask.

    Sessions are not listed, so that nobody can fill the list, and that they survive a restart. `logouts` has the name
    of each key whose holder has logged out, with a time in ms: sessions that were issued before it have ended.
    `listeners` are told of each logout.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._digests = {name: _digest(key) for name, key in keys.items()}
        self._signers = {name: SessionSigner(key) for name, key in keys.items()}
        self._names = {signer.tag: name for name, signer in self._signers.items()}
        self.logouts: dict[str, int] = {}
        self.listeners: list[Callable[[str, int], None]] = []

    def __bool__(self) -> bool:
        return bool(self._digests)

    def holders(self, headers: Headers) -> list[str]:
        """The names of the keys that a request proves to have, by a bearer token or by session cookies.

        There may be several cookies: a page of a sibling domain may have planted one beside the right one.
        """
        token = bearer(headers)
        if token is not None:
            name = _match(self._digests, token)
            return [] if name is None else [name]
        sessions = _SESSION.findall(headers.get("cookie", ""))
        return [name for name in map(self._holder, sessions) if name is not None]

    def session(self, name: str) -> str:
        """A new session for the holder of a key, as the value of its cookie."""
        return self._signers[name].sign(max(_now(), self.logouts.get(name, 0)))

    def end_sessions(self, name: str) -> None:
        """End all sessions that have been issued for a key until now."""
        # a time to come, because a replica with a faster clock may have issued one of them
        self.logouts[name] = max(_now() + CLOCK_SKEW_MS, self.logouts.get(name, 0) + 1)
        for tell in self.listeners:
            tell(name, self.logouts[name])

    def _holder(self, session: str) -> str | None:
        name = self._names.get(session[:_TAG])
        if name is None:
            return None
        issued = int(session[_TAG:_HEAD], 16)
        earliest = max(_now() - SESSION_SECONDS * 1000, self.logouts.get(name, 0))
        right = hmac.compare_digest(session, self._signers[name].sign(issued))
        return name if right and issued >= earliest else None


class WrongKeys:
    """Makes wrong keys wait, for longer the more of them a network sends.

    A limit would have to refuse keys unseen, and so the right ones of others behind the same address, too.
    """

    def __init__(self) -> None:
        self._paid_at: dict[str, float] = {}  # when a network owes nothing more; the last to send one is last

    def delay(self, address: str) -> float:
        """Count a wrong key. Returns after how many seconds it is to be answered."""
        now, caller = time.monotonic(), network(address)
        owed = max(self._paid_at.pop(caller, now) - now, 0) + TRY_SECONDS
        self._paid_at[caller] = now + min(owed, FREE_SECONDS + MAX_DELAY_SECONDS)
        if len(self._paid_at) > MAX_NETWORKS:
            del self._paid_at[next(iter(self._paid_at))]
        return min(max(owed - FREE_SECONDS, 0), MAX_DELAY_SECONDS)


def bearer(headers: Headers) -> str | None:
    """The key that a request gives, right or wrong; None when it gives none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _now() -> int:
    return time.time_ns() // 1_000_000


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _match(digests: Mapping[str, bytes], given: str) -> str | None:
    """The name of the secret that was given, or None. Takes the same time whichever it is.

    Digests are compared, because comparing the secrets themselves would give away their length.
    """
    found, digest = None, _digest(given)
    for name, known in digests.items():
        if hmac.compare_digest(known, digest):
            found = name
    return found
