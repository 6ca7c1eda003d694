"""The HTTP client of the JDK, in both versions that it speaks."""

import asyncio
import shutil
from pathlib import Path

from tests.gateways import gateway
from tests.sse import ending, parse, text
from tests.upstreams import ONCE_DONE, streams, token, upstream

PROGRAM = Path(__file__).with_name("Ask.java")


async def test_the_jdk_s_client_is_answered() -> None:
    """Each version asks twice, on one connection where it can."""
    java = shutil.which("java")
    assert java, "Java is missing"
    body = '{"messages":[{"role":"user","content":"Hi"}]}'
    async with upstream(streams(token("fine"), ONCE_DONE)) as ollama, gateway(ollama.url, default_model="m") as gw:
        command = [java, str(PROGRAM), gw.url + "/api/chat", body]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
    heads = (b"HTTP_1_1 200\n", b"HTTP_2 200\n")
    assert (process.returncode, *map(output.count, heads)) == (0, 2, 2)
    answers = output.replace(heads[0], b"#").replace(heads[1], b"#").split(b"#")[1:]
    for answer in answers:
        events = [event for block in answer.strip().split(b"\n\n") if (event := parse(block))]
        assert (ending(events), text(events)) == (("complete", None), "fine")
