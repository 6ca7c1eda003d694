"""Ten thousand malformed requests, byte by byte, at a real process: it lives, answers no 500, and grows no larger."""

import asyncio
import random
import re
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.processes import process
from tests.sse import Events, ending

REQUESTS = 10_000
AT_ONCE = 20

METHODS = ["GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH", "CONNECT", "PRI", "get", "", "G\x00T", "QUERY"]
PATHS = [
    "/api/chat?model=llama3.2&prompt=x",
    "/api/generate?prompt=%00%ff",
    "/api/streams",
    f"/api/streams/{'f' * 32}",
    "/api/session",
    "/api/models",
    "/api/presets",
    "/api/preview",
    "/metrics",
    "/readyz",
    "/openapi.json",
    "/static/../../etc/passwd",
    "/static/%00",
    "//",
    "*",
    "",
    "http://localhost/healthz",
    "http://[::1",
    "/%",
    "/?" + "a=&" * 200,
    "/é\x7f",
]
HEADERS = [
    "Host: localhost",
    "Host: evil.example",
    "Host:",
    "Host: localhost\r\nHost: localhost",
    "Content-Length: 2",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length: 2, 2",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip",
    "Expect: 100-continue",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==",
    "Connection: close, keep-alive",
    "Upgrade: h2c",
    "Origin: http://[",
    "Origin: null",
    "Origin: http://localhost:1",
    "Origin: http://localhost\r\nAccess-Control-Request-Method: TRACE",
    "Sec-Fetch-Site: \x00",
    "Authorization: Bearer \xff",
    "Authorization:",
    "Cookie: gateway_session=\x01; ;=;",
    "Last-Event-ID: " + "9" * 200,
    "Accept: text/event-stream",
    "Content-Type: application/json; charset=\xff",
    "X-Forwarded-For: ,,[::,999.1.1.1:x",
    "X-Request-Id: \t",
    "Range: bytes=-1,0-,9-1",
    "If-Modified-Since: never",
    " folded: x",
    "no colon",
    ": nameless",
    "A" * 3000 + ": x",
]
BODIES = [
    b"{}",
    b'{"chat":{}}',
    b'{"model":"llama3.2","prompt":"x"}',
    b"[" * 2000,
    b"2\r\n{}\r\n0\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"0\r\nTrailer: x\r\n\r\n",
    b"2;extension=\x00\r\n{}\r\n0\r\n\r\n",
    b"\xff\xfe\x00",
    b"",
]


def malformed(chance: random.Random) -> bytes:
    """A nearly valid request: some parts are odd, and now and then bytes are changed or cut off."""
    version = chance.choice(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "", "HTTP/1.1 x"])
    headers = ["Host: localhost"] * (chance.random() < 0.8) + chance.sample(HEADERS, chance.randrange(5))
    end = chance.choice(["\r\n", "\r\n", "\r\n", "\n", "\r"])
    lines = [f"{chance.choice(METHODS)} {chance.choice(PATHS)} {version}", *headers, "", ""]
    request = bytearray(end.join(lines).encode("latin-1") + chance.choice(BODIES))
    match chance.randrange(4):
        case 0:
            for _ in range(chance.randrange(1, 6)):
                request[chance.randrange(len(request))] = chance.randrange(256)
        case 1:
            del request[chance.randrange(len(request)) :]
        case 2:
            return bytes(request) * 2
    return bytes(request) or b"\x00"


async def answers(host: str, port: int, request: bytes) -> list[int]:
    """The statuses of all answers. The client half-closes the connection and reads to the end."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        reading = asyncio.create_task(reader.read())
        await asyncio.wait([reading], timeout=0.02)
        writer.write_eof()
        answer = await reading
        writer.close()
    except OSError:
        return []
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def memory(pid: int) -> int:
    """A process's resident memory, in MiB."""
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what memory a process has")
@pytest.mark.timeout(600)
@pytest.mark.slow
async def test_ten_thousand_malformed_requests(tmp_path: Path) -> None:
    chance = random.Random(7)
    seen: set[int] = set()
    flags = ("--demo", "--request-timeout=2", "--retain-seconds=0", "--log-level=error")
    async with process(tmp_path, *flags) as gateway, aiohttp.ClientSession() as session:
        address = urlsplit(gateway.url)
        assert address.hostname
        assert address.port

        async def attack(number: int) -> None:
            for _ in range(number):
                request = malformed(chance)
                statuses = await answers(str(address.hostname), int(address.port or 0), request)
                assert not {500, 501, 505} & set(statuses), request
                seen.update(statuses)

        async def wave(number: int) -> int:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(attack(number // AT_ONCE))
            async with session.get(gateway.url + "/api/chat?model=llama3.2&prompt=Hi") as response:
                assert ending([event async for event in Events(response)]) == ("complete", None)
            return memory(gateway.pid)

        warm = await wave(REQUESTS // 5)
        after = await wave(4 * REQUESTS // 5)
        assert after < warm + 16
        gateway.terminate()
        assert await gateway.ended() == 0
    assert gateway.log == []
    assert seen >= {200, 400, 403, 404, 405, 422}
