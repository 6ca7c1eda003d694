"""docs/shaping.md and the examples it points to: every line shown is run."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from playwright.async_api import expect

from gateway.asks.presets import Preset, parse_presets
from gateway.demo import Simulator
from gateway.hooks import HookRequest
from gateway.settings import PRESETS, Settings, read_config
from tests.processes import ROOT, process
from tests.servers import serve
from tests.snippets import blocks, page_of, sh
from tests.sse import Events, ending, text

GUIDE = (ROOT / "docs/shaping.md").read_text()
EXAMPLES = ROOT / "examples"


(TOML,) = blocks("toml", GUIDE)
(HTML,) = blocks("html", GUIDE)
(SENT,) = blocks("json", GUIDE)
(HOOK,) = blocks("python", GUIDE)
SHELL = blocks("sh", GUIDE)


@pytest.fixture
async def ollama(simulator: Simulator) -> AsyncIterator[str]:
    async with serve(simulator.app) as url:
        yield f"--ollama-url={url}"


async def test_from_nothing_to_a_translating_endpoint_used_by_event_source(
    simulator: Simulator, ollama: str, tmp_path: Path
) -> None:
    """The guide's file, command and page work as they stand there, in Chromium, from another origin."""
    (tmp_path / "gateway.toml").write_text(TOML)

    async with process(tmp_path, ollama) as gw, page_of("<!doctype html>" + HTML, gw.url) as shown:
        await simulator.until(lambda: simulator.states["done"] == 1)
        path = f"{gw.url}/api/chat?preset=translate&variables.lang=German&prompt=Good%20morning!"
        async with aiohttp.ClientSession() as session, session.get(path) as response:
            events = [event async for event in Events(response)]
        assert ending(events) == ("complete", None)
        await expect(shown.locator("#out")).to_contain_text("combining marks.")
        assert await shown.locator("#out").text_content() == text(events)
    assert [request.body for request in simulator.requests] == [SENT.strip().encode()] * 2


async def test_every_command_of_the_guide(simulator: Simulator, ollama: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(TOML)
    run = [command for command in SHELL if "ollama-sse-gateway" not in command]
    messages = orjson.loads(SENT)["messages"]
    messages[1]["content"] = messages[1]["content"].removesuffix("!")
    chat = {"model": "llama3.2:latest", "messages": messages}
    async with process(tmp_path, ollama, GATEWAY_ALLOW_PREVIEW="true") as gw:
        generate, post, streams, hup, preview = run
        assert '"done":true' in await sh(generate, gw)
        expected = {"model": "llama3.2:latest", "prompt": messages[1]["content"], "system": messages[0]["content"]}
        assert orjson.loads(simulator.requests[-1].body) == expected
        assert '"done":true' in await sh(post, gw)
        assert orjson.loads(simulator.requests[-1].body) == chat
        created = orjson.loads(await sh(streams, gw))
        assert created["url"] == f"/api/streams/{created['id']}"
        await simulator.until(lambda: simulator.states["done"] == 3)
        assert orjson.loads(simulator.requests[-1].body) == chat
        assert "into French" in await sh(preview, gw)
        (tmp_path / "gateway.toml").write_text(TOML.replace("French", "Klingon"))
        await sh(hup, gw)
        while "into Klingon" not in await sh(preview, gw):
            pass
        (tmp_path / "gateway.toml").write_text(TOML.replace("{prompt}", "it"))
        await sh(hup, gw)
        (broken,) = re.findall(r"`(gateway\.toml: presets\..*)`", GUIDE)
        while not any(broken in line for line in gw.log):
            await sh(preview, gw)
    assert len(simulator.requests) == 3


async def test_the_hook_of_the_guide(simulator: Simulator, ollama: str, tmp_path: Path) -> None:
    (tmp_path / "shape.py").write_text(HOOK)
    (command,) = [command for command in SHELL if "GATEWAY_HOOK" in command]
    setting, program = command.split()
    assert program == "ollama-sse-gateway"
    name, _, value = setting.partition("=")
    async with process(tmp_path, ollama, **{name: value}) as gw:
        ask = f"curl -sN {gw.url}/api/chat?prompt="
        assert '"code":"banned_topic"' in await sh(f'curl -s {gw.url}/api/generate -d \'{{"prompt":"weather"}}\'', gw)
        assert not simulator.requests
        await sh(ask + "Hi", gw)
        await sh(ask + "x" * 201, gw)
    assert [orjson.loads(request.body)["model"] for request in simulator.requests] == ["llama3.2:latest", "qwen3"]


async def test_the_hook_that_knows_notes(simulator: Simulator, ollama: str) -> None:
    """examples/hook, with the commands of its README."""
    start, asks = blocks("sh", (EXAMPLES / "hook/README.md").read_text())
    assert start == "cd examples/hook\n../../scripts/run\n"
    garden, password = asks.splitlines()
    async with process(EXAMPLES / "hook", ollama) as gw:
        assert '"done":true' in await sh(garden, gw)
        assert '"code":"banned_topic"' in await sh(password, gw)
        note = (EXAMPLES / "hook/notes/garden.txt").read_text().strip()
        assert orjson.loads(simulator.requests[0].body)["messages"] == [
            {
                "role": "user",
                "content": f"Answer from these notes if they help.\n\n{note}\n\nQuestion: When is the garden open",
            }
        ]
        await sh(f'curl -s {gw.url}/api/generate -d \'{{"prompt":"hm"}}\'', gw)
        older = '{"messages":[{"role":"assistant","content":"My password"},{"role":"user","content":"Go on"}]}'
        assert '"code":"banned_topic"' in await sh(f"curl -s {gw.url}/api/chat -d '{older}'", gw)
        await sh(f"curl -s {gw.url}/api/chat -d '{{\"messages\":[]}}'", gw)
        assert any("notes for ada: garden" in line for line in gw.log)
    bodies = [orjson.loads(request.body) for request in simulator.requests]
    assert (bodies[1]["prompt"], bodies[2]["messages"]) == ("hm", [])


async def test_the_presets_to_copy(simulator: Simulator, ollama: str) -> None:
    """Each preset of examples/presets answers, and a request that names none gets the default one."""
    async with process(EXAMPLES / "presets", ollama) as gw, aiohttp.ClientSession() as session:
        async with session.get(gw.url + "/api/presets") as response:
            listed = await response.json()
        assert (listed["default"], listed["only"]) == ("assistant", True)
        for preset in listed["presets"]:
            query = {"preset": preset["name"], "prompt": "Show me code"}
            query |= {f"variables.{variable['name']}": "Python" for variable in preset["variables"]}
            async with session.get(gw.url + "/api/chat", params=query) as response:
                assert ending([event async for event in Events(response)]) == ("complete", None)
        async with session.get(gw.url + "/api/chat?prompt=Hi") as response:
            assert ending([event async for event in Events(response)]) == ("complete", None)
    assert [orjson.loads(request.body)["messages"][-1]["content"] for request in simulator.requests] == [
        "Show me code",
        "Translate into Python:\n\nShow me code",
        "Which people and places does this text name?\n\nShow me code",
        "Review this Python code:\n\n```\nShow me code\n```",
        "Hi",
    ]


def test_the_guide_knows_every_field_and_only_settings_there_are() -> None:
    rows = re.findall(r"^\| (`\S.*?) \|", GUIDE, re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert named >= Preset.model_fields.keys() | HookRequest.__annotations__.keys()
    settings = {name.lower() for name in re.findall(r"GATEWAY_([A-Z_]+)", GUIDE)}
    assert settings <= Settings.model_fields.keys()
    assert settings >= {name for name in Settings.model_fields if name.startswith(("hook", "default_", "presets_"))}


def test_the_examples_are_valid_without_being_started() -> None:
    presets = parse_presets(read_config(str(EXAMPLES / "presets/gateway.toml"))[PRESETS])
    assert presets["review"].overrides == ("model", "options.temperature")
