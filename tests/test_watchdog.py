"""Nobody can stop it: no request, and no answer of Ollama's, holds the event loop for long, whatever its bytes.

A turn of the loop is measured in CPU time of its thread, so that a busy machine changes nothing. Each turn has the
client's and Ollama's part in it, too.
"""

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from io import BytesIO
from time import thread_time
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from gateway.upstream.wire import as_shown, begins, error_text, may_pass, normal_name, progress_of, weights
from tests.gateways import Gateway, gateway
from tests.upstreams import Peer, says, streams, token, upstream, whole

MOST_MS = 50.0
MOST_REFERENCES = 5  # the same, on a machine that is slow at the moment
SIZE = 60_000

HOSTILE = [
    *(
        ":",
        "/",
        ":/",
        "//",
        " ",
        "\t",
        "`",
        '"',
        "'",
        "\\",
        "\\u",
        "{",
        "[",
        "(",
        "{{",
        "{prompt}",
        ",",
        ";",
        "=",
        "%",
        "&",
    ),
    *("0", "9.", "-", "a", "a.", "A", "é", "ſ", "::ffff:", "FROM sha256-", "does not exist", "longer than the "),
]


def long(text: str, end: str = "/") -> str:
    """The text many times, and another end: a pattern that finds no match only there tries again from everywhere."""
    return (text * SIZE)[:SIZE] + end


class Watch:
    """The longest turn of the loop, in milliseconds, for each thing that was tried."""

    def __init__(self) -> None:
        self.worst: dict[str, float] = {}
        self.trying = ""

    async def run(self) -> None:
        while True:
            begin = thread_time()
            await asyncio.sleep(0)
            ms = (thread_time() - begin) * 1000
            self.worst[self.trying] = max(self.worst.get(self.trying, 0.0), ms)


@pytest.fixture(autouse=True)
def undisturbed() -> Iterator[None]:
    """Without what else takes time in a run of all tests: coverage, and collecting the garbage of other tests."""
    trace = sys.gettrace()
    sys.settrace(None)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    sys.settrace(trace)


def reference_ms() -> float:
    """The CPU time of a small piece of work: about 10 ms, and more where two share the core of a processor."""
    begin = thread_time()
    sum(number * number for number in range(100_000))
    return (thread_time() - begin) * 1000


async def assert_free(try_all: Callable[[Watch], Awaitable[None]]) -> None:
    """Run `try_all`, which notes what it tries: none of that may hold the loop.

    What holds it does so each time. Once in a thousand times something else does: the machine, or the memory.
    """
    for _ in range(3):
        watch = Watch()
        watching = asyncio.create_task(watch.run())
        await try_all(watch)
        watching.cancel()
        most = max(MOST_MS, MOST_REFERENCES * reference_ms())
        slow = {name: round(ms) for name, ms in watch.worst.items() if ms > most}
        if not slow:
            return
    raise AssertionError(slow)


def bodies() -> Iterator[tuple[str, str, object]]:
    """The route, the field, and a body with a hostile text in that field."""
    user = {"role": "user", "content": "Hi"}
    for text in map(long, HOSTILE):
        for name in ("model", "format", "keep_alive", "think", text[:200]):
            yield "/api/chat", name, {"model": "m", "messages": [user], name: text}
        for name in ("role", "content", "thinking", "tool_name", "tool_call_id"):
            yield "/api/chat", f"messages.{name}", {"model": "m", "messages": [user | {name: text}]}
        yield "/api/chat", "messages.images", {"model": "m", "messages": [user | {"images": [text]}]}
        call = {"function": {"name": text, "arguments": text}}
        yield "/api/chat", "messages.tool_calls", {"model": "m", "messages": [user | {"tool_calls": [call]}]}
        yield (
            "/api/chat",
            "options.stop",
            {"model": "m", "messages": [user], "options": {"stop": [text], "num_ctx": text}},
        )
        for name in ("model", "prompt", "suffix", "system", "template"):
            yield "/api/generate", name, {"model": "m", "prompt": "Hi", name: text}
        yield "/api/streams", "preset", {"chat": {"model": "m"}, "preset": text}
        yield "/api/streams", "variables", {"chat": {"model": "m"}, "preset": "p", "variables": {text: text}}
        yield "/api/streams", "resume_window", {"chat": {"model": "m"}, "resume_window": text}
        yield "/api/streams", "pull", {"pull": {"model": text, "name": text}}


@pytest.mark.slow
async def test_no_field_of_a_body_holds_the_loop() -> None:
    async def try_all(watch: Watch) -> None:
        for route, name, body in bodies():
            watch.trying = f"{route} {name}"
            async with gw.session.post(gw.url + route, data=orjson.dumps(body)) as response:
                await response.read()

    async with upstream(streams(token("a"))) as ollama, gateway(ollama.url, allow_pull=True) as gw:
        await assert_free(try_all)


def many(before: bytes, item: bytes, after: bytes, number: int) -> bytes:
    return before + b",".join([item] * number) + after


COUNTS = {
    "messages": many(b'{"model":"m","messages":[', b'{"role":"u"}', b"]}", 90_000),
    "tool calls": many(b'{"messages":[{"role":"u","tool_calls":[', b'{"function":{"name":"a"}}', b"]}]}", 90_000),
    "tool calls that are few enough": many(
        b'{"messages":[{"role":"u","tool_calls":[', b'{"function":{"name":"a"}}', b"]}]}", 2_990
    ),
    "messages that are few enough": many(b'{"messages":[', b'{"role":"u","content":"a"}', b"]}", 5_990),
    "images": many(b'{"messages":[{"role":"u","images":[', b'""', b"]}]}", 200_000),
    "context": many(b'{"prompt":"a","context":[', b"12345", b"]}", 131_072),
    "nesting": b'{"a":' * 900 + b"1" + b"}" * 900,
    "more nesting": b'{"tools":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
    "fields": b"{" + b",".join(b'"%d":1' % number for number in range(40_000)) + b"}",
    "more fields": b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b"}",
    "fields of messages": many(b'{"messages":[', b'{"role":"u","a":1,"b":1,"c":1}', b"]}", 5_990),
    "brackets": many(b'{"x":[', b"[]", b"]}", 190_000),
    "too many half pairs": b'{"a":"' + b"\\ud83d" * 300_000 + b'"}',
    "escapes": b'{"b":"\\ud83d' + b"\\\\" * 300_000 + b'"}',
    "variables": many(b'{"chat":{},"variables":{"a":1,', b'"b":1', b"}}", 90_000),
    "numbers of a tool": many(b'{"messages":[],"tools":[{"x":[', b"12345678901", b"]}]}", 190_000),
    "words and numbers of a tool": many(b'{"messages":[],"tools":[{"x":[', b'"words of a tool",1', b"]}]}", 95_000),
    "half a pair": b'{"prompt":"' + b"\\ud83d" * 10_000 + b'"}',
}


@pytest.mark.parametrize("name", COUNTS)
async def test_no_number_of_values_holds_the_loop(name: str) -> None:
    async def try_all(watch: Watch) -> None:
        for route in ("/api/chat", "/api/generate", "/api/streams"):
            watch.trying = route
            async with gw.session.post(gw.url + route, data=BytesIO(COUNTS[name])) as response:
                await response.read()

    async with upstream(streams(token("a"))) as ollama, gateway(ollama.url) as gw:
        await assert_free(try_all)


async def test_large_bodies_do_not_share_a_turn_of_the_loop() -> None:
    async def post() -> None:
        async with gw.session.post(gw.url + "/api/chat", data=BytesIO(COUNTS["fields of messages"])) as response:
            await response.read()

    async def try_all(watch: Watch) -> None:
        await asyncio.gather(*(post() for _ in range(16)))

    async with upstream(streams(token("a"))) as ollama, gateway(ollama.url) as gw:
        await assert_free(try_all)


HEADERS = [
    *("Cookie", "Authorization", "Origin", "Referer", "X-Request-Id", "X-Forwarded-For", "X-Forwarded-Proto", "Accept"),
    *("Accept-Encoding", "Last-Event-ID", "Idempotency-Key", "Sec-Fetch-Site", "User-Agent", "Content-Type", "Range"),
    *("If-None-Match", "If-Modified-Since", "Access-Control-Request-Method", "Access-Control-Request-Headers"),
]
QUERY = [
    *("model", "prompt", "system", "preset", "think", "format", "keep_alive", "options.stop", "options.num_ctx"),
    *("variables.a", "resume_window", "last_event_id", "lastEventId", "idempotency_key", "unknown"),
]
PATHS = ["/", "/api/streams/", "/static/", "/api/chat/"]


async def ask(gw: Gateway, head: str) -> None:
    """Send a head as it is, and read the answer's first bytes."""
    address = urlsplit(gw.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(head.encode("latin-1", "replace") + b"\r\n\r\n")
    await reader.read(1000)
    writer.close()


@pytest.mark.slow
async def test_no_head_holds_the_loop() -> None:
    """Heads of 60,000 bytes in one header, in many, in the query, and in the path."""
    plain = "GET /api/chat?prompt=Hi&model=m HTTP/1.1\r\nHost: localhost\r\n"

    async def try_all(watch: Watch) -> None:
        for text in map(long, HOSTILE):
            safe = text.replace(" ", "+").replace("\t", "%09")
            for name in HEADERS:
                watch.trying = f"{name}: {text[:4]}"
                for each in (gw, locked):
                    await ask(each, f"{plain}{name}: {text}")
            for name in QUERY:
                watch.trying = f"?{name}={text[:4]}"
                await ask(gw, f"GET /api/chat?{name}={safe} HTTP/1.1\r\nHost: localhost")
            for path in PATHS:
                watch.trying = f"{path}{text[:4]}"
                await ask(gw, f"GET {path}{safe} HTTP/1.1\r\nHost: localhost")
            watch.trying = f"Host: {text[:4]}"
            await ask(gw, f"GET / HTTP/1.1\r\nHost: {text}")
        for number in (90, 20_000):
            watch.trying = f"{number} headers"
            names = "\r\n".join(f"{each}: 1" for each in range(number))
            for each in (gw, locked):
                await ask(each, plain + names)

    bounds = {"max_head_bytes": 2 * SIZE, "max_url_bytes": SIZE + 1000}
    keys = {"api_keys": "ada:" + "k" * 20, "trusted_proxies": "127.0.0.1"}
    async with (
        upstream(streams(token("a"))) as ollama,
        gateway(ollama.url, **bounds) as gw,
        gateway(ollama.url, **keys, **bounds) as locked,
    ):
        await assert_free(try_all)


@pytest.mark.slow
async def test_no_answer_of_ollamas_holds_the_loop() -> None:
    said = "Hi"

    def answer(make: Callable[[], object]) -> Callable[[Peer], Awaitable[None]]:
        async def send(peer: Peer) -> None:
            await says(whole(200, orjson.dumps(make())))(peer)

        return send

    async def chat(peer: Peer) -> None:
        await streams(orjson.dumps({"message": {"content": said}, "done_reason": said, "error": said}))(peer)

    def model() -> dict[str, Any]:
        return {"name": said, "digest": said, "modified_at": said, "details": {"parameter_size": said}}

    async def try_all(watch: Watch) -> None:
        nonlocal said
        for text in HOSTILE:
            said = long(text)
            for path in ("/api/models", "/readyz", "/api/chat?prompt=Hi", "/metrics"):
                watch.trying = f"{path} {text[:4]}"
                async with gw.session.get(gw.url + path) as response:
                    await response.read()

    answers = {
        "tags": answer(lambda: {"models": [model()] * 3}),
        "ps": answer(lambda: {"models": [model()]}),
        "show": answer(lambda: {"modelfile": said, "capabilities": [said], "model_info": {said: said}}),
        "version": answer(lambda: {"version": said}),
    }
    async with upstream(chat, **answers) as ollama, gateway(ollama.url, status_interval=0.02) as gw:
        await assert_free(try_all)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_word_of_ollamas_takes_long_to_read(text: str) -> None:
    """Each function by itself, with several ends."""
    for words in (*(long(text, end) for end in ("", "/", ":", "a", "!", '"', "\n")), long(text + "\n")):
        line = {"message": {"content": words}, "load_progress": words, words: words}
        reads: list[Callable[[], object]] = [
            partial(normal_name, words),
            partial(may_pass, words),
            partial(error_text, words),
            partial(weights, {"modelfile": words}),
            partial(begins, line),
            partial(progress_of, line),
            partial(as_shown, b"{}", line, shaped=True),
        ]
        for read in reads:
            begin = thread_time()
            read()
            assert (thread_time() - begin) * 1000 < MOST_MS
