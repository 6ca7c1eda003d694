"""Prometheus metrics. Label sets are bounded: `model` is a model that has answered, or `other`."""

from collections.abc import Iterable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from gateway import __version__
from gateway.errors import LimitReached, UpstreamError
from gateway.jobs import Outcome
from gateway.streams.generation import Generation, Observer
from gateway.streams.ledger import Ledger
from gateway.streams.log import LogStore
from gateway.streams.queue import Queue
from gateway.streams.running import Running
from gateway.upstream.servers import Health
from gateway.upstream.wire import normal_name

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would be a second series for each metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MODELS = 200  # that get their own time series: Ollama may know one model by many names
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1)
CANCEL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1)


class Metrics(Observer):
    """Counts generations, in a registry of its own so that one process can hold several gateways."""

    def __init__(self, queue: Queue, logs: LogStore, running: Running, ledger: Ledger) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, registry=self._registry)
        gauge = partial(Gauge, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        self.resumes = counter("gateway_resumes", "Reconnects that named an event, by result.", ["result"])
        self.readers = counter("gateway_readers", "Responses that read a stream, by dialect.", ["dialect"])
        self._active = gauge("gateway_streams_active", "Streams that wait or run now.")
        self._total = counter("gateway_streams", "Streams that have ended.", ["kind", "model", "outcome"])
        self._first_token = histogram(
            "gateway_time_to_first_token_seconds", "From the request to the first token.", buckets=SECONDS
        )
        self._per_token = histogram(
            "gateway_time_per_output_token_seconds", "Mean time between two tokens of a stream.", buckets=TOKEN_SECONDS
        )
        self._tokens = counter("gateway_tokens", "Tokens as Ollama counted them.", ["model", "direction"])
        self._queue_wait = histogram("gateway_queue_wait_seconds", "Time in the queue.", buckets=SECONDS)
        self._cancel = histogram(
            "gateway_cancel_seconds", "From a stop to the closed upstream connection.", buckets=CANCEL_SECONDS
        )
        self._errors = counter("gateway_upstream_errors", "Streams that failed at Ollama, by error code.", ["code"])
        self._up = gauge("gateway_ollama_up", "Whether an Ollama server answers: 1, or 0.", ["server"])
        for name, meaning, level in (
            ("gateway_queue_depth", "Requests that wait for a slot.", lambda: queue.waiting),
            ("gateway_log_bytes", "Bytes that running and retained streams hold.", lambda: logs.size),
            ("gateway_held_bytes", "Bytes that logs, bodies and unfinished lines hold.", lambda: ledger.size),
            ("gateway_held_bytes_largest", "Bytes that the client with most of them holds.", lambda: ledger.largest),
            ("gateway_viewers_active", "Clients that read a stream now.", lambda: running.viewers),
        ):
            gauge(name, meaning).set_function(level)
        gauge("gateway_build_info", "The version.", ["version"]).labels(__version__).set(1)
        self._answered: set[str] = set()

    def set_servers(self, servers: Iterable[Health]) -> None:
        """Record which servers answer. There are as many series as servers."""
        for server in servers:
            self._up.labels(server["url"]).set(server["problem"] is None)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def started(self, generation: Generation) -> None:
        self._active.inc()

    def ended(self, generation: Generation) -> None:
        model = self._model(generation)
        assert generation.outcome is not None
        self._active.dec()
        self._total.labels(generation.job.kind, model, generation.outcome).inc()
        if isinstance(generation.error, UpstreamError | LimitReached):
            self._errors.labels(generation.error.code).inc()
        line = generation.last_line
        self._tokens.labels(model, "in").inc(_count(line.get("prompt_eval_count")))
        self._tokens.labels(model, "out").inc(_count(line.get("eval_count")))
        if not generation.job.kind.traits.generates:
            return
        moments = generation.moments
        if moments.asked is not None:
            self._queue_wait.observe(moments.asked - moments.created)
        if moments.first_token is not None and moments.ended is not None:
            self._first_token.observe(moments.first_token - moments.created)
            between = generation.log.last - 2  # all events but the first token and `end`
            if between > 0:
                self._per_token.observe((moments.ended - moments.first_token) / between)

    def released(self, generation: Generation, seconds: float) -> None:
        if generation.outcome is Outcome.CANCELLED:
            self._cancel.observe(seconds)

    def _model(self, generation: Generation) -> str:
        """The label for a model: anybody can ask for any name, and only one that has answered gets a label."""
        model = normal_name(generation.job.model)
        answered = generation.moments.first_token is not None or generation.outcome is Outcome.COMPLETE
        if answered and generation.job.kind.traits.generates and len(self._answered) < MODELS:
            self._answered.add(model)
        return model if model in self._answered else "other"


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
