"""Streams: the one-shot routes for `EventSource` and curl, and the stream as a resource."""

from dataclasses import replace
from typing import Literal

from starlette.responses import JSONResponse, Response

from gateway.errors import Busy, InvalidRequest, NotFound
from gateway.events import LOST, parse_event_id, retry
from gateway.logs import EventLog
from gateway.quotas import network
from gateway.relay import Generation, Kind
from gateway.requests import Ask, ask_by_body, ask_by_query, ask_for_stream, check_bounds, parse_query
from gateway.sse import HEADERS, StreamResponse, is_event_source
from gateway.state import GatewayRequest, client
from gateway.streams import stream_url

NO_CONTENT = 204
"""What stops an `EventSource` for good."""

LATER_MS = 2000
"""How soon a reader shall come again whose stream cannot be found because Redis is away."""


async def chat(request: GatewayRequest) -> Response:
    """A chat, as a stream of events."""
    return await _one_shot(request, Kind.CHAT)


async def generate(request: GatewayRequest) -> Response:
    """A completion, as a stream of events."""
    return await _one_shot(request, Kind.GENERATE)


async def create(request: GatewayRequest) -> Response:
    """Start a stream and tell where it is read and stopped."""
    generation = await _start(request, ask_for_stream(await request.body()))
    url = stream_url(generation.sid)
    body = {"id": generation.sid, "url": url, "kind": generation.job.kind, "model": generation.job.model}
    return JSONResponse(body, status_code=201, headers={"Location": url})


async def read(request: GatewayRequest) -> Response:
    """Read a stream from the start, or from after the event that the client has seen last."""
    sid = request.path_params["sid"]
    if last_event_id := _fields(request).get("last_event_id"):
        return await _resume(request, last_event_id, sid)
    log = await request.state["streams"].log(sid)
    if log is None:
        raise NotFound("There is no such stream (any more).")
    return _head() if request.method == "HEAD" else _stream(request, sid, log, 0)


async def stop(request: GatewayRequest) -> Response:
    """Stop a stream, in whatever phase it is. Stopping what does not run is fine."""
    await request.state["streams"].stop_anywhere(request.path_params["sid"])
    return Response(status_code=NO_CONTENT)


async def _one_shot(request: GatewayRequest, kind: Literal[Kind.CHAT, Kind.GENERATE]) -> Response:
    if request.method == "HEAD":
        return _head()
    fields = _fields(request)
    if last_event_id := fields.get("last_event_id"):
        return await _resume(request, last_event_id)
    ask = ask_by_query(kind, fields) if request.method == "GET" else ask_by_body(kind, fields, await request.body())
    generation = await _start(request, ask)
    return _stream(request, generation.sid, generation.log, 0)


async def _start(request: GatewayRequest, ask: Ask) -> Generation:
    state = request.state
    check_bounds(ask.body, state["bounds"])
    who = client(request)
    job = replace(
        await state["shaper"].shape(ask, who),
        client=request.scope["key"] or network(who.address),
        request_id=request.scope["request_id"],
    )
    with state["quotas"].starting(job.client):
        return await state["streams"].start(job, ask.resume_window)


def _fields(request: GatewayRequest) -> dict[str, str]:
    """The query's fields, or the last event's id alone where a header tells it.

    The header wins: `EventSource` keeps it current, while the query stays what the page wrote. Wrong as it may be,
    it must not hide the id: a reconnect after its refusal would be refused again, for ever, instead of stopped.
    """
    if last_event_id := request.headers.get("last-event-id"):
        return {"last_event_id": last_event_id}
    return parse_query(request.scope["query_string"])


async def _resume(request: GatewayRequest, last_event_id: str, sid: str | None = None) -> Response:
    """Go on after the event that a client has seen last; never start anything."""
    streams, resumes = request.state["streams"], request.state["metrics"].resumes
    seen = parse_event_id(last_event_id)
    named = {name for name in (sid, seen and seen.sid) if name}
    try:
        logs = [await streams.log(name) for name in named]
    except Busy:
        if not is_event_source(request):
            raise
        resumes.labels("later").inc()
        return Response(retry(LATER_MS), headers=HEADERS)  # it will come again with the same id
    # also after the id of an error's event, which belongs to no stream: the reader has seen its end
    if None in logs:
        resumes.labels("gone").inc()
        return Response(status_code=NO_CONTENT)
    log = logs[0] if len(logs) == 1 else None
    told = seen is not None and seen.seq in (LOST, LOST + 1)  # of the death of the stream's writer
    if seen is None or log is None or not (told or log.behind or seen.seq <= log.last):
        resumes.labels("invalid").inc()
        raise InvalidRequest("Last-Event-ID: is not the id of an event of this stream.")
    if told or (log.ended and seen.seq == log.last and not log.behind):
        resumes.labels("ended").inc()
        return Response(status_code=NO_CONTENT)
    if request.method == "HEAD":
        return _head()
    resumes.labels("continued").inc()
    return _stream(request, seen.sid, log, seen.seq)


def _stream(request: GatewayRequest, sid: str, log: EventLog, after: int) -> Response:
    return StreamResponse(request.state["streams"], sid, log.read(after, returns=is_event_source(request)))


def _head() -> Response:
    """The headers of a stream, which `HEAD` must not start."""
    return Response(headers=HEADERS)
