"""The servers that tests start and stop."""

import asyncio
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.asks import quick
from tests.servers import serve


@pytest.mark.parametrize("turns", range(5))
async def test_a_server_that_has_stopped_answers_nobody(turns: int) -> None:
    """Nor does it leave a client waiting, however far it had come in accepting its connection."""
    async with serve(quick().app) as url:
        address = urlsplit(url)
        client = socket.create_connection((address.hostname, address.port), timeout=30)
        for _ in range(turns):
            await asyncio.sleep(0)
    with client, suppress(ConnectionError):
        client.sendall(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await asyncio.to_thread(client.recv, 100) == b""
