"""Any query, any body and any id: there is no 500, every stream ends once, and Ollama gets only what it understands."""

import asyncio
import json
from contextlib import AsyncExitStack
from urllib.parse import quote_from_bytes, urlencode

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from yarl import URL

from gateway.demo.asks import Ask
from tests.gateways import Gateway, gateway
from tests.test_bad_input import ANSWER, EVENTS, ROUTES
from tests.upstreams import Upstream, says, upstream, whole

WORDS = st.one_of(
    st.sampled_from(
        ["m", "", "true", "1", "-1", "1.5", "json", "{}", "[]", '{"a":1}', "null", "5m", "\x00", "Ünï", "🦙"]
    ),
    st.text(max_size=20),
)
NAMES = st.one_of(
    st.sampled_from(
        ["model", "prompt", "system", "think", "format", "keep_alive", "preset", "resume_window", "last_event_id"]
    ),
    st.sampled_from(
        ["options.temperature", "options.stop", "options.num_ctx", "options.", "variables.a", "variables."]
    ),
    st.text(max_size=8),
)
QUERIES = st.one_of(
    st.lists(st.tuples(NAMES, WORDS), max_size=6).map(urlencode),
    st.lists(st.tuples(NAMES, WORDS), max_size=6).map(
        lambda pairs: urlencode([("prompt", "x"), ("model", "m"), *pairs])
    ),
    st.binary(max_size=50).map(quote_from_bytes),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "suffix",
        "system",
        "template",
        "context",
        "raw",
        "images",
        "format",
        "keep_alive",
        "options",
        "think",
        "truncate",
        "shift",
        "logprobs",
        "top_logprobs",
        "tools",
        "stream",
        "chat",
        "generate",
        "pull",
        "input",
        "dimensions",
        "name",
        "preset",
        "variables",
        "resume_window",
    ]
)
MESSAGES = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "images", "tool_calls", "thinking"]), VALUES, max_size=3),
    max_size=2,
)
BODIES = st.one_of(
    st.binary(max_size=50),
    st.dictionaries(st.one_of(KNOWN, st.text(max_size=5)), st.one_of(VALUES, MESSAGES), max_size=5).map(
        lambda body: json.dumps({"model": "m"} | body).encode("utf-8", "surrogatepass")
    ),
)
FUZZ = hypothesis_settings(max_examples=300, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
REFUSALS = {403, 413, 422}
OLLAMAS = ["chat", "generate", "embed", "embeddings", "show", "pull", "push", "blobs/x"]
OLLAMAS_REFUSALS = {400, 403, 404, 413}


@pytest.mark.slow
def test_fuzz() -> None:
    """Whatever is asked, there is no 500, every stream ends once, and Ollama gets only what it understands."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        ollama, gw = runner.run(_start(stack))

        @FUZZ
        @given(st.sampled_from(ROUTES), QUERIES, st.sampled_from([{}, EVENTS]))
        def get(route: str, query: str, headers: dict[str, str]) -> None:
            runner.run(_ask(gw, "GET", f"{route}?{query}", headers=headers))

        @FUZZ
        @given(st.sampled_from([*ROUTES, "/api/streams"]), BODIES)
        def post(route: str, body: bytes) -> None:
            runner.run(_ask(gw, "POST", route, data=body))

        @FUZZ
        @given(st.sampled_from(OLLAMAS), BODIES, QUERIES, st.booleans())
        def post_below_ollama(name: str, body: bytes, query: str, asks: bool) -> None:
            runner.run(_ask_as_ollama(gw, f"/ollama/api/{name}" + f"?{query}" * asks, body))

        @FUZZ
        @given(st.text(st.characters(codec="latin-1", exclude_characters="\x7f", min_codepoint=32), max_size=50))
        def resume(last_event_id: str) -> None:
            runner.run(_ask(gw, "GET", "/api/chat?model=m&prompt=x", headers={"Last-Event-ID": last_event_id.strip()}))

        try:
            get()
            post()
            post_below_ollama()
            resume()
            assert len(ollama.requests) > 50
            for request in ollama.requests:
                if request.path in ROUTES:
                    Ask.parse("chat" if request.path == "/api/chat" else "generate", request.body)
        finally:
            runner.run(stack.aclose())


async def _start(stack: AsyncExitStack) -> tuple[Upstream, Gateway]:
    shown = says(whole(200, b'{"details":{}}'))
    ollama = await stack.enter_async_context(upstream(ANSWER, show=shown))
    return ollama, await stack.enter_async_context(gateway(ollama.url, retain_seconds=0))


async def _ask(
    gw: Gateway, method: str, path: str, *, headers: dict[str, str] | None = None, data: bytes | None = None
) -> None:
    url = URL(gw.url + path, encoded=True)
    async with gw.session.request(method, url, headers=headers, data=data) as response:
        body = await response.read()
    if response.status == 200:
        assert body.count(b"event: end\n") == 1
        return
    if response.status not in (201, 204):
        assert response.status in REFUSALS, (response.status, body)
        assert orjson.loads(body).keys() == {"error", "code", "status", "phase", "retryable"}


async def _ask_as_ollama(gw: Gateway, path: str, data: bytes) -> None:
    async with gw.session.post(URL(gw.url + path, encoded=True), data=data) as response:
        body = await response.read()
    if response.status == 204:
        return
    said = [orjson.loads(line) for line in body.splitlines()]
    if response.status != 200:
        assert response.status in OLLAMAS_REFUSALS, (response.status, body)
        assert [each.keys() for each in said] == [{"error"}]
    assert said
    assert all(isinstance(each, dict) for each in said)
