"""Every error a client can meet. Each class owns its `code`, its HTTP `status` and whether a retry can help.

GatewayError
├── RequestError          the request itself is at fault
│   ├── InvalidRequest  TooLarge  NotFound  MethodNotAllowed  Conflict
│   └── Unauthorized  ForbiddenOrigin  ForbiddenHost
├── Busy  ShuttingDown    the gateway cannot take it now
├── ShapeFailed  InternalError
├── Cancelled             somebody stopped it, or the last viewer left
├── UpstreamError         Ollama is at fault
│   ├── OllamaUnreachable (OllamaDown)  OllamaError  ModelNotFound
│   └── BadUpstream  Truncated
├── ProducerLost          the replica of the gateway that ran it is gone
└── LimitReached          a time limit fired; the class names which
    └── ConnectTimeout  FirstTokenTimeout  IdleTimeout  TotalTimeout
"""

from typing import TypedDict


class ErrorPayload(TypedDict):
    """The one JSON shape of an error, as a response body and as a stream's terminal message.

    `status` is the HTTP status that it has, or would have had before the stream began.
    """

    error: str
    code: str
    status: int
    phase: str
    retryable: bool


class GatewayError(Exception):
    """`message` is for a person and never holds a prompt, an answer or an internal detail.

    `status` overrides the class's own (an `ollama_error` keeps Ollama's status); `retry_after` is in seconds.
    """

    code: str
    status: int = 500
    retryable: bool = False
    retry_after: int | None = None

    def __init__(
        self, message: str, *, status: int | None = None, retryable: bool | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.status if status is None else status
        self.retryable = self.retryable if retryable is None else retryable
        self.retry_after = self.retry_after if retry_after is None else retry_after

    def payload(self, phase: str = "request") -> ErrorPayload:
        """`phase` is where the stream was: `request` before there is one, and then the phase of its status events."""
        return {
            "error": self.message,
            "code": self.code,
            "status": self.status,
            "phase": phase,
            "retryable": self.retryable,
        }


class RequestError(GatewayError):
    """The request itself is at fault; the same request will fail again."""


class InvalidRequest(RequestError):
    code, status = "invalid_request", 422


class TooLarge(RequestError):
    code, status = "too_large", 413


class NotFound(RequestError):
    code, status = "not_found", 404


class MethodNotAllowed(RequestError):
    code, status = "method_not_allowed", 405


class Conflict(RequestError):
    code, status = "conflict", 409


class Unauthorized(RequestError):
    code, status = "unauthorized", 401


class ForbiddenOrigin(RequestError):
    code, status = "forbidden_origin", 403


class ForbiddenHost(RequestError):
    code, status = "forbidden_host", 403


class Busy(GatewayError):
    code, status, retryable, retry_after = "busy", 503, True, 5


class ShuttingDown(GatewayError):
    code, status, retryable, retry_after = "shutting_down", 503, True, 5


class ShapeFailed(GatewayError):
    code, status = "shape_failed", 500


class InternalError(GatewayError):
    code, status = "internal_error", 500


class Cancelled(GatewayError):
    code, status = "cancelled", 499


class UpstreamError(GatewayError):
    """Ollama is at fault."""

    status = 502


class OllamaUnreachable(UpstreamError):
    code, retryable = "ollama_unreachable", True


class OllamaDown(OllamaUnreachable):
    """Nobody listens there, so that what was asked does not run."""


class OllamaError(UpstreamError):
    code = "ollama_error"


class ModelNotFound(UpstreamError):
    code, status = "model_not_found", 404


class BadUpstream(UpstreamError):
    code = "bad_upstream"


class Truncated(UpstreamError):
    code = "truncated"


class ProducerLost(GatewayError):
    """The replica that ran the stream is gone, and the rest of the answer is lost."""

    code, status, retryable = "producer_lost", 502, True


class LimitReached(GatewayError):
    """A time limit fired."""

    status, retryable = 504, True


class ConnectTimeout(LimitReached):
    code = "connect_timeout"


class FirstTokenTimeout(LimitReached):
    code = "first_token_timeout"


class IdleTimeout(LimitReached):
    code = "idle_timeout"


class TotalTimeout(LimitReached):
    code = "total_timeout"
