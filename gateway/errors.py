"""Every error a client can meet. Each class owns its `code`, its HTTP `status` and whether a retry can help.

GatewayError
├── RequestError          the request itself is at fault
│   ├── InvalidRequest  TooLarge  NotFound  MethodNotAllowed
│   └── Unauthorized  ForbiddenOrigin  ForbiddenHost
├── Busy  ShuttingDown    the gateway cannot take it now
├── ShapeFailed  InternalError
├── Cancelled             somebody stopped it, or the last viewer left
├── UpstreamError         Ollama is at fault
│   ├── OllamaUnreachable  OllamaError  ModelNotFound
│   └── BadUpstream  Truncated
├── ProducerLost          the replica of the gateway that ran it is gone
└── LimitReached          a time limit fired; the class names which
    └── ConnectTimeout  FirstTokenTimeout  IdleTimeout  TotalTimeout
"""

from typing import TypedDict


class ErrorPayload(TypedDict):
    """The one JSON shape of an error, as a response body and as a stream's terminal message."""

    error: str
    code: str
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
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status
        if retryable is not None:
            self.retryable = retryable
        if retry_after is not None:
            self.retry_after = retry_after

    def payload(self, phase: str = "request") -> ErrorPayload:
        """`phase` is where the stream was: `request` before there is one, else the phase of its status events."""
        return {"error": self.message, "code": self.code, "phase": phase, "retryable": self.retryable}


class RequestError(GatewayError):
    """The request itself is at fault; the same request will fail again."""


class InvalidRequest(RequestError):
    code = "invalid_request"
    status = 422


class TooLarge(RequestError):
    code = "too_large"
    status = 413


class NotFound(RequestError):
    code = "not_found"
    status = 404


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"
    status = 405


class Unauthorized(RequestError):
    code = "unauthorized"
    status = 401


class ForbiddenOrigin(RequestError):
    code = "forbidden_origin"
    status = 403


class ForbiddenHost(RequestError):
    code = "forbidden_host"
    status = 403


class Busy(GatewayError):
    code = "busy"
    status = 503
    retryable = True
    retry_after = 5


class ShuttingDown(GatewayError):
    code = "shutting_down"
    status = 503
    retryable = True
    retry_after = 5


class ShapeFailed(GatewayError):
    code = "shape_failed"
    status = 500


class InternalError(GatewayError):
    code = "internal_error"
    status = 500


class Cancelled(GatewayError):
    code = "cancelled"
    status = 499


class UpstreamError(GatewayError):
    """Ollama is at fault."""

    status = 502


class OllamaUnreachable(UpstreamError):
    code = "ollama_unreachable"
    retryable = True


class OllamaError(UpstreamError):
    code = "ollama_error"


class ModelNotFound(UpstreamError):
    code = "model_not_found"
    status = 404


class BadUpstream(UpstreamError):
    code = "bad_upstream"


class Truncated(UpstreamError):
    code = "truncated"


class ProducerLost(GatewayError):
    """The replica that ran a stream is gone, and how the answer would have gone on with it."""

    code = "producer_lost"
    status = 502
    retryable = True


class LimitReached(GatewayError):
    """A time limit fired."""

    status = 504
    retryable = True


class ConnectTimeout(LimitReached):
    code = "connect_timeout"


class FirstTokenTimeout(LimitReached):
    code = "first_token_timeout"


class IdleTimeout(LimitReached):
    code = "idle_timeout"


class TotalTimeout(LimitReached):
    code = "total_timeout"
