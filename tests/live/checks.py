"""The checks. Each one asks both sides and returns what it saw; `CHECKS` names them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from time import monotonic
from typing import Any

from tests.live.bodies import SCHEMA, WEATHER, chat, generate, picture, words
from tests.live.pace import STATUS_INTERVAL, Pace
from tests.live.sides import Answer, Gateway, Json, Ollama


@dataclass(frozen=True)
class Sides:
    ollama: Ollama
    gateway: Gateway
    pace: Pace

    @property
    def model(self) -> str:
        return self.ollama.model


@dataclass(frozen=True)
class Seen:
    direct: str
    gateway: str
    good: bool


class NotApplicable(Exception):
    """The check does not apply to this server or model; the message says why."""


Make = Callable[[str], tuple[str, Json]]
"""Makes a kind and a request body from the model's name."""

Check = Callable[[Sides], Awaitable[Seen]]


async def models(sides: Sides) -> Seen:
    """Both sides list the same models in the same order, and the same ones as loaded."""
    tags, loaded = await sides.ollama.get("/api/tags"), await sides.ollama.get("/api/ps")
    names = [model["name"] for model in tags["models"]]
    listed = (await sides.gateway.get("/api/models"))["models"]
    good = [model["name"] for model in listed] == names
    in_memory = {model["name"] for model in loaded["models"]} & set(names)
    good = good and {model["name"] for model in listed if model["loaded"]} == in_memory
    return Seen(f"{len(names)}, {len(in_memory)} loaded", "the same" if good else str(listed), good)


async def same_text(sides: Sides, kind: str) -> Seen:
    """The same seed at temperature 0 gives the same text directly, by POST, by GET and as a stream resource."""
    body = chat(sides.model) if kind == "chat" else generate(sides.model)
    direct = await _asked_twice(sides, kind, body)
    options = {f"options.{name}": str(value) for name, value in body["options"].items()}
    query = {"model": sides.model, "prompt": "Why is the sky blue?", "think": "false", **options}
    ways = {
        "POST": await sides.gateway.ask(kind, body),
        "GET": await sides.gateway.ask_by_query(kind, query),
        "stream": await sides.gateway.ask_by_stream(kind, body),
    }
    others = [
        f"{way} {answer.short}" for way, answer in ways.items() if answer.content != direct.content or not answer.done
    ]
    return Seen(direct.short, ", ".join(others) or "the same three times", direct.done and not others)


async def alike(sides: Sides, make: Make, uses: str = "") -> Seen:
    """Both sides give the same content in the same fields, or the same refusal. `uses` is the field under test."""
    kind, body = make(sides.model)
    direct = await _asked_twice(sides, kind, body)
    through = await sides.gateway.ask(kind, body)
    if direct.error:
        return Seen(direct.short, through.short, _same_refusal(direct, through))
    if uses and uses not in direct.fields:
        raise NotApplicable(f"the model's answer has no {uses}")
    same = direct.done == through.done and direct.content == through.content and direct.fields == through.fields
    return Seen(direct.short, "the same" if same else through.short, same)


async def load(sides: Sides) -> Seen:
    """A request without a prompt loads the model, and then `/api/ps` lists it."""
    seen = []
    for side in (sides.ollama, sides.gateway):
        await sides.ollama.unload()
        answer = await side.ask("generate", {"model": sides.model})
        listed = "listed" if await sides.ollama.loaded() else "not listed"
        seen.append(f"{answer.lines[-1].get('done_reason')}, {listed}")
    return Seen(seen[0], seen[1], seen == ["load, listed"] * 2)


async def unload(sides: Sides) -> Seen:
    """`keep_alive` 0 without a prompt unloads the model, and `/api/ps` no longer lists it."""
    seen = []
    for side in (sides.ollama, sides.gateway):
        await sides.ollama.ask("generate", {"model": sides.model})
        answer = await side.ask("generate", {"model": sides.model, "keep_alive": 0})
        gone = await sides.ollama.comes_to(False, within=sides.pace.answering / 2)
        listed = "listed" if gone is None else "not listed"
        seen.append(f"{answer.lines[-1].get('done_reason')}, {listed}")
    return Seen(seen[0], seen[1], seen == ["unload, not listed"] * 2)


async def loading(sides: Sides) -> Seen:
    """The phase is `loading` while the model loads, and never again once it is loaded."""
    await sides.ollama.unload()
    phases = _known((await sides.gateway.ask("chat", chat(sides.model))).phases)
    if not phases and sides.pace.load < 5 * STATUS_INTERVAL:
        raise NotApplicable(f"the model loads in {sides.pace.load:.2f} s, which is too short to be seen")
    good = _course(phases) in (["loading"], ["loading", "prompt"])
    return Seen(f"loads in {sides.pace.load:.2f} s", " → ".join(_course(phases)), good)


async def reading(sides: Sides) -> Seen:
    """The phase is `prompt` while a loaded model reads a long one, and never `loading`."""
    await sides.ollama.ask("chat", chat(sides.model))
    long = chat(sides.model, words(sides.pace.long_prompt_words), tokens=1)
    phases = _known((await sides.gateway.ask("chat", long)).phases)
    if not phases and sides.pace.reading < 5 * STATUS_INTERVAL:
        raise NotApplicable(f"a long prompt is read in {sides.pace.reading:.2f} s, which is too short to be seen")
    good = _course(phases) == ["prompt"]
    shown = f"{sides.pace.long_prompt_words} words in {sides.pace.reading:.2f} s"
    return Seen(shown, " → ".join(_course(phases)), good)


async def leave(sides: Sides, phase: str, *, stop: bool = False) -> Seen:
    """Ollama is idle soon after a client has left: it answers the next one, then unloads the model when asked to.

    Soon is half of what the request would have gone on for. While it loads, the load itself has to be aborted.
    """
    prompt = words(sides.pace.long_prompt_words if phase == "prompt" else 10)
    body = chat(sides.model, f"{prompt}. Write a very long text about that.", tokens=sides.pace.long_answer_tokens)
    direct = await _idle(sides, partial(sides.ollama.leave_while, phase, body), phase)
    through = await _idle(sides, partial(sides.gateway.leave_while, phase, body, stop=stop), phase)
    return Seen(direct[0], through[0], direct[1] and through[1])


async def cut(sides: Sides) -> Seen:
    """A stream that is cut goes on with the next event: nothing is lost and nothing comes twice."""
    body = chat(sides.model)
    direct = await _asked_twice(sides, "chat", body)
    through, ids = await sides.gateway.ask_with_a_cut(body)
    numbers = [int(each.rpartition("-")[2]) for each in ids]
    good = through.done and through.content == direct.content and numbers == list(range(1, len(numbers) + 1))
    return Seen(direct.short, f"the same in {len(ids)} events" if good else f"{through.short}, {numbers}", good)


async def parallel(sides: Sides, count: int = 20) -> Seen:
    """Many chats at once are all answered."""
    seen = []
    for side in (sides.ollama, sides.gateway):
        bodies = [chat(sides.model, f"What is {number} plus one?", tokens=8) for number in range(count)]
        answers = await asyncio.gather(*(side.ask("chat", body) for body in bodies))
        errors = [answer.short for answer in answers if not answer.done]
        seen.append(f"{count - len(errors)} of {count}" + (f", {errors[0]}" if errors else ""))
    return Seen(seen[0], seen[1], seen == [f"{count} of {count}"] * 2)


async def recorded(sides: Sides, body: bytes, error: str = "") -> Seen:
    """Ollama reads odd JSON as recorded. The gateway may be stricter, but says what is wrong."""
    body = body.replace(b"MODEL", sides.model.encode())
    direct, through = await sides.ollama.ask("chat", body), await sides.gateway.ask("chat", body)
    good = direct.error == error and (through.done or through.code in ("invalid_request", "ollama_error"))
    return Seen(direct.short, through.short, good)


async def _asked_twice(sides: Sides, kind: str, body: Json) -> Answer:
    """The direct answer, when the prompt is in Ollama's cache: without it the numbers differ a little, and so may
    the text.
    """
    await sides.ollama.ask(kind, body)
    return await sides.ollama.ask(kind, body)


CODES = {404: "model_not_found", 503: "busy"}


def _same_refusal(direct: Answer, through: Answer) -> bool:
    """A wrong request is refused in Ollama's words, or by the gateway itself, which then does not ask Ollama."""
    try:
        message = json.loads(direct.error)["error"]["message"]  # the runner's own
    except (ValueError, TypeError, KeyError):
        message = direct.error
    if through.code == "invalid_request":
        return direct.status in (400, 500)
    return message in through.error and through.code == CODES.get(direct.status, "ollama_error")


def _known(phases: list[str]) -> list[str]:
    """The phases without those in which the gateway does not know yet what Ollama does."""
    return [phase for phase in phases if phase != "starting"]


def _course(phases: list[str]) -> list[str]:
    """The phases up to the first token, in order and without repetitions."""
    return [phase for phase, _ in groupby(phases) if phase != "generating"]


async def _idle(sides: Sides, leave: Callable[[], Awaitable[bool]], phase: str) -> tuple[str, bool]:
    """Disconnect in this phase, and see how soon the model is free."""
    limit = sides.pace.answering / 2 + (sides.pace.reading if phase == "prompt" else 0)
    await (sides.ollama.unload() if phase == "loading" else sides.ollama.ask("chat", chat(sides.model)))
    if not await leave():
        raise NotApplicable(f"{phase} was over before it could be seen")
    if phase == "loading" and await sides.ollama.comes_to(True, within=1.5 * sides.pace.load) is not None:
        return "the load went on", False
    begin = monotonic()
    answer = await sides.ollama.ask("chat", chat(sides.model, tokens=4))
    answered = monotonic() - begin
    limit += sides.pace.load if phase == "loading" else 0
    gone = await sides.ollama.unload(within=limit - answered)
    shown = f"next answer in {answered:.2f} s, " + ("still busy" if gone is None else f"free {gone:.2f} s later")
    return shown, answer.done and gone is not None and answered < limit


def _chat(*prompt: str, **fields: Any) -> Make:
    return lambda model: ("chat", chat(model, *prompt, **fields))


def _generate(prompt: str, **fields: object) -> Make:
    return lambda model: ("generate", generate(model, prompt, **fields))


def _picture(model: str) -> tuple[str, Json]:
    body = chat(model, "What colour is this?")
    body["messages"][0]["images"] = [picture()]
    return "chat", body


def _too_long(model: str) -> tuple[str, Json]:
    return "chat", chat(model, words(2000), truncate=False, options={"num_ctx": 512, "num_predict": 4})


_ARGUMENTS = b'"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]'

CHECKS: dict[str, Check] = {
    "models": models,
    "chat: same seed, same text": partial(same_text, kind="chat"),
    "generate: same seed, same text": partial(same_text, kind="generate"),
    "generate: context": partial(alike, make=_generate("And then?", context=[1, 2, 3]), uses="context"),
    "generate: insert": partial(alike, make=_generate("def one():\n", suffix="\n    return result")),
    "chat: format json": partial(alike, make=_chat("Name a colour as JSON.", format="json")),
    "chat: format schema": partial(alike, make=_chat("Name a colour.", format=SCHEMA)),
    "chat: logprobs": partial(alike, make=_chat(logprobs=True, top_logprobs=2), uses="logprobs"),
    "chat: thinking": partial(alike, make=_chat(think=True), uses="thinking"),
    "chat: tools": partial(
        alike, make=_chat("What is the weather in Paris?", tools=[WEATHER], tokens=100), uses="tool_calls"
    ),
    "chat: vision": partial(alike, make=_picture),
    "error: missing model": partial(alike, make=lambda _: ("chat", chat("no-such-model"))),
    "error: wrong option": partial(alike, make=_chat(options={"num_ctx": "many"})),
    "error: too long": partial(alike, make=_too_long),
    "error: broken schema": partial(alike, make=_chat(format={"$ref": "#/nowhere"})),
    "wire: byte order mark": partial(
        recorded, body=b'\xef\xbb\xbf{"model":"MODEL"}', error="invalid character 'ï' looking for beginning of value"
    ),
    "wire: arguments as text": partial(
        recorded,
        body=b'{"model":"MODEL","messages":[{"role":"assistant",%b}]}' % _ARGUMENTS,
        error="Value looks like object, but can't find closing '}' symbol",
    ),
    "wire: role in capitals, broken text": partial(
        recorded,
        body=b'{"model":"MODEL","options":{"num_predict":4},"messages":[{"role":"USER","content":"\xff\\ud83d"}]}',
    ),
    "wire: prompt instead of answer": partial(alike, make=_chat(_debug_render_only=True), uses="_debug_info"),
    "load": load,
    "unload": unload,
    "phase: loading": loading,
    "phase: prompt": reading,
    "left while loading": partial(leave, phase="loading"),
    "left while it reads the prompt": partial(leave, phase="prompt"),
    "left while it generates": partial(leave, phase="generating"),
    "stopped while it generates": partial(leave, phase="generating", stop=True),
    "cut and resumed": cut,
    "20 in parallel": parallel,
}
