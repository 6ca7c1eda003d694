"""Prometheus metrics. Label sets are bounded: `model` is a model that has answered, else `other`."""

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from gateway import __version__
from gateway.admission import Admission
from gateway.errors import LimitReached, UpstreamError
from gateway.logs import LogStore
from gateway.ollama import normal_name
from gateway.relay import Generation, Kind, Outcome
from gateway.streams import Observer, Streams
from gateway.upstreams import Health

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asked for

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MODELS = 200
"""So many models get time series of their own. Ollama may know one model by many names."""

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1)
CANCEL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1)


class Metrics(Observer):
    """Counts generations, in a registry of its own so that one process can hold several gateways."""

    def __init__(self, admission: Admission, logs: LogStore) -> None:
        self._registry = registry = CollectorRegistry()
        self.resumes = Counter(
            "gateway_resumes", "Reconnects that named an event, by result.", ["result"], registry=registry
        )
        self._active = Gauge("gateway_streams_active", "Streams that wait or run now.", registry=registry)
        self._total = Counter(
            "gateway_streams", "Streams that have ended.", ["kind", "model", "outcome"], registry=registry
        )
        self._first_token = Histogram(
            "gateway_time_to_first_token_seconds",
            "From the request to the first token.",
            buckets=SECONDS,
            registry=registry,
        )
        self._per_token = Histogram(
            "gateway_time_per_output_token_seconds",
            "Between two tokens, mean of a stream.",
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "gateway_tokens", "Tokens as Ollama counted them.", ["model", "direction"], registry=registry
        )
        self._queue_wait = Histogram(
            "gateway_queue_wait_seconds", "Time in the queue.", buckets=SECONDS, registry=registry
        )
        self._cancel = Histogram(
            "gateway_cancel_seconds",
            "From a stop to the closed upstream connection.",
            buckets=CANCEL_SECONDS,
            registry=registry,
        )
        self._errors = Counter(
            "gateway_upstream_errors", "Streams that failed at Ollama, by error code.", ["code"], registry=registry
        )
        queue_depth = Gauge("gateway_queue_depth", "Requests that wait for a slot.", registry=registry)
        queue_depth.set_function(lambda: admission.queued)
        log_bytes = Gauge("gateway_log_bytes", "Bytes that running and retained streams hold.", registry=registry)
        log_bytes.set_function(lambda: logs.size)
        self._up = Gauge(
            "gateway_ollama_up", "Whether an Ollama server answers: 1, or 0.", ["server"], registry=registry
        )
        Gauge("gateway_build_info", "The version.", ["version"], registry=registry).labels(__version__).set(1)
        self._answered: set[str] = set()

    def watch(self, streams: Streams) -> None:
        """Read from `streams` what is a level and no event."""
        viewers = Gauge("gateway_viewers_active", "Clients that read a stream now.", registry=self._registry)
        viewers.set_function(lambda: streams.viewers)

    def servers(self, servers: Iterable[Health]) -> None:
        """Take over which servers answer: as many series as there are servers."""
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
        if generation.job.kind is Kind.PULL:
            return
        if generation.asked_at is not None:
            self._queue_wait.observe(generation.asked_at - generation.created_at)
        if generation.first_token_at is not None:
            self._first_token.observe(generation.first_token_at - generation.created_at)
            between = generation.log.last - 2  # events, less the first and `end`
            if between > 0:
                self._per_token.observe((generation.ended_at - generation.first_token_at) / between)

    def released(self, generation: Generation, seconds: float) -> None:
        if generation.outcome is Outcome.CANCELLED:
            self._cancel.observe(seconds)

    def _model(self, generation: Generation) -> str:
        """Anybody can ask for any name; only one that has answered is worth a time series."""
        model = normal_name(generation.job.model)
        answered = generation.first_token_at is not None and generation.job.kind is not Kind.PULL
        if answered and len(self._answered) < MODELS:
            self._answered.add(model)
        return model if model in self._answered else "other"


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
