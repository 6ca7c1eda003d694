"""What the simulator accepts and refuses, and in which words."""

import json

import pytest

from gateway.demo.models import full_name
from gateway.demo.wire import dumps
from tests.asks import quick
from tests.demo.connection import chat, connect
from tests.servers import serve


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
        ("someone/model:q4", "someone/model:q4"),
        ("127.0.0.1:5000/library/m", "127.0.0.1:5000/m:latest"),
        ("fault:stall", "fault:stall"),
        ("", None),
        ("a b", None),
        ("a/b/c/d", None),
        ("naïve", None),
    ],
)
def test_model_names(name: str, full: str | None) -> None:
    """Short names are completed, malformed ones refused."""
    assert full_name(name) == full


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ('{"model":"llama3.2","messages":[{"role":', 400, "unexpected EOF"),
        ('{"model":"llama3.2', 400, "unexpected EOF"),
        ('{model:"llama3.2"}', 400, "invalid character 'm' looking for beginning of object key string"),
        ('{"model" "llama3.2"}', 400, "invalid character '\"' after object key"),
        ("[]", 400, "json: cannot unmarshal array into Go value of type api.ChatRequest"),
        ('{"model":7}', 400, "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"),
        (
            '{"model":"llama3.2","messages":["hi"]}',
            400,
            "json: cannot unmarshal string into Go value of type api.Message",
        ),
        (
            '{"model":"llama3.2","messages":[{"content":[1]}]}',
            400,
            "json: cannot unmarshal array into Go struct field Alias.content of type string",
        ),
        ('{"model":"gemma3","messages":[{"images":["?"]}]}', 400, "illegal base64 data at input byte 0"),
        ('{"model":"llama3.2","keep_alive":"5"}', 400, 'time: missing unit in duration "5"'),
        ('{"model":"llama3.2","keep_alive":"soon"}', 400, 'time: invalid duration "soon"'),
        ('{"model":"llama3.2","keep_alive":true}', 400, "Unsupported type: 'bool'"),
        (
            '{"model":"qwen3","think":3}',
            400,
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)',
        ),
        ('{"model":"llama3.2","options":{"stop":[1]}}', 500, 'option "stop" must be of an array of strings'),
        ('{"model":"llama3.2","options":{"top_p":true}}', 500, 'option "top_p" must be of type float32'),
        (
            '{"model":"llama3.2","messages":[{"content":"x"}],"format":{"$ref":"#/none"}}',
            500,
            "failed to parse grammar",
        ),
        ('{"keep_alive":NaN}', 400, "invalid character 'N' looking for beginning of value"),
        ("null", 400, "model is required"),
        ('\ufeff{"model":"llama3.2"}', 400, "invalid character 'ï' looking for beginning of value"),
        (
            '{"model":"llama3.2","messages":[{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}]}',
            400,
            "Value looks like object, but can't find closing '}' symbol",
        ),
        ("[" * 100_000, 400, "exceeded max depth"),
        ('{"model":"fault:nothing","messages":[]}', 404, "model 'fault:nothing' not found"),
    ],
)
async def test_refuses_as_ollama_words_it(body: str, status: int, error: str) -> None:
    """Client mistakes beyond the recorded ones."""
    async with serve(quick().app) as url, connect(url) as connection:
        connection.send("POST", "/api/chat", body.encode())
        answer = await connection.answer()
    assert (answer.status, answer.lines) == (status, [{"error": error}])


async def test_reads_json_as_leniently_as_go() -> None:
    """Bytes after the first value and unknown fields are ignored, broken UTF-8 and half characters are replaced, roles
    are read in lower case.
    """
    body = json.dumps(chat(content="half \ud83d", _debug_render_only=True, unheard_of=1)).encode() + b" trailing"
    async with serve(quick().app) as url, connect(url) as connection:
        for text in (body, body.replace(b"\\ud83d", b"\xff"), body.replace(b'"user"', b'"User"')):
            connection.send("POST", "/api/chat", text)
            line = (await connection.answer()).lines[0]
            assert line["_debug_info"]["rendered_template"].startswith("<|im_start|>user\nhalf \ufffd<|im_end|>")


async def test_allows_local_hosts_and_origins_only() -> None:
    """By name or address; a page of the server itself needs no permission."""
    async with serve(quick().app) as url, connect(url) as connection:
        for host in ("localhost:11434", "[::1]:1", "ollama.local", "192.168.1.7", "x.localhost"):
            connection.send("GET", "/api/version", headers={"Host": host, "Origin": f"http://{host}"})
            assert (await connection.answer()).status == 200, host
        connection.send("GET", "/api/version", headers={"Origin": "app://page"})
        assert (await connection.answer()).status == 200
        for host in ("example.com", "8.8.8.8", "localhost.example.com"):
            connection.send("GET", "/api/version", headers={"Host": host})
            assert (await connection.answer()).status == 403, host


async def test_a_client_that_leaves_before_its_body_is_whole(caplog: pytest.LogCaptureFixture) -> None:
    """It has asked for nothing yet, and nobody complains."""
    simulator = quick()
    async with serve(simulator.app) as url, connect(url) as connection:
        connection.send("POST", "/api/chat", b'{"model":', {"Content-Length": "1000"})
        connection.writer.write_eof()
        assert await connection.reader.read() == b""
    assert not simulator.requests
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


async def test_requests_are_kept_as_they_came() -> None:
    """Byte for byte, one entry each, also what was refused; and counted for other processes."""
    simulator = quick()
    bodies = [dumps(chat()) + b" \n", b"{", dumps({"model": "llama3.2"})]
    async with serve(simulator.app) as url, connect(url) as connection:
        for path, body in zip(("/api/chat", "/api/chat", "/api/pull"), bodies, strict=True):
            connection.send("POST", path, body, {"X-Trace": "7"})
            await connection.answer()
        assert [request.body for request in simulator.requests] == bodies
        assert [request.path for request in simulator.requests] == ["/api/chat", "/api/chat", "/api/pull"]
        assert {request.headers["x-trace"] for request in simulator.requests} == {"7"}
        counts = (await connection.ask("/simulator")).lines[0]
    assert counts["running"] == 0
    assert counts["states"]["done"] == 3
