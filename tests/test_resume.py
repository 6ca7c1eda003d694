"""A dropped connection never loses a word and never runs the model twice."""

import asyncio
import random
from urllib.parse import quote

import orjson
import pytest

from gateway.demo import Simulator
from tests.asks import chat, quick
from tests.gateways import Gateway, gateway
from tests.raw import RawStream
from tests.servers import serve
from tests.sse import Event, ending, messages, numbered, text

GENERATIONS = 500
AT_ONCE = 40
PROMPTS = ["Hello", "Show me a table", "Write some code", "Tell me about bridges", "日本語で説明して"]


async def cut_client(url: str, path: str, chance: random.Random, cuts: int) -> list[Event]:
    """Every event that a client gets that is cut `cuts` times and reconnects with the last id that it has seen."""
    seen: list[Event] = []
    last_id: str | None = None

    def found(stream: RawStream) -> bool:
        """Whether the client may be cut now: only by an id can it find a one-shot's stream again."""
        return stream.received >= goal and bool(last_id or stream.last_id)

    for turn in range(cuts + 1):
        by_header = chance.random() < 0.5
        asked = path
        if last_id and not by_header:
            asked += ("&" if "?" in path else "?") + "last_event_id=" + last_id
        async with RawStream(url) as stream:
            await stream.ask(asked, headers={"Last-Event-ID": last_id} if last_id and by_header else {})
            if stream.status == 204:
                return seen
            assert stream.status == 200
            if turn == cuts:
                await stream.read()
            else:
                goal = chance.randrange(1, 12_000)
                await stream.read(found, at_most=chance.randrange(1, 900))
                stream.cut()
            seen += numbered(stream.events)
            last_id = stream.last_id or last_id
    return seen


async def check(gw: Gateway, ollama: str, number: int, seed: int) -> None:
    chance = random.Random(f"{seed}-{number}")
    prompt = chance.choice(PROMPTS)
    options = {"num_predict": chance.randrange(1, 120), "seed": 7}
    cuts = chance.randrange(6)
    if number % 2:
        query = "&".join(f"options.{name}={value}" for name, value in options.items())
        path = f"/api/chat?model=llama3.2&resume_window=60&prompt={quote(prompt)}&{query}"
    else:
        body = chat(prompt, options=options)
        path = f"/api/streams/{await gw.start(chat=body, resume_window=60)}"
    got = await cut_client(gw.url, path, chance, cuts)
    assert got[0].id
    sid = got[0].id.partition("-")[0]
    uncut = numbered(await gw.read(f"/api/streams/{sid}"))
    assert got == uncut, f"seed {seed}, generation {number}"
    assert [event.id for event in got] == [f"{sid}-{seq}" for seq in range(1, len(got) + 1)]
    assert ending(got) == ("complete", None)
    assert text(got) == await direct(gw, ollama, prompt, options)


async def check_all(gw: Gateway, ollama: str, simulator: Simulator, count: int, seed: int) -> None:
    """Check `count` generations, `AT_ONCE` at a time; the model is asked once for each."""
    at_once = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with at_once:
            await check(gw, ollama, number, seed)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(one(number))
    assert len(simulator.requests) == count
    assert simulator.running == 0


async def direct(gw: Gateway, ollama: str, prompt: str, options: dict[str, int]) -> str:
    """The same answer straight from a simulator, without a gateway."""
    body = chat(prompt, options=options)
    async with gw.session.post(ollama + "/api/chat", json=body) as response:
        lines = (await response.read()).splitlines()
    return "".join(orjson.loads(line)["message"]["content"] for line in lines)


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_cut_anywhere_and_reconnected_the_answer_is_the_uncut_one() -> None:
    """500 generations, each cut 0 to 5 times at any byte, by FIN or RST, resumed by header or by query."""
    seed = random.randrange(2**32)
    simulator = Simulator(token_rate=400, load_seconds=0.05, prompt_seconds=0.01, parallel=64)
    twin = quick(parallel=GENERATIONS)
    limits = {"max_active": 64, "num_parallel": 64, "max_queued": 500, "retain_seconds": 600}
    async with serve(twin.app) as ollama, gateway(simulator, **limits) as gw:
        await check_all(gw, ollama, simulator, GENERATIONS, seed)


async def test_a_reconnect_after_the_end_is_told_to_stop() -> None:
    simulator = quick()
    async with gateway(simulator) as gw:
        path = "/api/chat?model=llama3.2&prompt=Hi"
        events = await gw.read(path)
        for headers in ({"Last-Event-ID": events[-1].id or ""}, {"Last-Event-ID": f"{'0' * 32}-7"}):
            async with gw.session.get(gw.url + path, headers=headers) as response:
                assert response.status == 204
        assert len(simulator.requests) == 1


async def test_a_reader_that_missed_only_the_end_gets_only_the_end() -> None:
    simulator = quick()
    async with gateway(simulator) as gw:
        events = await gw.read("/api/chat?model=llama3.2&prompt=Hi")
        terminal = messages(events)[-1].id
        again = await gw.read("/api/chat?model=llama3.2&prompt=Hi", headers={"Last-Event-ID": terminal or ""})
        assert [event.name for event in again] == ["meta", "end"]
        assert again[-1] == events[-1]


@pytest.mark.parametrize(
    "last_event_id",
    [
        "x",
        "-",
        "{sid}",
        "{sid}-",
        "{sid}-00",
        "{sid}-01",
        "{sid}--1",
        "{sid}-99999",
        "{sid}-1-1",
        "../{sid}-1",
    ],
)
async def test_a_forged_id_gets_an_error_and_nobody_s_data(last_event_id: str) -> None:
    simulator = quick(token_rate=20)
    async with gateway(simulator) as gw, gw.open("/api/chat?model=llama3.2&prompt=Hi") as events:
        sid = (await events.next("meta")).json["id"]
        await events.next()
        forged = last_event_id.format(sid=sid)
        for path in ("/api/chat?prompt=Hi", "/api/generate?prompt=Hi", f"/api/streams/{sid}"):
            async with gw.session.get(gw.url + path, headers={"Last-Event-ID": forged}) as response:
                assert response.status == 422, forged
                assert (await response.json())["code"] == "invalid_request"
        async with gw.session.get(
            gw.url + f"/api/streams/{'a' * 32}", headers={"Last-Event-ID": f"{sid}-1"}
        ) as response:
            assert response.status == 204
        assert len(simulator.requests) == 1


async def test_an_unknown_stream_is_not_found_and_one_that_was_is_no_content() -> None:
    async with gateway(Simulator()) as gw:
        url = f"{gw.url}/api/streams/{'a' * 32}"
        async with gw.session.get(url) as response:
            assert response.status == 404
        async with gw.session.get(url, headers={"Last-Event-ID": f"{'a' * 32}-3"}) as response:
            assert response.status == 204
        events = await gw.read(f"/api/streams/{'a' * 32}", headers={"Accept": "text/event-stream"})
        assert ending(events) == ("error", "not_found")
        async with gw.session.get(url, headers={"Last-Event-ID": events[-1].id or ""}) as response:
            assert response.status == 204


async def test_an_error_before_a_stream_exists_stops_a_client_that_reconnects() -> None:
    """A forgetful `EventSource` that asked badly would otherwise ask again every second for ever."""
    async with gateway(Simulator()) as gw:
        events = await gw.read("/api/chat", headers={"Accept": "text/event-stream"})
        assert ending(events) == ("error", "invalid_request")
        headers = {"Accept": "text/event-stream", "Last-Event-ID": events[-1].id or ""}
        async with gw.session.get(gw.url + "/api/chat", headers=headers) as response:
            assert response.status == 204
