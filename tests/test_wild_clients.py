"""What other people's clients send: offers to change the protocol, HTTP/1.0, odd ids, and bodies in an odd form."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from gateway.hooks import HookRequest
from tests.asks import chat, quick
from tests.gateways import Gateway, gateway
from tests.sse import Events, ending, messages, parse, text
from tests.upstreams import ONCE_DONE, silence, streams, token, upstream

BODY = orjson.dumps(chat("Hi"))
ANSWER = streams(token("fine"), ONCE_DONE)
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def post(headers: bytes, version: bytes = b"1.1") -> bytes:
    return b"POST /api/chat HTTP/%b\r\nHost: x\r\n%b" % (version, headers)


async def raw(gw: Gateway, *packets: bytes, until: bytes | None = None) -> bytes:
    """What is answered to packets that arrive one by one: all of it, or up to some bytes."""
    address = urlsplit(gw.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        for packet in packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(0.02)
        return await (reader.readuntil(until) if until else reader.read())
    finally:
        writer.close()


@pytest.mark.parametrize(
    "packets",
    [
        [post(UPGRADE + LENGTH) + BODY],
        [post(UPGRADE + LENGTH), BODY],
        [post(UPGRADE + LENGTH)[:90], post(UPGRADE + LENGTH)[90:] + BODY[:7], BODY[7:]],
        [post(UPGRADE + CHUNKED), b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)],
        [post(UPGRADE + b"Expect: 100-continue\r\n" + LENGTH), BODY],
        [post(b"Upgrade: websocket\r\nConnection: upgrade\r\n" + LENGTH), BODY],
        [post(b"Upgrade: h2c\r\n" + LENGTH), BODY],
    ],
    ids=["at once", "head and body", "torn", "chunked", "expect", "websocket", "no offer"],
)
async def test_an_offer_to_change_the_protocol_loses_nothing(packets: list[bytes]) -> None:
    """The JDK's client makes one with every request, and so does `curl --http2`."""
    async with upstream(ANSWER) as ollama, gateway(ollama.url) as gw:
        answer = await raw(gw, *packets, until=b"event: end")
        assert b"HTTP/1.1 200 " in answer
        assert answer.count(b'"fine"') == 1
        (asked,) = ollama.asked("/api/chat")
        assert orjson.loads(asked.body) == orjson.loads(BODY)


async def test_the_connection_of_an_offer_can_be_used_again() -> None:
    async with upstream(ANSWER) as ollama, gateway(ollama.url) as gw:
        refused = post(UPGRADE + b"Content-Length: 5\r\n\r\n") + b"hello"
        for first in (NEXT.replace(b"Connection: close\r\n", UPGRADE), refused):
            answers = (await raw(gw, first, NEXT)).split(b"HTTP/1.1 ")[1:]
            assert [answer[:3] for answer in answers] == [b"422" if first is refused else b"200", b"200"]


async def test_http_1_0_gets_a_body_that_ends_with_the_connection() -> None:
    """Old proxies, and nginx without `proxy_http_version`, know no chunks."""
    async with upstream(ANSWER) as ollama, gateway(ollama.url) as gw:
        for head in (b"", b"Connection: keep-alive\r\n"):
            answer = await raw(gw, post(head + LENGTH, b"1.0") + BODY)
            fields, _, body = answer.partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in fields.lower()
            assert fields.lower().count(b"\r\nconnection: ") == 1
            assert b"\r\nconnection: close" in fields.lower()
            events = [event for block in body.split(b"\n\n")[:-1] if (event := parse(block))]
            assert (ending(events), text(events)) == (("complete", None), "fine")
        answer = await raw(gw, b"GET /healthz HTTP/1.0\r\n\r\n")
        assert answer.endswith(b'{"status":"ok"}')
        assert b"content-length: 15" in answer
        assert (await raw(gw, b"HEAD /healthz HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\n")


async def test_http_1_0_that_reads_slowly_is_pinged_and_loses_nothing() -> None:
    """A ping and a chunk may wait for the client at the same time."""
    lines = [token("x" * 50_000) for _ in range(200)]
    async with upstream(streams(*lines, ONCE_DONE)) as ollama, gateway(ollama.url, ping_interval=0.01) as gw:
        address = urlsplit(gw.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**12)
        writer.write(post(LENGTH, b"1.0") + BODY)
        answer = b""
        while piece := await reader.read(100_000):
            answer += piece
            if len(answer) < 2_000_000:
                await asyncio.sleep(0.03)
        writer.close()
        assert answer.count(b"x" * 50_000) == len(lines)
        assert b"event: end" in answer


async def test_an_id_as_polyfills_spell_it() -> None:
    async with gateway(quick()) as gw:
        events = await gw.read("/api/chat", json=chat("Hi"))
        url, first = events[0].json["url"], messages(events)[0]
        for name in ("last_event_id", "lastEventId"):
            rest = await gw.read(f"{url}?{name}={first.id}")
            assert [event.id for event in messages(rest)] == [event.id for event in messages(events)[1:]]
            assert messages(await gw.read(f"/api/chat?prompt=Hi&{name}={first.id}")) == messages(rest)


async def test_with_a_resume_window_a_client_can_come_back_before_the_first_token() -> None:
    """`EventSource` would ask once more, and the model would run twice."""
    async with upstream(silence) as ollama, gateway(ollama.url) as gw:
        path = "/api/chat?model=m&prompt=Hi"
        async with gw.open(f"{path}&resume_window=30") as stream:
            meta = await stream.next("meta")
        assert meta.id == f"{meta.json['id']}-0"
        async with gw.open(f"{path}&resume_window=30", headers={"Last-Event-ID": meta.id}) as stream:
            assert (await stream.next("meta")).id == meta.id
        await ollama.until(lambda: len(ollama.asked("/api/chat")) == 1)
        async with gw.open(path) as stream:
            assert (await stream.next("meta")).id is None
            await ollama.until(lambda: len(ollama.asked("/api/chat")) == 2)
        await gw.state["streams"].drain(0)


async def test_an_id_before_the_first_event_does_not_come_again() -> None:
    """Whoever has seen events, and is cut off right after the head, would be shown all of them again."""
    async with gateway(quick()) as gw:
        events = await gw.read("/api/chat?prompt=Hi&resume_window=30")
        sid, (first, *rest) = events[0].json["id"], messages(events)
        again = await gw.read(f"/api/streams/{sid}", headers={"Last-Event-ID": first.id or ""})
        assert (again[0].name, again[0].id) == ("meta", None)
        assert messages(again) == rest
        whole = await gw.read(f"/api/streams/{sid}", headers={"Last-Event-ID": f"{sid}-0"})
        assert messages(whole) == messages(events)


CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
USER = {"role": "user", "content": "Hi"}


def calls(arguments: object) -> bytes:
    function = {"name": "f", "arguments": arguments}
    return orjson.dumps({"messages": [USER, {"role": "assistant", "tool_calls": [{"function": function}]}, USER]})


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"messages":[{"role":"user","content":"\\ud83d"}]}', "\ufffd"),
        (b'{"messages":[{"role":"user","content":"\\ude00 \\ud83d\\ude00 \\\\ud83d"}]}', "\ufffd \U0001f600 \\ud83d"),
        (b'{"messages":[{"role":"user","content":"a\xffb"}]}', "a\ufffdb"),
        (calls('{"a":1}'), {"a": 1}),
        (calls(""), {}),
        (calls({"a": 1}), {"a": 1}),
        (calls(None), None),
    ],
    ids=["half an emoji", "halves", "no UTF-8", "arguments as text", "no text", "arguments", "null"],
)
async def test_odd_bodies_are_read_as_ollama_reads_them(body: bytes, sent: object) -> None:
    async with upstream(ANSWER) as ollama, gateway(ollama.url, default_model="m") as gw:
        async with gw.session.post(gw.url + "/api/chat", data=body) as response:
            assert ending([event async for event in Events(response)]) == ("complete", None)
        messages_sent = orjson.loads(ollama.asked("/api/chat")[0].body)["messages"]
        if len(messages_sent) == 1:
            assert messages_sent[0]["content"] == sent
        else:
            assert messages_sent[1]["tool_calls"][0]["function"]["arguments"] == sent


UNSET = {"system": "", "template": "", "context": [], "raw": False, "images": [], "format": "", "options": {}}
OFFICIAL: list[tuple[str, str, dict[str, Any]]] = [
    ("Python", "chat", {"messages": [USER], "tools": [], "stream": True}),
    ("Python, as it was", "generate", {"prompt": "Hi", "stream": True, **UNSET}),
    ("Go", "generate", {"prompt": "Hi", "suffix": "", "system": "", "template": "", "options": None}),
    ("Go", "chat", {"messages": [USER], "options": None}),
    ("LangChain", "chat", {"messages": [USER], "options": {"seed": None}, "system": None, "raw": None, "format": None}),
    ("one form for both", "chat", {"messages": [USER], "prompt": "", **UNSET}),
    ("one form for both", "generate", {"prompt": "Hi", "messages": [], "tools": None, **UNSET}),
]


async def unchanged(request: HookRequest) -> dict[str, Any]:
    return request.body


@pytest.mark.parametrize("shaped", ["not", "preset", "hook"])
async def test_what_clients_send_unasked_is_no_mistake(tmp_path: Path, shaped: str) -> None:
    """Ollama's own clients send a model each time, and fields that their user has not set."""
    (tmp_path / "g.toml").write_text("[presets.p]\nmodel = 'qwen3'\nsystem = 'Be brief.'")
    settings: dict[str, dict[str, Any]] = {
        "not": {},
        "preset": {"config": str(tmp_path / "g.toml"), "default_preset": "p"},
        "hook": {"hook": "tests.test_wild_clients:unchanged"},
    }
    async with gateway(quick(), **settings[shaped]) as gw:
        for name, kind, body in OFFICIAL:
            assert ending(await gw.read(f"/api/{kind}", json=body | {"model": "qwen3"})) == ("complete", None), name


async def openai_history(request: HookRequest) -> dict[str, Any]:
    return {**orjson.loads(calls('{"a":1}')), "model": "m"}


async def test_what_a_hook_returns_is_read_in_the_same_way() -> None:
    async with upstream(ANSWER) as ollama, gateway(ollama.url, hook="tests.test_wild_clients:openai_history") as gw:
        assert ending(await gw.read("/api/chat?model=m&prompt=Hi")) == ("complete", None)
        sent = orjson.loads(ollama.asked("/api/chat")[0].body)["messages"]
        assert sent[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}


@pytest.mark.parametrize("arguments", ["{", "[]", "1", 1, []])
async def test_arguments_that_are_no_object_are_refused(arguments: object) -> None:
    async with upstream(ANSWER) as ollama, gateway(ollama.url, default_model="m") as gw:
        async with gw.session.post(gw.url + "/api/chat", data=calls(arguments)) as response:
            error = await response.json()
            assert (response.status, error["code"]) == (422, "invalid_request")
            assert error["error"].startswith("messages.1.tool_calls.0.function.arguments: must be an object")
        assert not ollama.asked("/api/chat")


async def test_a_pull_may_name_its_model_as_it_used_to() -> None:
    async with upstream(streams(b'{"status":"success"}\n')) as ollama, gateway(ollama.url, allow_pull=True) as gw:
        sid = await gw.start(pull={"name": "qwen3"})
        assert ending(await gw.read(f"/api/streams/{sid}")) == ("complete", None)
        assert orjson.loads(ollama.asked("/api/pull")[0].body) == {"model": "qwen3"}
