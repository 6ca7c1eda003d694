"""Logs that all replicas share, in Redis Streams.

The replica that writes a stream serves its own viewers from memory and publishes what it appends, several events to an
entry. Another one that is asked for the stream keeps a mirror of it, fed by the one reader of its `Replica`, for as
long as it has viewers there. So Redis is on nobody's way from a token to the writer's own viewers.

A log in Redis: `0-1` holds its head and its writer; then an entry for each batch of events, with the number of the
batch's last event as id, so that Redis refuses a second writer; `end` marks the last one.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

import orjson
from redis.exceptions import RedisError, ResponseError

from gateway import events
from gateway.errors import GatewayError, ProducerLost
from gateway.logs import Watched
from gateway.logs.memory import MemoryLog, MemoryLogs
from gateway.replicas import KEY_TTL_MS, LOST_SECONDS, RETRY_SECONDS, Fields, Replica, lasting, lease_key, translated

logger = logging.getLogger(__name__)

PUBLISH_SECONDS = 0.05
"""Events of one stream that come within this time share an entry: readers at other replicas see them this much later,
and Redis works this much less."""

ENTRY_BYTES = 2**20
PAGE = 256

LINGER_SECONDS = 2.0
"""How long a mirror without viewers is kept for one who reconnects."""

END_TTL_SECONDS = LOST_SECONDS
"""Added to the retention of an ended log, so that whoever reads it has heard of the end before it is gone."""

HEAD_ID = "0-1"

LOSE = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last then return -1 end
for index = 1, #last[2], 2 do if last[2][index] == 'end' then return 0 end end
redis.call('XADD', KEYS[1], ARGV[1], 'lost', ARGV[2], 'end', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
"""End the log of a dead writer, once, whoever comes first. -1 when the log is not there any more."""


class Writer(Protocol):
    """What makes this replica's own streams, and is told what other replicas want of them."""

    def stop(self, sid: str) -> None:
        """Somebody stopped the stream."""
        ...

    def joined(self, sid: str) -> None:
        """Another replica has viewers of it now."""
        ...

    def left(self, sid: str) -> None:
        """That replica has none any more."""
        ...

    def lost(self, sid: str, error: GatewayError) -> None:
        """The other replicas took this one for dead and have ended the stream."""
        ...


class RedisLogs(MemoryLogs):
    """The logs that this replica writes or mirrors; see `MemoryLogs` for the bounds. An async context manager."""

    shared = True

    def __init__(self, replica: Replica, **limits: Any) -> None:
        super().__init__(**limits)
        self.replica = replica
        self._writer: Writer
        self._ttl_ms = round((limits["retain_seconds"] + END_TTL_SECONDS) * 1000)
        self._finding: dict[str, asyncio.Task[MemoryLog | None]] = {}
        self._unpublished: dict[PublishedLog, None] = {}
        self._changed = asyncio.Event()
        self._farewell = b""
        self._closing = False
        replica.on_mail.append(self._mail)
        replica.on_death.append(self._died)
        replica.on_outage.append(self._outage)
        replica.on_renewal.append(self._renew)
        replica.watched = self._partners

    async def __aenter__(self) -> "RedisLogs":
        self._publisher = asyncio.create_task(self._publish_all(), name="publisher")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True  # because redis-py may swallow a cancellation
        self._publisher.cancel()
        await asyncio.wait([self._publisher])
        with suppress(RedisError, OSError):
            while self._unpublished and self.problem is None:
                await self._publish()
                await asyncio.sleep(PUBLISH_SECONDS)
        if self._unpublished:
            logger.warning("Redis is away: other replicas will not learn how the last streams ended.")
        self.close()

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        return "Redis does not answer." if self.replica.silent_seconds > LOST_SECONDS else None

    def serve(self, writer: Writer) -> None:
        """Tell `writer` what other replicas want."""
        self._writer = writer

    async def create(self, sid: str, head: bytes) -> "PublishedLog":
        log = PublishedLog(self, sid, head)
        self.hold(log)
        try:
            with translated():  # before anybody hears of the stream: the next request may come to another replica
                await self.replica.run(*log.beginning())
        except BaseException:
            self._drop(sid)
            raise
        log.dismiss(self._farewell)
        return log

    async def find(self, sid: str) -> MemoryLog | None:
        if sid not in self._finding:
            if sid in self._logs:
                return self._logs[sid]
            task = self._finding[sid] = asyncio.create_task(self._fetch(sid))
            task.add_done_callback(lambda _: self._finding.pop(sid))
        with translated():  # shielded, because several requests may wait for it
            return await asyncio.shield(self._finding[sid])

    def elsewhere(self, sid: str) -> Watched | None:  # type: ignore[override]
        log = self._logs.get(sid)
        return log if isinstance(log, Mirror) else None

    async def stop(self, sid: str) -> None:
        with translated():
            entries = await self.replica.run("XRANGE", log_key(sid), HEAD_ID, HEAD_ID)
        if entries:
            self.replica.send(entries[0][1][b"producer"].decode(), "stop", sid)

    def dismiss(self, retry: int) -> None:
        self._farewell = events.retry(retry)
        for log in self._logs.values():
            log.dismiss(self._farewell)

    def publish(self, log: "PublishedLog") -> None:
        """Let Redis have what is new."""
        self._unpublished[log] = None
        self._changed.set()

    def release(self, mirror: "Mirror") -> None:
        """Let go of a mirror. Readers that still have it read on to its end."""
        if self._logs.get(mirror.sid) is mirror:
            self.replica.unfollow(log_key(mirror.sid))
            del self._logs[mirror.sid]
            self.size -= mirror.size

    def _drop(self, sid: str) -> None:
        log = self._logs[sid]
        super()._drop(sid)
        if isinstance(log, PublishedLog) and log.ended:  # of age, or to make room: here, and so in Redis
            self.replica.post("PEXPIRE", log_key(sid), round(END_TTL_SECONDS * 1000))

    def _published(self) -> list["PublishedLog"]:
        return [log for log in self._logs.values() if isinstance(log, PublishedLog) and not log.ended]

    def _mirrors(self) -> list["Mirror"]:
        return [log for log in self._logs.values() if isinstance(log, Mirror) and not log.ended]

    async def _fetch(self, sid: str) -> "Mirror | None":
        """A mirror of what Redis has of a stream, which then follows it."""
        key = log_key(sid)
        page = await self.replica.run("XRANGE", key, HEAD_ID, "+", "COUNT", PAGE)
        if not page or b"head" not in page[0][1]:
            return None
        (_, first), *page = page
        mirror = Mirror(self, sid, first[b"head"], first[b"producer"].decode())
        self.hold(mirror)
        last_id = HEAD_ID
        try:
            while page:
                for entry_id, fields in page:
                    mirror.take(entry_id, fields)
                    last_id = entry_id.decode()
                page = await self.replica.run("XRANGE", key, f"({last_id}", "+", "COUNT", PAGE)
        except BaseException:
            self.release(mirror)
            raise
        mirror.dismiss(self._farewell)
        if not mirror.ended:
            self.replica.follow(key, last_id, mirror.take)
        mirror.linger()
        return mirror

    async def _publish_all(self) -> None:
        while not self._closing:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._publish()
            except (RedisError, OSError) as error:
                self.replica.trouble(error)
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)
            if self._unpublished:
                self._changed.set()
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _publish(self) -> None:
        """Send once what is not in Redis yet, of each log as much as makes an entry."""
        logs, self._unpublished = list(self._unpublished), {}
        sent = [(log, last, command) for log in logs for last, command in log.commands(self._ttl_ms)]
        try:
            answers = await self.replica.run_all([command for _, _, command in sent])
            for (log, last, command), answer in zip(sent, answers, strict=True):
                if command[0] != "PEXPIRE":
                    await self._learn(log, last, answer)
        except BaseException:
            self._unpublished = dict.fromkeys(logs) | self._unpublished
            raise
        for log in logs:
            if log.unsent or log.fresh:
                self.publish(log)
            elif log.ended:
                self.retain(log)

    async def _learn(self, log: "PublishedLog", last: int, answer: Any) -> None:
        """Learn what has become of an entry that goes up to the event `last`."""
        if answer is None:  # Redis has forgotten the log: it was restarted, or has lost it under pressure
            log.fresh, log.sent = True, 0
        elif not isinstance(answer, Exception):
            log.fresh = False
            log.sent = last
        elif isinstance(answer, ResponseError) and "equal or smaller" in str(answer):
            await self._refused(log)
        else:
            self.replica.trouble(answer)

    async def _refused(self, log: "PublishedLog") -> None:
        """Redis has newer events: this replica's own, if an answer was lost on the way, or somebody has ended it."""
        newest = await self.replica.run("XREVRANGE", log_key(log.sid), "+", "-", "COUNT", 1)
        log.fresh = not newest
        if (seq := int(newest[0][0].partition(b"-")[0]) if newest else 0) < events.LOST:
            log.sent = seq
        else:
            log.sent = log.last
            self._writer.lost(log.sid, ProducerLost("The other replicas of the gateway took this one for dead."))

    def _mail(self, fields: Fields) -> None:
        sid, sender = fields[b"sid"].decode(), fields[b"from"].decode()
        log = self._logs.get(sid)
        match fields[b"what"], log:
            case b"join", PublishedLog():
                if sender not in log.replicas:
                    log.replicas.add(sender)
                    self._writer.joined(sid)
                if log.notice:
                    self.replica.send(sender, "notice", sid, log.notice)
            case b"leave", PublishedLog():
                self._left(log, sender)
            case b"stop", _:
                self._writer.stop(sid)
            case b"notice", Mirror():
                log.announce(fields[b"data"])

    def _left(self, log: "PublishedLog", sender: str) -> None:
        if sender in log.replicas:
            log.replicas.discard(sender)
            self._writer.left(log.sid)

    def _partners(self) -> set[str]:
        """The replicas that write what is read here, or read what is written here."""
        return {mirror.producer for mirror in self._mirrors()}.union(*(log.replicas for log in self._published()))

    async def _renew(self) -> None:
        for mirror in self._mirrors():
            mirror.remind()
        logs = self._published()
        kept = await self.replica.run_all([("PEXPIRE", log_key(log.sid), KEY_TTL_MS) for log in logs])
        for log, there in zip(logs, kept, strict=True):
            if there == 0:
                log.fresh, log.sent = True, 0
                self.publish(log)

    async def _died(self, replica: str) -> None:
        for published in self._published():
            self._left(published, replica)
        for mirror in self._mirrors():
            if mirror.producer == replica:
                terminal, summary = mirror.obituary("The replica of the gateway that ran this request is gone.")
                lost = orjson.dumps([terminal.decode(), summary])
                keys = (log_key(mirror.sid), lease_key(replica))
                arguments = (f"{events.LOST + 1}-0", lost, self._ttl_ms)
                if await self.replica.run("EVAL", LOSE, 2, *keys, *arguments) == -1:
                    mirror.lose(terminal, summary)

    def _outage(self) -> None:
        """Without Redis nothing is heard of the streams of others. Their readers shall not wait for ever."""
        for mirror in self._mirrors():
            mirror.lose(*mirror.obituary("The gateway has lost its Redis, which told of this stream."))
            self.release(mirror)  # whoever comes back finds the stream again when Redis is back


class PublishedLog(MemoryLog):
    """A log that this replica writes, and Redis gets. `sent` events are there; `fresh`: not even its head is.

    `replicas` are the others that have viewers of it.
    """

    _logs: RedisLogs

    def __init__(self, logs: RedisLogs, sid: str, head: bytes) -> None:
        super().__init__(logs, sid, head)
        self.fresh = False
        self.sent = 0
        self.replicas: set[str] = set()
        self.notice = b""

    def announce(self, frame: bytes) -> None:
        super().announce(frame)
        self.notice = frame
        for replica in self.replicas:
            self._logs.replica.send(replica, "notice", self.sid, frame)

    @property
    def unsent(self) -> int:
        """How many events Redis has not got yet."""
        return self.last - self.sent

    def beginning(self) -> tuple[Any, ...]:
        """The command that makes the log in Redis."""
        producer = self._logs.replica.name
        return lasting("XADD", log_key(self.sid), HEAD_ID, "head", self._head, "producer", producer)

    def commands(self, ttl_ms: int) -> list[tuple[int, tuple[Any, ...]]]:
        """What makes Redis know what is new, and up to which event each command goes; `ttl_ms` is an ended log's."""
        commands = [(0, self.beginning())] if self.fresh else []
        if frames := self._next_frames():
            last = self.sent + len(frames)
            fields: list[object] = ["first", self.sent + 1, "events", b"".join(frames)]
            if self.ended and last == self.last:
                fields += ["end", 1]
            commands.append((last, ("XADD", log_key(self.sid), "NOMKSTREAM", f"{last}-0", *fields)))
        if self.ended:
            commands.append((0, ("PEXPIRE", log_key(self.sid), ttl_ms)))
        return commands

    def _next_frames(self) -> list[bytes]:
        """The events that Redis gets next: as many as an entry may hold, and at least one if there is one."""
        size = 0
        for stop in range(self.sent, self.last):
            size += len(self._frames[stop])
            if size > ENTRY_BYTES:
                return self._frames[self.sent : stop + 1]
        return self._frames[self.sent :]

    def _wake(self) -> None:
        super()._wake()
        if self.unsent:
            self._logs.publish(self)

    def _retain(self) -> None:
        """Only when Redis has the end: until then this is the only place that knows it."""
        if not self.unsent:
            super()._retain()


class Mirror(MemoryLog):
    """What this replica knows of a log that `producer` writes. It is let go when nobody reads it."""

    _logs: RedisLogs

    def __init__(self, logs: RedisLogs, sid: str, head: bytes, producer: str) -> None:
        super().__init__(logs, sid, head)
        self.producer = producer
        self._viewers = 0
        self._lingering: asyncio.TimerHandle | None = None

    @property
    def behind(self) -> bool:  # type: ignore[override]
        return not self.ended or bool(self._last_words)

    def take(self, _: bytes, fields: Fields) -> None:
        """Add what is new in an entry of the log: all of it is published again when Redis had lost it."""
        if b"lost" in fields:
            terminal, summary = orjson.loads(fields[b"lost"])
            self.lose(terminal.encode(), summary)
        elif b"events" in fields and not self.ended:
            known = self.last - int(fields[b"first"]) + 1
            frames = [frame + b"\n\n" for frame in fields[b"events"].split(b"\n\n")[:-1]][known:]
            try:
                if frames:
                    self._extend(frames)
            except GatewayError as error:
                self.lose(*self.obituary(error.message))
            else:
                if b"end" in fields:
                    self._finish(0)

    def obituary(self, reason: str) -> tuple[bytes, Mapping[str, object]]:
        """The terminal message and the summary of a stream that has lost its writer."""
        phase = "generating" if self.last else "loading"
        summary = {"outcome": "error", "events": self.last + 1, "first_token_ms": None, "elapsed_ms": None}
        return orjson.dumps(ProducerLost(reason).payload(phase)), summary

    def join(self) -> None:
        self._viewers += 1
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._viewers == 1:
            self._tell("join")

    def leave(self) -> None:
        self._viewers -= 1
        if not self._viewers:
            self._tell("leave")
            self.linger()

    def remind(self) -> None:
        """Tell the writer again of viewers that it may have forgotten."""
        if self._viewers:
            self._tell("join")

    def linger(self) -> None:
        """Be let go soon, unless a viewer comes."""
        self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._logs.release, self)

    def _tell(self, what: str) -> None:
        if not self.ended:
            self._logs.replica.send(self.producer, what, self.sid)

    def _retain(self) -> None:
        self._logs.replica.unfollow(log_key(self.sid))


def log_key(sid: str) -> str:
    """Where a log is in Redis."""
    return f"gateway:log:{sid}"
