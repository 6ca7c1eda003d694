"""What handlers find in `request.state`: the services of one gateway, made by the lifespan in `app`."""

from typing import TypedDict

from starlette.requests import Request

from gateway.health import Readiness
from gateway.metrics import Metrics
from gateway.models import Models
from gateway.quotas import Quotas
from gateway.requests import Bounds
from gateway.security import Keys
from gateway.shaping import Client, Shaper
from gateway.streams import Streams


class GatewayState(TypedDict):
    bounds: Bounds
    keys: Keys
    quotas: Quotas
    streams: Streams
    models: Models
    shaper: Shaper
    readiness: Readiness
    metrics: Metrics
    allow_preview: bool
    openapi: bytes


GatewayRequest = Request[GatewayState]


def client(request: GatewayRequest) -> Client:
    """Who asks."""
    address = request.client.host if request.client else ""
    return Client(address, dict(request.headers))
