"""An Ollama that says what a test wants said, at the pace it wants; the rest is the simulator's."""

import asyncio
import re
from time import monotonic
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.demo import Simulator


class Parrot:
    """Answers every chat with `text`, cut into `pieces`, at `rate` a second (0: all at once), after `wait` seconds."""

    def __init__(
        self, text: str, *, rate: float = 0, wait: float = 0, piece: str = r"\s*\S{1,5}|\s+", **done: int
    ) -> None:
        self.simulator = Simulator(load_seconds=0, prompt_seconds=0)
        self.pieces = re.findall(piece, text)
        self.rate = rate
        self.wait = wait
        self.done = {"prompt_eval_count": 30, "eval_count": len(self.pieces), "eval_duration": 10**9} | done
        self.bodies: list[dict[str, Any]] = []
        """What was asked, so far."""
        self.told = asyncio.Event()
        """Set when an answer was told to its end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/api/chat":
            await self.simulator.app(scope, receive, send)
            return
        self.bodies.append(orjson.loads(await Request(scope, receive).body()))
        await StreamingResponse(self._lines(), media_type="application/x-ndjson")(scope, receive, send)

    async def _lines(self) -> Any:
        await asyncio.sleep(self.wait)
        begun = monotonic()
        for count, piece in enumerate(self.pieces):
            if self.rate:
                await asyncio.sleep(max(0, begun + count / self.rate - monotonic()))
            message = {"role": "assistant", "content": piece}
            yield orjson.dumps({"model": "parrot", "message": message, "done": False}) + b"\n"
        empty = {"role": "assistant", "content": ""}
        end = {"model": "parrot", "message": empty, "done": True, "done_reason": "stop"} | self.done
        yield orjson.dumps(end) + b"\n"
        self.told.set()
