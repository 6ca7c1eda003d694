"""The words that every room uses: what can be asked for, how far a stream is, how it ended, and its payloads."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict

Json = dict[str, Any]

STREAMS_PATH = "/api/streams"
SID = "[0-9a-z]{26,64}"
"""The form of a stream's id, as a regular expression. No other id is looked for."""

STREAM_PATH = re.compile(rf"{STREAMS_PATH}/({SID})")
"""The path of one stream; the group is its id."""


def stream_url(sid: str) -> str:
    """Where a stream is read and stopped, relative to the gateway's origin."""
    return f"{STREAMS_PATH}/{sid}"


class Phase(StrEnum):
    """How far a stream is. A status event shows it until the first token.

    It is `starting` while nothing is known of it at Ollama, and while earlier requests may keep Ollama busy.
    """

    QUEUED = "queued"
    STARTING = "starting"
    LOADING = "loading"
    PROMPT = "prompt"
    GENERATING = "generating"
    PULLING = "pulling"


class Outcome(StrEnum):
    """How a stream ended."""

    COMPLETE = "complete"
    CANCELLED = "cancelled"
    ERROR = "error"


class Reason(StrEnum):
    """Why a request waits: all slots are taken, its model must displace one in use, other clients have had less, or
    Ollama does not listen, and is asked again and again.
    """

    SLOTS = "slots"
    MODEL = "model"
    FAIRNESS = "fairness"
    OLLAMA_DOWN = "ollama_down"


class Kind(StrEnum):
    """The kinds of answers that Ollama can be asked for. `traits` has all that is special about a kind."""

    CHAT = "chat"
    GENERATE = "generate"
    PULL = "pull"
    EMBED = "embed"
    EMBEDDINGS = "embeddings"

    @property
    def traits(self) -> "Traits":
        return _TRAITS[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Everything that is special about a kind of stream.

    `path` is Ollama's; `route`, if any, is the gateway's one-shot for `EventSource` and curl, beside `POST
    /api/streams`. `last` is the field, with its value, that marks Ollama's last line. A kind that `generates` runs a
    model: it waits for a slot, is shaped by presets and hook, and its phases lead to tokens. Other kinds start at
    once, and equal jobs of theirs share a stream. `permission`, if any, is the setting that lets clients ask for it.
    A kind that is `whole` has an answer of one line, and only Ollama's own clients ask for it.
    """

    path: str
    last: tuple[str, object]
    route: str | None = None
    generates: bool = True
    permission: str | None = None
    whole: bool = False


_ONE_LINE = ("error", None)  # what each line has that is no error

_TRAITS = {
    Kind.CHAT: Traits(path="/api/chat", route="/api/chat", last=("done", True)),
    Kind.GENERATE: Traits(path="/api/generate", route="/api/generate", last=("done", True)),
    Kind.PULL: Traits(path="/api/pull", last=("status", "success"), generates=False, permission="GATEWAY_ALLOW_PULL"),
    Kind.EMBED: Traits(path="/api/embed", last=_ONE_LINE, whole=True),
    Kind.EMBEDDINGS: Traits(path="/api/embeddings", last=_ONE_LINE, whole=True),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of every generation, in seconds; 0 means no limit.

    `unwatched` is how long one that nobody reads keeps its slot while others wait, and `reconnect` how long an Ollama
    that is down may take to come back; there 0 means not at all.
    """

    first_token: float
    idle: float
    total: float
    unwatched: float = 0
    reconnect: float = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A request for Ollama: `body` is its body, and `model` is the model that the body names.

    The other fields do not count when two jobs are compared. `caller` is a key's name or a network, and `request_id`
    the request that asked; for `resume_window` seconds the generation goes on while nobody reads it. `shaped` is set
    when the body has words of the operator's, which no answer may tell. `loads` is what Ollama must have loaded for it,
    as `wire.model_key` has it. `conversation` stands for its messages, and `beginning` for those that the last answer
    in them was given to; 0 for none.
    """

    kind: Kind
    model: str
    body: bytes
    caller: str = field(default="", compare=False)
    request_id: str = field(default="", compare=False)
    resume_window: float = field(default=0, compare=False)
    shaped: bool = field(default=False, compare=False)
    loads: str = field(default="", compare=False)
    conversation: int = field(default=0, compare=False)
    beginning: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """A start that must not happen twice: `name` stands for its caller and their key, and `request` for what is asked.

    Both are digests, so that they tell nothing of either.
    """

    name: str
    request: str


class Created(TypedDict):
    """The answer to `POST /api/streams`."""

    id: str
    url: str
    kind: Kind
    model: str


class Meta(Created):
    """The first event of every stream. `v` is the version of this contract."""

    v: Literal[1]


class Status(TypedDict):
    """Where a stream is. `position` is its place in the queue, 1 being the next to go, `reason` why it waits there, and
    `eta_ms` how long it probably will; `progress` is the share of the phase, from 0 to 1, that Ollama says is done.
    """

    phase: Phase
    position: NotRequired[int]
    reason: NotRequired[Reason]
    eta_ms: NotRequired[int]
    progress: NotRequired[float]
    elapsed_ms: int


class End(TypedDict):
    """The last event of every stream. A time is None if it never came, or if only a lost replica knew it."""

    outcome: Outcome
    events: int
    first_token_ms: int | None
    elapsed_ms: int | None
