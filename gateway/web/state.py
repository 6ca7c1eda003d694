"""What handlers find in `request.state`: the services of one gateway, made by the lifespan in `app`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.requests import Request

from gateway.asks.parsing import Asks, Caller
from gateway.asks.shaping import Shaper
from gateway.ops.health import Readiness
from gateway.ops.metrics import Metrics
from gateway.streams.ledger import Reading
from gateway.streams.registry import Streams
from gateway.upstream.models import Models
from gateway.web.keys import Keys


class GatewayState(TypedDict):
    """`ping_interval` is in seconds; `openapi` is the document as JSON."""

    asks: Asks
    keys: Keys
    streams: Streams
    models: Models
    shaper: Shaper
    readiness: Readiness
    metrics: Metrics
    ping_interval: float
    allow_preview: bool
    openapi: bytes


LARGE_BYTES = 16 * 1024  # the body of a request that may take some milliseconds to check

GatewayRequest = Request[GatewayState]


def caller(request: GatewayRequest) -> Caller:
    """The sender of a request."""
    address = request.client.host if request.client else ""
    return Caller(address, request.headers, request.scope["key"], request.scope["request_id"])


@asynccontextmanager
async def body_of(request: GatewayRequest) -> AsyncIterator[bytes]:
    """The body of a request. Until its job has been made, it is held twice: as it came, and as what was read of it.

    Each large body gets a turn of the loop by itself, as others are to be served between them. Raises `Busy` when there
    is no room for it.
    """
    reading = Reading(request.state["streams"].ledger, caller(request).identity)
    parts: list[bytes] = []
    try:
        async for part in request.stream():
            reading.grow(len(part))
            parts.append(part)
        size = reading.size
        reading.grow(size)
        if size > LARGE_BYTES:
            async with request.state["asks"].turn:
                await asyncio.sleep(0)
        yield b"".join(parts)
    finally:
        reading.close()


def has_left(request: GatewayRequest) -> bool:
    """Whether the client has gone, as far as is known now. What it sends meanwhile is lost: read its body first.

    This takes one step of receiving. starlette's own way, to cancel a scope, is a good part of what a start costs.
    """
    receiving = request.receive().__await__()
    try:
        next(receiving)
    except StopIteration as received:
        return bool(received.value["type"] == "http.disconnect")
    receiving.close()
    return False
