"""The named faults. The table of what they do is in the package's docstring."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Literal

from gateway.demo.generation import Generation
from gateway.demo.models import Model
from gateway.demo.wire import RefusedError, forever

PREFIX = "fault:"

_SENTENCE = "This answer will not end well, and that is its purpose: it is here so that others can learn to cope."
_MIB = 1024 * 1024
_HARD = [
    *("Caf", "e", "\u0301", " 👩", "\u200d👩", "\u200d👧", "\u200d👦", " 🇩", "🇪", " 👍", "🏽", " 日本", "語"),
    *(" <b>&amp;</b>", " \"quoted\" 'single'", " back\\slash", "\n", "line two\r\n", "\ttab"),
    *(" \u2028", "\u2029", " \x85", " \x00\x01\x1f", " \ufeff", " \u202e", " </script>"),
    *(" data: x\n\nevent: done\nid: 1\n\n", ' {"done":true}', "\n\n", "end"),
]
"""Text that is hard to carry: characters in pieces, what JSON or JavaScript must escape, what looks like SSE."""


def words(count: int) -> list[str]:
    """So many tokens, no two neighbours the same."""
    sentence = _SENTENCE.split(" ")
    return [(" " if i else "") + sentence[i % len(sentence)] for i in range(count)]


async def _stall(generation: Generation, n: int) -> None:
    await generation.say(words(n))
    await forever()


async def _silent(_: Generation, __: int) -> None:
    await forever()


async def _truncate(generation: Generation, n: int) -> None:
    await generation.say(words(n))
    await generation.end()


async def _crash(generation: Generation, n: int) -> None:
    await generation.say(words(n))
    await generation.fail("an error was encountered while running the model: unexpected EOF")


async def _bare_eof(generation: Generation, n: int) -> None:
    await generation.say(words(n))
    await generation.exchange.hang_up()


async def _no_response(generation: Generation, _: int) -> None:
    await generation.exchange.hang_up()


async def _empty(generation: Generation, _: int) -> None:
    await generation.exchange.end()


async def _no_tokens(generation: Generation, _: int) -> None:
    await generation.done()


async def _not_json(generation: Generation, n: int) -> None:
    await generation.say(words(n))
    await generation.exchange.write(b"upstream connect error or disconnect/reset before headers\n")
    await generation.done()


def _line_around(size: int, generation: Generation) -> tuple[bytes, bytes, int]:
    """What stands before and after the text in a line, and how long the text is in one of `size` bytes."""
    before, after = generation.line("\0").split(b"\\u0000")
    return before, after, size - len(before) - len(after)


async def _oversized_line(generation: Generation, n: int) -> None:
    before, after, left = _line_around(n, generation)
    await generation.exchange.write(before)
    piece = b"x" * 65_536
    for begin in range(0, left, len(piece)):
        await generation.exchange.write(piece[: left - begin])
    await generation.exchange.write(after)
    await generation.done()


async def _long_line(generation: Generation, n: int) -> None:
    before, after, left = _line_around(n, generation)
    await generation.exchange.write(before + b"x" * left + after)
    await generation.done()


async def _repeat(generation: Generation, n: int) -> None:
    await generation.say(["The", " sky", *repeat(" the", n + 1)])
    await generation.end()


async def _cr(generation: Generation, n: int) -> None:
    for word in words(n):
        line = generation.line(word)
        await generation.exchange.write(line.replace(b',"created_at"', b',\r"created_at"')[:-1] + b"\r\n")
    await generation.exchange.write(generation.line(tail=b'"done":true,\r"done_reason":"stop"')[:-1] + b"\r\n")
    await generation.exchange.end()


async def _burst(generation: Generation, n: int) -> None:
    generation.rate = 0
    await generation.say(words(n))
    await generation.done()


async def _unicode(generation: Generation, _: int) -> None:
    await generation.say(_HARD)
    await generation.done()


async def _rechunked(generation: Generation, n: int) -> None:
    lines = b"".join(generation.line(token) for token in _HARD) + generation.line(
        tail=b'"done":true,"done_reason":"stop"'
    )
    for begin in range(0, len(lines), n):
        await generation.exchange.write(lines[begin : begin + n])
    await generation.exchange.end()


async def _unterminated(generation: Generation, n: int) -> None:
    await generation.say(words(n))
    await generation.exchange.write(generation.line(tail=b'"done":true,"done_reason":"stop"')[:-1])
    await generation.exchange.end()


async def _html(generation: Generation, _: int) -> None:
    page = b"<!doctype html>\n<title>Welcome</title>\n<p>This is a captive portal, not Ollama.\n"
    await generation.exchange.reply(page, "text/html; charset=utf-8")


_ERRORS = {
    400: '{"error": {"code": 400, "message": "request (5000 tokens) exceeds the available context size '
    '(2048 tokens), try increasing it", "type": "exceed_context_size_error"}}',
    500: "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details",
}


async def _error(_: Generation, status: int) -> None:
    raise RefusedError(status, _ERRORS.get(status, f"simulated error {status}"), late=True)


async def _unauthorized(_: Generation, __: int) -> None:
    raise RefusedError(401, "unauthorized", signin_url="https://ollama.com/connect?name=demo&key=none")


async def _busy(_: Generation, __: int) -> None:
    raise RefusedError(503, "server busy, please try again.  maximum pending requests exceeded")


async def _load_failed(_: Generation, __: int) -> None:
    raise RefusedError(500, "llama-server process has terminated: exit status 1")


async def _slow_load(generation: Generation, _: int) -> None:
    await generation.say(words(20))
    await generation.done()


@dataclass(frozen=True)
class Fault:
    """`act(generation, n)` is all that happens, at its time: on arrival, after the load, or after the prompt."""

    act: Callable[[Generation, int], Awaitable[None]]
    n: int = 8
    when: Literal["arrival", "load", "prompt"] = "prompt"

    @property
    def load_seconds(self) -> float | None:
        """How long the load takes; None is as long as any other."""
        return self.n if self.act is _slow_load else None

    @property
    def kills_runner(self) -> bool:
        return self.act in {_crash, _load_failed} or (self.act is _error and self.n == 500)


FAULTS = {
    "stall": Fault(_stall),
    "silent": Fault(_silent),
    "truncate": Fault(_truncate),
    "repeat": Fault(_repeat, 30),
    "crash": Fault(_crash, 4),
    "bare-eof": Fault(_bare_eof, 6),
    "no-response": Fault(_no_response),
    "empty": Fault(_empty),
    "no-tokens": Fault(_no_tokens),
    "not-json": Fault(_not_json),
    "html": Fault(_html),
    "oversized-line": Fault(_oversized_line, 17 * _MIB),
    "long-line": Fault(_long_line, _MIB),
    "cr": Fault(_cr),
    "unicode": Fault(_unicode),
    "rechunked": Fault(_rechunked, 7),
    "unterminated": Fault(_unterminated),
    "burst": Fault(_burst, 5000),
    "error": Fault(_error, 500),
    "error-400": Fault(_error, 400),
    "error-401": Fault(_unauthorized, when="arrival"),
    "error-503": Fault(_busy, when="arrival"),
    "load-failed": Fault(_load_failed, when="load"),
    "slow-load": Fault(_slow_load, 60),
}


def find(name: str) -> Fault | None:
    """The fault that a model's name asks for: `fault:NAME:latest` is not one, `fault:NAME-N` sets its number."""
    tag = name.removeprefix(PREFIX)
    if tag == name:
        return None
    if tag in FAULTS:
        return FAULTS[tag]
    base, _, number = tag.rpartition("-")
    if base not in FAULTS or not number.isdecimal():
        return None
    fault = FAULTS[base]
    return Fault(fault.act, int(number), fault.when)


def model(name: str) -> Model:
    """The model that stands for a fault. It claims to know everything, so that any request gets as far as it."""
    return Model(name, ("completion", "tools", "thinking", "vision", "insert"))
