"""Shaping: from what the client asks to what Ollama is sent."""

import orjson

from gateway.errors import InvalidRequest
from gateway.models import Models
from gateway.relay import Job, Kind
from gateway.requests import Ask


class Shaper:
    """The operator's say in every request."""

    def __init__(self, models: Models, *, default_model: str | None) -> None:
        self.default_model = default_model
        self._models = models

    async def shape(self, ask: Ask) -> Job:
        """The job that an ask becomes. Raises `InvalidRequest`."""
        body = dict(ask.body)
        body["model"] = body.get("model") or self.default_model or await self._models.first()
        if not body["model"]:
            raise InvalidRequest("model: is missing, and Ollama has none installed to fall back on.")
        return Job(Kind(ask.kind), body["model"], orjson.dumps(body))
