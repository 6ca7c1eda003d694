"""What Ollama and its like send that is odd: none of it ends a stream, and the same fault is told in the same way."""

import asyncio
import gzip
from typing import Any

import orjson
import pytest

from gateway.errors import GatewayError
from tests.gateways import gateway
from tests.sse import ending, messages, text
from tests.upstreams import NDJSON, ONCE_DONE, Answer, Peer, chunk, head, says, streams, token, upstream, whole

CHAT = "/api/chat?model=m&prompt=Hi"
EMPTY = {"role": "assistant", "content": ""}
CHUNKED = {"Content-Type": NDJSON, "Transfer-Encoding": "chunked"}
NESTED = "a list in a list in a list"


def answers(value: object) -> Answer:
    """With this value, in which `NESTED` stands for what Python reads and does not write again."""
    nested = b"[" * 1000 + b"]" * 1000
    return says(whole(200, orjson.dumps(value).replace(b'"%b"' % NESTED.encode(), nested)))


def line(**fields: object) -> bytes:
    return orjson.dumps({"model": "m"} | fields) + b"\n"


@pytest.mark.parametrize(
    "odd",
    [
        line(error=None, message=EMPTY, done=False),
        line(error="", message=EMPTY, done=False),
        line(message={"role": "assistant", "content": "", "tool_calls": None}, done=False),
        line(message=None, done=False),
        line(message=EMPTY, done=False, done_reason=None),
        line(message=EMPTY),
        b"null\n",
        b" null \n",
        b"{}\n",
    ],
    ids=lambda odd: odd.decode().strip(),
)
async def test_a_harmless_line_ends_no_stream(odd: bytes) -> None:
    async with upstream(streams(odd, token("a"), odd, token("b"), odd, ONCE_DONE)) as ollama, gateway(ollama.url) as gw:
        events = await gw.read(CHAT)
        assert (ending(events), text_of(events)) == (("complete", None), "ab")
        assert not [event for event in messages(events) if "error" in event.json]


def text_of(events: list[Any]) -> str:
    said = [event.json.get("message") or {} for event in messages(events)]
    return "".join(message.get("content") or "" for message in said)


async def test_an_answer_may_end_with_its_reason_alone() -> None:
    last = line(message=EMPTY, done_reason="stop", eval_count=1)
    async with upstream(streams(token("a"), last)) as ollama, gateway(ollama.url) as gw:
        events = await gw.read(CHAT)
        assert (events[-1].json["outcome"], text(events)) == ("complete", "a")
    async with upstream(streams(token("a"))) as ollama, gateway(ollama.url) as gw:
        assert ending(await gw.read(CHAT)) == ("error", "truncated")


@pytest.mark.parametrize(
    "first",
    [
        {"message": {"role": "assistant", "content": "x"}},
        {"message": {"role": "assistant", "thinking": "x"}},
        {"message": {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}},
        {"response": "x"},
        {"thinking": "x"},
    ],
    ids=lambda first: str(first)[:60],
)
async def test_a_token_is_text_thinking_or_a_tool_call(first: dict[str, object]) -> None:
    """What comes before that does not end the wait: the limit for the first token still holds."""

    async def answer(peer: Peer) -> None:
        await peer.start()
        await peer.lines(line(message=EMPTY, done=False))
        await asyncio.sleep(0.2)
        await peer.lines(line(**first, done=False), ONCE_DONE)
        await peer.end()

    async def never(peer: Peer) -> None:
        await peer.start()
        await peer.lines(line(message=EMPTY, done=False))
        await asyncio.Event().wait()

    async with upstream(answer) as ollama, gateway(ollama.url) as gw:
        end = (await gw.read(CHAT))[-1].json
        assert end["outcome"] == "complete"
        assert end["first_token_ms"] >= 200
    async with upstream(never) as ollama, gateway(ollama.url, first_token_timeout=0.2, idle_timeout=60) as gw:
        assert ending(await gw.read(CHAT)) == ("error", "first_token_timeout")


async def test_progress_is_shown_as_status() -> None:
    """Both are coming in Ollama; the second form is the one of llama.cpp's server."""

    async def answer(peer: Peer) -> None:
        await peer.start()
        for progress in (0, 0.5, 1):
            await peer.lines(line(load_progress=progress, done=False))
        await peer.lines(line(prompt_progress={"processed": 1, "total": 3, "cache": 0}, done=False))
        for nonsense in ("x", None, -1, 2, True, {}, {"processed": "1", "total": 2}, {"processed": 1, "total": 0}):
            await peer.lines(line(prompt_progress=nonsense, done=False))
        await peer.lines(token("a"), ONCE_DONE)
        await peer.end()

    async with upstream(answer) as ollama, gateway(ollama.url) as gw:
        events = await gw.read(CHAT)
        assert (ending(events), text(events), len(messages(events))) == (("complete", None), "a", 2)
        shown = [event.json for event in events if event.name == "status"]
        told = [(each["phase"], each["progress"]) for each in shown if "progress" in each]
        assert told == [("loading", 0.0), ("loading", 0.5), ("loading", 1.0), ("prompt", 0.333)]


async def test_the_end_of_loading_is_seen_though_only_loading_is_told() -> None:
    loaded = says(whole(200, b'{"models":[{"name":"m:latest"}]}'))

    async def answer(peer: Peer) -> None:
        await peer.start()
        await peer.lines(line(load_progress=1, done=False))
        await asyncio.sleep(0.5)
        await peer.lines(token("a"), ONCE_DONE)
        await peer.end()

    async with upstream(answer, ps=loaded) as ollama, gateway(ollama.url, status_interval=0.1) as gw:
        shown = [event.json for event in await gw.read(CHAT) if event.name == "status"]
        assert ("loading", 1) in [(each["phase"], each.get("progress")) for each in shown]
        assert (shown[-1]["phase"], shown[-1].get("progress")) == ("prompt", None)


async def test_what_cannot_be_written_again_is_ollamas_fault() -> None:
    deep = b'{"error":null,"message":{"role":"assistant","content":"","x":%b},"done":false}\n' % (
        b"[" * 500 + b"]" * 500
    )
    async with upstream(streams(deep)) as ollama, gateway(ollama.url) as gw:
        assert ending(await gw.read(CHAT)) == ("error", "bad_upstream")


# Errors


async def failure(answer: Any, path: str = CHAT) -> dict[str, Any]:
    async with upstream(answer) as ollama, gateway(ollama.url) as gw:
        error: dict[str, Any] = messages(await gw.read(path))[-1].json
        return error


@pytest.mark.parametrize(
    ("words", "retryable"),
    [
        ("llama runner process has terminated: signal: killed", True),
        ("an error was encountered while running the model: unexpected EOF", True),
        ("model requires more system memory (9.9 GiB) than is available (2.0 GiB)", True),
        ("pull model manifest: dial tcp: lookup registry.ollama.ai: no such host", True),
        ("max retries exceeded: connection reset by peer", True),
        ("digest mismatch, file must be downloaded again", True),
        ('template: :1:4: executing "" at <.Nope>: can\'t evaluate field Nope', False),
        ("pull model manifest: file does not exist", False),
        ("write /root/.ollama/models/blobs/x: no space left on device", False),
        ("this model does not support tools", False),
        ("the input length exceeds the context length", False),
    ],
)
async def test_the_same_fault_can_be_retried_or_not_wherever_it_comes(words: str, retryable: bool) -> None:
    """As a status of 500 before the answer, and as a line in the middle of it."""
    error = orjson.dumps({"error": words})

    async def refused(peer: Peer) -> None:
        await peer.send(whole(500, error))

    before, within = await failure(refused), await failure(streams(token("a"), error + b"\n"))
    assert (before["code"], before["retryable"]) == ("ollama_error", retryable)
    assert (within["code"], within["retryable"]) == ("ollama_error", retryable)


async def test_a_cloud_model_that_wants_a_sign_in_says_where() -> None:
    url = "https://ollama.com/connect?name=box&key=abc"

    async def refused(peer: Peer) -> None:
        await peer.send(whole(401, orjson.dumps({"error": "unauthorized", "signin_url": url})))

    error = await failure(refused)
    assert (error["code"], error["retryable"]) == ("ollama_error", False)
    assert error["error"] == f"unauthorized. Sign in at {url}"


@pytest.mark.parametrize(("given", "seconds"), [("7", 7), ("", None), ("soon", None), ("9" * 99, None)])
async def test_too_many_requests_at_a_cloud_model(given: str, seconds: int | None) -> None:
    body = b'{"error":"too many requests"}'
    answer = whole(429, body).replace(b"\r\n\r\n", f"\r\nRetry-After: {given}\r\n\r\n".encode(), 1)

    async def refused(peer: Peer) -> None:
        await peer.send(answer)

    async with upstream(refused) as ollama, gateway(ollama.url) as gw:
        sid = await gw.start(chat={"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
        assert messages(await gw.read(f"/api/streams/{sid}"))[-1].json["retryable"]
        client = gw.state["streams"].upstreams
        with pytest.raises(GatewayError) as raised:
            await client.ask("m", lambda server: anext(server.lines("/api/chat", b"{}")))
        assert (raised.value.status, raised.value.retry_after) == (429, seconds)
    async with (
        upstream(refused) as limited,
        upstream(streams(token("a"), ONCE_DONE)) as other,
        gateway("", ollama_urls=f"{limited.url},{other.url}") as gw,
    ):
        assert ending(await gw.read(CHAT)) == ("complete", None)


# Connections


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_connection_that_is_closed_in_the_moment_of_its_use(way: str) -> None:
    """Ollama has not read the request: it is sent once more, on a new connection, and no more than once."""
    peers: list[Peer] = []

    async def answer(peer: Peer) -> None:
        peers.append(peer)
        if len(peers) > 1 and peers[0].connection == peer.connection:
            getattr(peer, way)()
            await asyncio.Event().wait()
        await streams(token("a"), ONCE_DONE)(peer)

    async with upstream(answer) as ollama, gateway(ollama.url) as gw:
        assert ending(await gw.read(CHAT)) == ("complete", None)
        events = await gw.read(CHAT)
        assert (ending(events), text(events)) == (("complete", None), "a")
        first, again, fresh = [peer.connection for peer in peers]
        assert first == again != fresh


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_a_request_that_may_have_been_read_is_not_sent_again(begin: bytes) -> None:
    """On a new connection, or once a byte of the answer has come, the model may have run."""
    peers: list[Peer] = []

    async def answer(peer: Peer) -> None:
        peers.append(peer)
        if begin and len(peers) == 1:
            await streams(token("a"), ONCE_DONE)(peer)
        else:
            await peer.send(begin)
            peer.close()
            await asyncio.Event().wait()

    async with upstream(answer) as ollama, gateway(ollama.url) as gw:
        if begin:
            assert ending(await gw.read(CHAT)) == ("complete", None)
        assert ending(await gw.read(CHAT))[0] == "error"
        assert len(peers) == (2 if begin else 1)


STRAY = orjson.dumps({"version": "stray", "models": [{"name": "stray:latest"}], "done": True, "message": EMPTY})


@pytest.mark.parametrize(
    "stray", [whole(200, STRAY), head(200, CHUNKED) + chunk(STRAY) + b"0\r\n\r\n"], ids=["whole", "chunked"]
)
@pytest.mark.parametrize("when", ["within the answer's last bytes", "with the whole answer", "once it was read"])
async def test_what_nobody_asked_for_is_nobodys_answer(when: str, stray: bytes) -> None:
    """Streams and short queries share connections. One that has brought more than its answer is not used again."""
    connections: list[int] = []
    read = asyncio.Event()

    def answer(*pieces: bytes) -> Answer:
        async def with_more(peer: Peer) -> None:
            connections.append(peer.connection)
            first, last = b"".join(pieces[:-1]), pieces[-1]
            if when == "with the whole answer":
                await peer.send(first + last + stray)
            elif when == "once it was read":
                read.clear()
                await peer.send(first, last)
                await read.wait()
                await peer.send(stray)
            else:
                await peer.send(first)
                await asyncio.sleep(0.01)
                await peer.send(last + stray)

        return with_more

    chat = answer(head(200, CHUNKED), chunk(token("a")), chunk(ONCE_DONE), b"0\r\n\r\n")
    version = answer(whole(200, b'{"version":"1"}')[:-1], b"}")
    tags = answer(whole(200, b'{"models":[]}')[:-1], b"}")
    async with upstream(chat, version=version, tags=tags) as ollama, gateway(ollama.url) as gw:
        for _ in range(2):
            assert text(await gw.read(CHAT)) == "a"
            read.set()
            async with gw.session.get(gw.url + "/readyz") as response:
                assert [server["version"] for server in (await response.json())["servers"]] == ["1"]
            read.set()
            async with gw.session.get(gw.url + "/api/models") as response:
                assert (await response.json())["models"] == []
            read.set()
            gw.state["streams"].upstreams.answers.forget()
        assert len(set(connections)) == len(connections)


# Lists of models


@pytest.mark.parametrize(
    "odd",
    [
        *({"details": []}, {"details": "x"}, {"details": {"parameter_size": 1}}, {"details": {"context_length": "1"}}),
        *({"capabilities": "chat"}, {"capabilities": [NESTED]}, {"size": "9"}, {"digest": 1}, {"modified_at": 7}),
    ],
    ids=lambda odd: str(odd)[:40],
)
@pytest.mark.parametrize("where", ["tags", "ps", "show"])
async def test_odd_forms_in_lists_of_models(where: str, odd: dict[str, object]) -> None:
    """A model of another form is no model: the list is refused, or lacks what was to be learned, but nothing fails."""
    model = {"name": "m:latest", "digest": "d"}
    given = {"tags": {"models": [model]}, "ps": {"models": [model]}, "show": {"capabilities": ["completion"]}}
    given |= {where: odd if where == "show" else {"models": [model | odd]}}
    scripted = {name: answers(answer) for name, answer in given.items()}
    async with upstream(streams(ONCE_DONE), **scripted) as ollama, gateway(ollama.url) as gw:
        async with gw.session.get(gw.url + "/api/models") as response:
            body = await response.json()
            assert (response.status, body.get("code")) == ((502, "bad_upstream") if where == "tags" else (200, None))
        if where != "tags":
            assert [each["loaded"] for each in body["models"]] == [where == "show"]


@pytest.mark.parametrize(
    "tags", ['{"models":{"a":1}}', '{"models":"x"}', '{"models":[1]}', '{"models":[{"name":"m","size":1e400}]}', "[]"]
)
async def test_what_is_no_list_of_models(tags: str) -> None:
    async with (
        upstream(streams(ONCE_DONE), tags=says(whole(200, tags.encode()))) as ollama,
        gateway(ollama.url) as gw,
    ):
        for path in ("/api/models", "/api/chat?prompt=Hi"):
            async with gw.session.get(gw.url + path) as response:
                assert (response.status, (await response.json())["code"]) == (502, "bad_upstream")


@pytest.mark.parametrize("info", [{"a.context_length": NESTED}, {"a.context_length": "1"}, {}], ids=str)
async def test_odd_values_in_the_details_of_a_model(info: dict[str, object]) -> None:
    """Dates that no calendar has and sizes below zero are shown as they are; a length must be a number."""
    tags = answers({"models": [{"name": "m:latest", "size": -1, "modified_at": "0001-01-01T00:00:00"}]})
    show = answers({"model_info": {"general.architecture": "a"} | info})
    async with (
        upstream(streams(ONCE_DONE), tags=tags, show=show) as ollama,
        gateway(ollama.url) as gw,
        gw.session.get(gw.url + "/api/models") as response,
    ):
        (model,) = (await response.json())["models"]
        assert (model["size"], model["context_length"]) == (-1, None)


@pytest.mark.parametrize("version", ["[]", "{}", "1", "null", '"' + "1" * 1000 + '"'], ids=lambda version: version[:9])
async def test_what_is_no_version(version: str) -> None:
    odd = says(whole(200, b'{"version":%b}' % version.encode()))
    async with (
        upstream(streams(ONCE_DONE), version=odd) as ollama,
        gateway(ollama.url) as gw,
        gw.session.get(gw.url + "/readyz") as response,
    ):
        assert (response.status, (await response.json())["servers"][0]["version"]) == (503, None)


@pytest.mark.parametrize("nothing", ["details", "capabilities", "size", "modified_at", "digest"])
async def test_null_is_as_good_as_nothing_in_lists_of_models(nothing: str) -> None:
    lists = says(whole(200, orjson.dumps({"models": [{"name": "m:latest", nothing: None}]})))
    shown = says(whole(200, b'{"capabilities":null,"model_info":null,"details":null}'))
    async with (
        upstream(streams(ONCE_DONE), tags=lists, ps=lists, show=shown) as ollama,
        gateway(ollama.url) as gw,
        gw.session.get(gw.url + "/api/models") as response,
    ):
        assert [each["name"] for each in (await response.json())["models"]] == ["m:latest"]
        assert ending(await gw.read("/api/chat?prompt=Hi")) == ("complete", None)


async def test_a_small_answer_does_not_become_a_huge_one() -> None:
    """Compressed, although `identity` was asked for; or simply without an end in sight."""
    huge = b'{"version":"' + b"1" * 20_000_000 + b'"}'
    squeezed = gzip.compress(huge)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(squeezed)}\r\n\r\n".encode()
    for answer in (says(head + squeezed), says(whole(200, huge))):
        async with upstream(answer, version=answer, tags=answer) as ollama, gateway(ollama.url) as gw:
            async with gw.session.get(gw.url + "/readyz") as response:
                assert (response.status, (await response.json())["servers"][0]["version"]) == (503, None)
            assert ending(await gw.read("/api/chat?model=m&prompt=Hi")) == ("error", "bad_upstream")
