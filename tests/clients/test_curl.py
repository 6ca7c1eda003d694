"""curl in each version of HTTP that it may speak on a plain connection."""

import asyncio
import shutil

import pytest

from tests.gateways import gateway
from tests.sse import ending, parse, text
from tests.upstreams import ONCE_DONE, streams, token, upstream


@pytest.mark.parametrize("version", ["--http2", "--http1.0", "--http1.1"])
async def test_a_post_of_curl_is_answered(version: str) -> None:
    """With `--http2` it offers to change the protocol, in the same packets as the body."""
    curl = shutil.which("curl")
    assert curl, "curl is missing"
    body = '{"messages":[{"role":"user","content":"Hi"}]}'
    async with upstream(streams(token("fine"), ONCE_DONE)) as ollama, gateway(ollama.url, default_model="m") as gw:
        command = [curl, "-sS", "--max-time", "20", version, gw.url + "/api/chat", "-d", body]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        answer, _ = await process.communicate()
        events = [event for block in answer.split(b"\n\n")[:-1] if (event := parse(block))]
        assert (process.returncode, ending(events), text(events)) == (0, ("complete", None), "fine")
