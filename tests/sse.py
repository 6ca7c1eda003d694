"""A strict reader of event streams: the standard's parsing, and an assertion wherever it would be lenient."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tests.schemas import check_event


@dataclass(frozen=True)
class Event:
    """One dispatched event; `name` is `message` where none was given."""

    name: str
    data: bytes
    id: str | None

    @property
    def json(self) -> Any:
        return orjson.loads(self.data)


def parse(block: bytes) -> Event | None:
    """One block, without its blank line; None for a comment or `retry:`."""
    fields: dict[str, bytes] = {}
    assert b"\r" not in block
    for line in block.split(b"\n"):
        assert b": " in line, line
        field, _, value = line.partition(b": ")
        name = field.decode()
        assert name in ("", "data", "event", "id", "retry"), line
        assert name not in fields, block
        fields[name] = value
    if not fields.keys() & {"data", "event", "id"}:
        return None
    assert "data" in fields, block
    assert "event" not in fields or next(iter(fields)) == "event"
    event_id = fields["id"].decode() if "id" in fields else None
    assert event_id is None or re.fullmatch(r"[0-9a-z-]{1,127}", event_id)
    return Event(fields.get("event", b"message").decode(), fields["data"], event_id)


class Events:
    """The events of a response as they arrive. `pings` and `raw` are what was read so far."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.raw = b""
        self.pings = 0
        self._events = self._read()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def next(self, name: str = "message") -> Event:
        """The next event of this name; others are passed over."""
        async for event in self._events:
            if event.name == name:
                return event
        raise AssertionError(f"the stream ended without another {name}")

    async def _read(self) -> AsyncIterator[Event]:
        assert self.response.status == 200, await self.response.text()
        assert self.response.headers["Content-Type"] == "text/event-stream"
        rest = b""
        async for chunk in self.response.content.iter_any():
            self.raw += chunk
            *blocks, rest = (rest + chunk).split(b"\n\n")
            for block in blocks:
                if block == b": ping":
                    self.pings += 1
                elif (event := parse(block)) is not None:
                    yield event
        assert rest == b"", rest


def messages(events: list[Event]) -> list[Event]:
    """The unnamed events."""
    return [event for event in events if event.name == "message"]


def text(events: list[Event]) -> str:
    """The answer's text, of chat or generate."""
    bodies = [event.json for event in messages(events)]
    return "".join(body.get("message", {}).get("content", "") or body.get("response", "") for body in bodies)


def numbered(events: list[Event]) -> list[Event]:
    """The events of the log: with an id, which `meta` may have for those that have seen none of them."""
    return [event for event in events if event.id and event.name != "meta"]


def ending(events: list[Event]) -> tuple[str, str | None]:
    """The outcome and the error code, after checking that the stream ended once and properly."""
    names = [event.name for event in events]
    assert names.count("end") == 1, names
    assert names[-1] == "end", names
    terminal = [event for event in messages(events) if is_terminal(event.json)]
    assert len(terminal) == 1, terminal
    assert messages(events)[-1] is terminal[0]
    for event in events:
        if event.name != "message" or "code" in event.json:  # everything but Ollama's own lines
            check_event(event)
    return events[-1].json["outcome"], terminal[0].json.get("code")


def is_terminal(body: dict[str, Any]) -> bool:
    return body.get("done") is True or "error" in body or body.get("status") == "success"
