"""Streams: the one-shot routes, in the dialect of their client, and the stream as a resource."""

from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from gateway.asks.parsing import Ask, parse_query
from gateway.dialects import ollama
from gateway.dialects.events import EventId, parse_event_id, read_meta, retry
from gateway.errors import Busy, Cancelled, InvalidRequest, NotFound
from gateway.jobs import Created, Job, Kind
from gateway.streams.log import Progress, ReadableLog
from gateway.web.dialect import DIALECTS, named, speaks_ollama
from gateway.web.responses import EVENT_STREAM, is_event_source
from gateway.web.state import GatewayRequest, body_of, caller, has_left
from gateway.web.streaming import EventResponse, OllamaResponse, Watched

NO_CONTENT = 204  # stops an `EventSource` for good
LATER_MS = 2000  # how soon a reader should reconnect when its stream cannot be looked for because Redis is away


async def chat(request: GatewayRequest) -> ASGIApp:
    """A chat, as a stream of events."""
    return await _one_shot(request, Kind.CHAT)


async def generate(request: GatewayRequest) -> ASGIApp:
    """A completion, as a stream of events."""
    return await _one_shot(request, Kind.GENERATE)


async def embed(request: GatewayRequest) -> ASGIApp:
    """Texts as embeddings."""
    return await _one_shot(request, Kind.EMBED)


async def embeddings(request: GatewayRequest) -> ASGIApp:
    """A text as an embedding."""
    return await _one_shot(request, Kind.EMBEDDINGS)


async def pull(request: GatewayRequest) -> ASGIApp:
    """A pull of a model, where it is allowed."""
    return await _one_shot(request, Kind.PULL)


async def create(request: GatewayRequest) -> Response:
    """Start a stream and tell where it is read and stopped."""
    async with body_of(request) as content:
        _, log = await _start(request, request.state["asks"].for_stream(content, caller(request)))
    meta = read_meta(log.head)
    body: Created = {"id": meta["id"], "url": meta["url"], "kind": meta["kind"], "model": meta["model"]}
    return JSONResponse(body, status_code=201, headers={"Location": body["url"]})


async def read(request: GatewayRequest) -> ASGIApp:
    """Read a stream from the start, or from after the event that the client has seen last."""
    if named(request.scope) not in (None, *DIALECTS):
        raise InvalidRequest(f"as: must be {' or '.join(DIALECTS)}.")
    sid = request.path_params["sid"]
    if last_event_id := _fields(request).get("last_event_id"):
        return await _resume(request, last_event_id, sid)
    log = await request.state["streams"].log(sid)
    if log is None:
        raise NotFound("There is no such stream, or it is no longer held.")
    return _stream(request, sid, log)


async def stop(request: GatewayRequest) -> Response:
    """Stop a stream, in whatever phase it is. Stopping a stream that does not run is fine."""
    await request.state["streams"].stop(request.path_params["sid"], caller(request).identity)
    return Response(status_code=NO_CONTENT)


async def _one_shot(request: GatewayRequest, kind: Kind) -> ASGIApp:
    if request.method == "HEAD":
        return _head(request)
    fields = _fields(request)
    if last_event_id := fields.get("last_event_id"):
        return await _resume(request, last_event_id)
    asks = request.state["asks"]
    if request.method == "GET":
        return _stream(request, *await _start(request, asks.by_query(kind, fields, caller(request))))
    async with body_of(request) as content:
        ask = asks.by_body(kind, fields, content, caller(request))
        if speaks_ollama(request.scope):
            ask = ask.by_model()
        return _stream(request, *await _start(request, ask), whole=ask.whole)


async def _start(request: GatewayRequest, ask: Ask) -> tuple[str, ReadableLog]:
    """Start what is asked for, or join the stream that an equal request has started."""

    async def make() -> Job:
        job = await request.state["shaper"].shape(ask)
        if has_left(request):  # nobody would read the answer until its resume window is over
            raise Cancelled("The client left before its stream had started.")
        return job

    return await request.state["streams"].start(ask.caller.identity, make, ask.claim)


def _fields(request: GatewayRequest) -> dict[str, str]:
    """The query's fields, or only the last event's id where a header has it: `EventSource` keeps the header current.

    An invalid query must not hide the id. The client would reconnect and be refused for ever: nothing would stop it.
    """
    if last_event_id := request.headers.get("last-event-id"):
        return {"last_event_id": last_event_id}
    fields = parse_query(request.scope["query_string"])
    if "lastEventId" in fields:  # as polyfills of `EventSource` spell it
        fields.setdefault("last_event_id", fields.pop("lastEventId"))
    return fields


async def _resume(request: GatewayRequest, last_event_id: str, sid: str | None = None) -> ASGIApp:
    """Continue after the event that a client has seen last, and never start anything; `sid` is the path's, if any."""
    streams, resumes = request.state["streams"], request.state["metrics"].resumes
    seen = parse_event_id(last_event_id)
    named = {name for name in (sid, seen and seen.sid) if name}
    try:
        logs = [await streams.log(name) for name in named]
    except Busy:
        if not is_event_source(request):
            raise
        resumes.labels("later").inc()
        return Response(retry(LATER_MS), headers=EVENT_STREAM)  # the client will come again with the same id
    # The id may be that of an error before there was a stream, which is never held: its reader has seen the end.
    if None in logs:
        resumes.labels("gone").inc()
        return Response(status_code=NO_CONTENT)
    log = logs[0] if len(logs) == 1 else None
    return _continue(request, seen, log)


def _continue(request: GatewayRequest, seen: EventId | None, log: ReadableLog | None) -> ASGIApp:
    """Read a log on from an event. Either is None when the client's ids are invalid or contradict each other."""
    resumes = request.state["metrics"].resumes
    if seen is None or log is None or (progress := log.progress(seen.seq)) is Progress.UNKNOWN:
        resumes.labels("invalid").inc()
        raise InvalidRequest("Last-Event-ID: is not the id of an event of this stream.")
    if progress is Progress.NOTHING:
        resumes.labels("ended").inc()
        return Response(status_code=NO_CONTENT)
    if request.method != "HEAD":
        resumes.labels("continued").inc()
    return _stream(request, seen.sid, log, seen.seq)


def _stream(request: GatewayRequest, sid: str, log: ReadableLog, after: int = 0, *, whole: bool = False) -> ASGIApp:
    """The response to a reader of a log; `whole` is for Ollama's clients, who otherwise get lines."""
    if request.method == "HEAD":
        return _head(request)
    chunks = log.read(after, reconnects=is_event_source(request))
    sending: Any = {"ping_seconds": request.state["ping_interval"], "send_body": request.scope["send_body"]}
    response: EventResponse
    as_ollama = speaks_ollama(request.scope)
    request.state["metrics"].readers.labels("ollama" if as_ollama else "events").inc()
    if as_ollama:
        response = OllamaResponse(sid, chunks, ollama.Whole() if whole else ollama.Lines(), **sending)
    else:
        response = EventResponse(chunks, **sending)
    return Watched(response, request.state["streams"], sid)


def _head(request: GatewayRequest) -> Response:
    content_type = {"Content-Type": ollama.NDJSON} if speaks_ollama(request.scope) else {}
    return Response(headers=EVENT_STREAM | content_type)
