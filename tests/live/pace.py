"""How fast this server runs this model. Every time limit of the checks is derived from it; none is absolute."""

from dataclasses import dataclass

from tests.live.bodies import chat, words
from tests.live.sides import Answer, Ollama

READING = 3
"""About how many seconds a long prompt takes to read, if it fits into the context."""

STATUS_INTERVAL = 0.2
"""The interval of the gateway's status events, in seconds."""

BUSY = 8
"""About how many seconds a long answer takes."""


class Unsuitable(Exception):
    """There is nothing to check at this address."""


@dataclass(frozen=True)
class Pace:
    """Seconds for loading the model, for a token of an answer and for a token of a prompt. `context` is in tokens."""

    load: float
    token: float
    prompt_token: float
    context: int

    @property
    def long_prompt_words(self) -> int:
        return int(max(200, min(READING / self.prompt_token, self.context * 0.6)))

    @property
    def reading(self) -> float:
        return self.long_prompt_words * self.prompt_token

    @property
    def long_answer_tokens(self) -> int:
        return int(max(200, min(BUSY / self.token, 5000)))

    @property
    def answering(self) -> float:
        return self.long_answer_tokens * self.token


async def measure(ollama: Ollama) -> Pace:
    await ollama.unload()
    first = await ollama.ask("chat", chat(ollama.model))
    answer = await ollama.ask("chat", chat(ollama.model, tokens=32))
    read = await ollama.ask("chat", chat(ollama.model, words(400), tokens=1))
    if not (first.done and answer.done and read.done):
        raise Unsuitable(f"{ollama.model} does not answer: {first.error or answer.error or read.error}.")
    loaded = next(model for model in (await ollama.get("/api/ps"))["models"] if model["name"] == ollama.model)
    return Pace(
        load=first.lines[-1].get("load_duration", 0) / 1e9,
        token=_each(answer, "eval"),
        prompt_token=_each(read, "prompt_eval"),
        context=loaded.get("context_length", 2048),
    )


def _each(answer: Answer, name: str) -> float:
    """Seconds per token; at least a microsecond, because Ollama leaves out what is zero."""
    done = answer.lines[-1]
    return float(max(1e-6, done.get(f"{name}_duration", 0) / 1e9 / done.get(f"{name}_count", 1)))
