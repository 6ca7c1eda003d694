"""The figures of /metrics agree exactly with what was done."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway import __version__
from gateway.ops.metrics import CONTENT_TYPE, MODELS
from tests.asks import STORY_PATH, quick
from tests.exposition import Family, parse
from tests.gateways import Gateway, gateway
from tests.sse import ending, messages

HELLO = "/api/chat?model=llama3.2&prompt=Hello"

DOCS = Path(__file__).parent.parent / "docs"

NAMES = {
    "gateway_streams_active": "gauge",
    "gateway_viewers_active": "gauge",
    "gateway_streams_total": "counter",
    "gateway_time_to_first_token_seconds": "histogram",
    "gateway_time_per_output_token_seconds": "histogram",
    "gateway_tokens_total": "counter",
    "gateway_queue_depth": "gauge",
    "gateway_queue_wait_seconds": "histogram",
    "gateway_readers_total": "counter",
    "gateway_resumes_total": "counter",
    "gateway_cancel_seconds": "histogram",
    "gateway_log_bytes": "gauge",
    "gateway_held_bytes": "gauge",
    "gateway_held_bytes_largest": "gauge",
    "gateway_upstream_errors_total": "counter",
    "gateway_ollama_up": "gauge",
    "gateway_build_info": "gauge",
}


async def scrape(gw: Gateway) -> dict[str, Family]:
    async with gw.session.get(gw.url + "/metrics") as response:
        assert response.headers["Content-Type"] == CONTENT_TYPE
        return parse(await response.text())


async def until(gw: Gateway, condition: Callable[[dict[str, Family]], bool]) -> dict[str, Family]:
    while not condition(families := await scrape(gw)):
        pass
    return families


async def test_the_names_are_the_contract_and_the_figures_start_at_nothing() -> None:
    async with gateway(quick()) as gw:
        families = await scrape(gw)
    assert {name: family.kind for name, family in families.items()} == NAMES
    build = families.pop("gateway_build_info")
    assert build.samples == {("gateway_build_info", frozenset({("version", __version__)})): 1}
    assert list(families.pop("gateway_ollama_up").samples.values()) == [1]
    assert not any(value for family in families.values() for value in family.samples.values())


async def test_outcomes_tokens_and_times_are_counted_by_kind_and_model() -> None:
    async with gateway(quick()) as gw:
        done = [messages(await gw.read(HELLO))[-1].json for _ in range(3)]
        asked = {"model": "llama3.2:latest", "prompt": "Hello", "raw": True}
        done.append(messages(await gw.read("/api/generate", json=asked))[-1].json)
        thought = messages(await gw.read("/api/chat?model=qwen3&prompt=Hello"))[-1].json
        families = await scrape(gw)

    streams, tokens = families["gateway_streams_total"], families["gateway_tokens_total"]
    assert streams.value(kind="chat", model="llama3.2:latest", outcome="complete") == 3
    assert streams.value(kind="generate", model="llama3.2:latest", outcome="complete") == 1
    assert streams.value(kind="chat", model="qwen3:latest", outcome="complete") == 1
    assert streams.total() == 5
    for direction, name in {"in": "prompt_eval_count", "out": "eval_count"}.items():
        assert all(line[name] > 0 for line in (*done, thought))
        assert tokens.value(model="llama3.2:latest", direction=direction) == sum(line[name] for line in done)
        assert tokens.value(model="qwen3:latest", direction=direction) == thought[name]
    for name in ("time_to_first_token", "time_per_output_token", "queue_wait"):
        assert families[f"gateway_{name}_seconds"].value("_count") == 5
    assert families["gateway_cancel_seconds"].value("_count") == 0
    assert families["gateway_streams_active"].value() == 0
    assert families["gateway_viewers_active"].value() == 0


async def test_failures_are_counted_by_code() -> None:
    codes = {
        "fault:error-500": "ollama_error",
        "fault:truncate": "truncated",
        "fault:not-json": "bad_upstream",
        "nosuch": "model_not_found",
        "fault:stall": "idle_timeout",
    }
    async with gateway(quick(), idle_timeout=0.05) as gw:
        for model, code in codes.items():
            for _ in range(2):
                assert ending(await gw.read(f"/api/chat?model={model}&prompt=Hi")) == ("error", code)
        families = await scrape(gw)
    errors = families["gateway_upstream_errors_total"]
    assert {dict(labels)["code"]: value for (_, labels), value in errors.samples.items()} == dict.fromkeys(
        codes.values(), 2
    )
    assert families["gateway_streams_total"].total(outcome="error") == 10
    assert families["gateway_tokens_total"].total() == 0


async def test_an_unreachable_ollama_is_an_upstream_error(closed_port: str) -> None:
    async with gateway(closed_port) as gw:
        await gw.read(HELLO)
        families = await scrape(gw)
    assert families["gateway_ollama_up"].value(server=closed_port) == 0
    assert families["gateway_upstream_errors_total"].value(code="ollama_unreachable") == 1
    assert families["gateway_time_to_first_token_seconds"].value("_count") == 0


async def test_levels_follow_streams_viewers_and_the_queue() -> None:
    async with gateway(quick(token_rate=5), max_active=2) as gw:
        async with (
            gw.open(STORY_PATH) as first,
            gw.open(STORY_PATH) as second,
            gw.open(STORY_PATH),
            gw.open(STORY_PATH),
        ):
            running = await first.next()
            await second.next()
            async with gw.open("/api/streams/" + (running.id or "").split("-")[0]) as also:
                await also.next()
                families = await scrape(gw)
        assert families["gateway_streams_active"].value() == 4
        assert families["gateway_viewers_active"].value() == 5
        assert families["gateway_queue_depth"].value() == 2
        assert families["gateway_log_bytes"].value() > 0
        assert families["gateway_log_bytes"].value() == gw.state["streams"].logs.size
        families = await until(gw, lambda families: families["gateway_cancel_seconds"].value("_count") == 4)
    assert families["gateway_streams_active"].value() == 0
    assert families["gateway_viewers_active"].value() == 0
    assert families["gateway_queue_depth"].value() == 0
    assert families["gateway_streams_total"].total(outcome="cancelled") == 4
    assert families["gateway_cancel_seconds"].value("_sum") < 4
    assert families["gateway_upstream_errors_total"].samples == {}


async def test_the_bytes_of_the_logs_go_when_they_are_forgotten() -> None:
    async with gateway(quick(), retain_seconds=0.2) as gw:
        await gw.read(STORY_PATH)
        held = (await scrape(gw))["gateway_log_bytes"].value()
        assert held > 100_000
        await until(gw, lambda families: families["gateway_log_bytes"].value() == 0)


async def test_resumes_are_counted_by_result() -> None:
    async with gateway(quick()) as gw:
        events = await gw.read(HELLO)
        first, last = events[1].id or events[2].id or "", events[-1].id or ""
        stranger = "0" * 32 + "-7"
        results = {
            "continued": [first, first, first],
            "ended": [last],
            "gone": [stranger, stranger],
            "invalid": ["nonsense"],
        }
        for ids in results.values():
            for last_event_id in ids:
                async with gw.session.get(gw.url + HELLO, headers={"Last-Event-ID": last_event_id}) as response:
                    await response.read()
        families = await scrape(gw)
    resumes = families["gateway_resumes_total"]
    assert {name: resumes.value(result=name) for name in results} == {name: len(ids) for name, ids in results.items()}
    assert resumes.total() == 7
    assert families["gateway_streams_total"].total() == 1


async def test_a_pull_counts_as_a_stream_and_nothing_else() -> None:
    async with gateway(quick(), allow_pull=True) as gw:
        sid = await gw.start(pull={"model": "smollm2"})
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)
        families = await scrape(gw)
    assert families["gateway_streams_total"].value(kind="pull", model="other", outcome="complete") == 1
    assert families["gateway_time_to_first_token_seconds"].value("_count") == 0
    assert families["gateway_tokens_total"].total() == 0


@pytest.mark.slow
async def test_made_up_model_names_add_no_series() -> None:
    async with gateway(quick(parallel=64)) as gw:
        await gw.read(HELLO)
        await gw.read("/api/chat?model=made-up&prompt=Hi")
        before = await scrape(gw)
        await each(1000, lambda n: gw.read(f"/api/chat?model=made-up-{n}&prompt=Hi"))
        after = await scrape(gw)
    assert series(after) == series(before)
    assert after["gateway_streams_total"].value(kind="chat", model="other", outcome="error") == 1001


async def test_even_names_that_answer_are_bounded() -> None:
    async with gateway(quick(parallel=64)) as gw:
        await each(MODELS + 50, lambda n: gw.read(f"/api/chat?model=fault:no-tokens-{n + 1}&prompt=Hi"))
        families = await scrape(gw)
    streams = families["gateway_streams_total"]
    assert len(streams.samples) == MODELS + 1
    assert streams.value(kind="chat", model="other", outcome="complete") == 50


async def each(count: int, run: Callable[[int], Awaitable[object]]) -> None:
    """Call `run` with the numbers below `count`, 50 at a time."""
    for start in range(0, count, 50):
        await asyncio.gather(*(run(n) for n in range(start, start + 50)))


def series(families: dict[str, Family]) -> set[object]:
    return {sample for family in families.values() for sample in family.samples}


async def test_the_guide_lists_every_metric_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `(gateway_\w+)` \| (\w+) \| (.*?) \|", (DOCS / "deployment.md").read_text(), re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == NAMES
    async with gateway(quick(), idle_timeout=0.05) as gw:
        last = (await gw.read(HELLO))[-1].id or ""
        await gw.read("/api/chat?model=fault:stall&prompt=Hi")
        async with gw.session.get(gw.url + HELLO, headers={"Last-Event-ID": last}) as response:
            await response.read()
        families = await scrape(gw)
    for name, _, labels in rows:
        used = {label for _, each in families[name].samples for label, _ in each} - {"le"}
        assert used == set(re.findall(r"`(\w+)`", labels)), name


async def test_the_dashboard_shows_what_there_is() -> None:
    """It shows every metric, none that does not exist, and only labels that they have."""
    text = (DOCS / "grafana.json").read_text()
    queries = [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
    shown = {name.removesuffix("_bucket") for query in queries for name in re.findall(r"gateway_\w+", query)}
    assert shown == NAMES.keys()
    labels = {"kind", "model", "outcome", "direction", "result", "dialect", "code", "version", "server", "le"}
    for query in queries:
        assert set(re.findall(r"\w+", "".join(re.findall(r"by \((.*?)\)", query)))) <= labels, query
