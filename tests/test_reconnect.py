"""An Ollama that goes away and comes back: nobody who had no answer yet is lost, and nothing runs twice."""

import asyncio
import socket
import struct
from contextlib import ExitStack

import pytest

from gateway.demo import Simulator
from tests.asks import CHAT, chat, quick
from tests.gateways import gateway
from tests.servers import serve
from tests.sse import ending
from tests.upstreams import Answer, Peer, upstream


def bound(port: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def questions() -> list[dict[str, object]]:
    return [chat(f"Question {number}", options={"num_predict": 3}) for number in range(10)]


async def test_a_restart_loses_nobody_who_waits() -> None:
    """Neither those who wait in the queue nor those whose model was being loaded; the first ones see why they wait."""
    before, after = Simulator(token_rate=0, load_seconds=60), quick()
    sock = bound()
    port = sock.getsockname()[1]
    async with gateway(f"http://127.0.0.1:{port}", max_active=4, num_parallel=4, reconnect_seconds=30) as gw:
        async with serve(before.app, sock):
            reading = [asyncio.create_task(gw.read("/api/chat", json=each)) for each in questions()]
            await before.until(lambda: before.running == 4)
        await asyncio.sleep(1)  # while it is away, it is tried again several times
        async with serve(after.app, bound(port)):
            answers = await asyncio.gather(*reading)
    assert [ending(events) for events in answers] == [("complete", None)] * 10
    assert len(after.requests) == 10
    shown = [[event.json for event in events if event.name == "status"] for events in answers]
    assert sum(any(each.get("reason") == "ollama_down" for each in events) for events in shown) == 4
    for events in shown:
        assert all("position" not in each for each in events if each.get("reason") == "ollama_down")


async def test_one_that_stays_away_is_told_in_the_end() -> None:
    sock = bound()
    async with gateway(f"http://127.0.0.1:{sock.getsockname()[1]}", reconnect_seconds=0.4) as gw:
        events = await gw.read(CHAT)
        assert ending(events) == ("error", "ollama_unreachable")
        phases = [event.json["phase"] for event in events if event.name == "status"]
        assert phases.count("queued") == phases.count("starting") - 1 >= 2
        assert events[-1].json["elapsed_ms"] >= 400
    sock.close()


async def test_who_waits_for_it_can_be_stopped_and_gives_back_the_slot() -> None:
    sock = bound()
    port = sock.getsockname()[1]
    async with gateway(f"http://127.0.0.1:{port}", max_active=1, reconnect_seconds=30) as gw:
        sid = await gw.start(chat=chat("Hi"), resume_window=60)
        async with gw.open(f"/api/streams/{sid}") as events:
            while (await events.next("status")).json.get("reason") != "ollama_down":
                pass
            await gw.session.delete(f"{gw.url}/api/streams/{sid}")
            assert ending([event async for event in events]) == ("cancelled", "cancelled")
        sock.close()
        async with serve(quick().app, bound(port)):
            assert ending(await gw.read("/api/chat", json=chat("Hi"))) == ("complete", None)


async def test_one_that_is_out_of_reach_is_not_asked_again() -> None:
    """As behind a network that is cut: a connection that is reset, and new ones that nobody answers."""
    loop = asyncio.get_running_loop()
    with bound() as sock, ExitStack() as waiting:
        sock.listen(0)
        sock.setblocking(False)
        address = sock.getsockname()
        async with gateway(f"http://127.0.0.1:{address[1]}", reconnect_seconds=30, connect_timeout=0.3) as gw:
            reading = asyncio.create_task(gw.read(CHAT))
            asked, _ = await loop.sock_accept(sock)
            await loop.sock_recv(asked, 65536)
            for _ in range(3):  # more than are let in
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(address)
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            asked.close()
            events = await reading
    assert ending(events) == ("error", "ollama_unreachable")
    assert not any(event.json.get("reason") == "ollama_down" for event in events if event.name == "status")


async def closes(peer: Peer) -> None:
    peer.close()


async def resets(peer: Peer) -> None:
    peer.reset()


@pytest.mark.parametrize("answer", [closes, resets])
async def test_one_that_listens_is_not_asked_again(answer: Answer) -> None:
    """It may have read the request, and run it."""
    async with upstream(answer) as ollama, gateway(ollama.url, reconnect_seconds=30) as gw:
        assert ending(await gw.read(CHAT)) == ("error", "ollama_unreachable")
        assert [request.path for request in ollama.requests].count("/api/chat") == 1
