"""Logs that all replicas share, in Redis Streams.

The replica that writes a stream serves its own viewers from memory, and publishes what it appends, several events to
an entry. Another replica that is asked for the stream keeps a mirror of it, fed by the one reader of its `Replica`, for
as long as it has viewers there. So Redis is never on the way from a token to the writer's own viewers.

A log in Redis: entry `0-1` holds its head and its writer; then follows an entry for each batch of events, with the
number of the batch's last event as its id, so that Redis refuses a second writer; `end` marks the last entry.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from redis.exceptions import RedisError, ResponseError

from gateway.dialects import events
from gateway.jobs import Claim
from gateway.replicas.claims import Claims
from gateway.replicas.connection import KEY_TTL_MS, busy_without_redis
from gateway.replicas.mirror import Mirror, ending, obituary
from gateway.replicas.published import HEAD_ID, PublishedLog
from gateway.replicas.replica import LOST_SECONDS, RETRY_SECONDS, Fields, Member, Replica
from gateway.streams.buffer import EventBuffer
from gateway.streams.ledger import NO_ROOM
from gateway.streams.log import ReadableLog
from gateway.streams.running import Running
from gateway.streams.shelf import Shelf

logger = logging.getLogger(__name__)

PUBLISH_SECONDS = 0.05
"""Events of one stream within this time share an entry: they reach other replicas later, but in far fewer commands."""

PAGE = 256
END_TTL_SECONDS = LOST_SECONDS  # more than the retention: every reader is to hear of the end before the log is gone


class RedisLogs(Member):
    """The logs that this replica writes or mirrors. See `LogStore` and `Peers`. An async context manager.

    `running` is told what other replicas want of the streams that run here.
    """

    def __init__(self, replica: Replica, shelf: Shelf[PublishedLog | Mirror], running: Running) -> None:
        self._replica, self._keys = replica, replica.keys
        self._shelf = shelf
        self._running = running
        self._ttl_ms = round((shelf.retain_seconds + END_TTL_SECONDS) * 1000)
        self._claims = Claims(replica, KEY_TTL_MS + self._ttl_ms)
        self._creating: set[str] = set()
        self._finding: dict[str, asyncio.Task[ReadableLog | None]] = {}
        self._unpublished: dict[PublishedLog, None] = {}
        self._changed = asyncio.Event()
        self._farewell = b""
        self._closing = False
        replica.members.append(self)
        shelf.ledger.stop_running.append(self._drop_mirror)

    async def __aenter__(self) -> Self:
        self._publisher = asyncio.create_task(self._keep_publishing(), name="publisher")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True  # because redis-py may swallow a cancellation
        self._publisher.cancel()
        await asyncio.wait([self._publisher])
        with suppress(RedisError, OSError):
            while self._unpublished and self.problem is None:
                await self._publish_once()
                await asyncio.sleep(PUBLISH_SECONDS)
        if self._unpublished:
            logger.warning("Redis is away: other replicas will not learn how the last streams ended.")

    @property
    def size(self) -> int:
        return self._shelf.size

    @property
    def problem(self) -> str | None:
        return "Redis does not answer." if self._replica.silent_seconds > LOST_SECONDS else None

    async def create(self, sid: str, head: bytes, client: str) -> PublishedLog:
        log = PublishedLog(EventBuffer(sid, head, client, self._shelf), self._replica, self._publish)
        self._creating.add(sid)
        try:
            self._shelf.add(log)
            with busy_without_redis():  # before anybody hears of the stream: the next request may go to another replica
                await self._replica.run(*log.beginning())
        except BaseException:
            self._shelf.remove(sid)
            # Redis may have it, although no answer has come, and an equal request at another replica may read it.
            self._replica.post(*ending(self._keys, sid, "", *obituary(0, "The stream could not begin."), self._ttl_ms))
            raise
        finally:
            self._creating.discard(sid)
        log.buffer.send_away(self._farewell)
        log.claim = self._claims.hand_over(sid)
        return log

    async def claim(self, claim: Claim, sid: str) -> tuple[str, str]:
        return await self._claims.take(claim, sid)

    def disclaim(self, sid: str) -> None:
        self._claims.free(sid)

    def forget(self, sid: str) -> None:
        self._shelf.forget(sid)

    async def find(self, sid: str) -> ReadableLog | None:
        if sid in self._creating:  # an equal request waits for it: with nothing that counts its viewers it is not there
            return None
        if sid not in self._finding:
            if log := self._shelf.get(sid):
                return log
            task = self._finding[sid] = asyncio.create_task(self._fetch(sid))
            task.add_done_callback(lambda _: self._finding.pop(sid))
        with busy_without_redis():  # shielded, because several requests may wait for it
            return await asyncio.shield(self._finding[sid])

    def watch(self, sid: str) -> Callable[[], None] | None:
        log = self._shelf.get(sid)
        return log.watch() if isinstance(log, Mirror) else None

    async def stop(self, sid: str, caller: str) -> None:
        with busy_without_redis():
            entries = await self._replica.look_up("XRANGE", self._keys.log(sid), HEAD_ID, HEAD_ID)
        if entries:
            self._replica.send(entries[0][1][b"producer"].decode(), "stop", sid, caller.encode())

    def send_away(self, retry_ms: int) -> None:
        self._farewell = events.retry(retry_ms)
        for log in self._shelf.logs():
            log.buffer.send_away(self._farewell)

    def partners(self) -> set[str]:
        """The replicas that write what is read here, or read what is written here."""
        return {mirror.producer for mirror in self._mirrors()}.union(*(log.replicas for log in self._published()))

    def receive(self, fields: Fields) -> None:
        sid, sender = fields[b"sid"].decode(), fields[b"from"].decode()
        log = self._shelf.get(sid)
        match fields[b"what"], log:
            case b"join", PublishedLog():
                if sender not in log.replicas:
                    log.replicas.add(sender)
                    self._running.join(sid)
                if log.notice:
                    self._replica.send(sender, "notice", sid, log.notice)
            case b"leave", PublishedLog():
                self._remove_viewers(log, sender)
            case b"stop", _:
                self._running.stop(sid, fields[b"data"].decode())
            case b"notice", Mirror():
                log.buffer.announce(fields[b"data"])

    async def bury(self, replica: str) -> None:
        for log in self._published():
            self._remove_viewers(log, replica)
        for mirror in self._mirrors():
            if mirror.producer == replica:
                terminal, summary = obituary(mirror.last, "The replica of the gateway that ran this request is gone.")
                command = ending(self._keys, mirror.sid, replica, terminal, summary, self._ttl_ms)
                if await self._replica.run(*command) == -1:
                    mirror.buffer.end_lost(terminal, summary)

    async def renew(self) -> None:
        for mirror in self._mirrors():
            mirror.remind()
        logs = self._published()
        claims = [self._claims.keeping(log.claim) for log in logs if log.claim]
        kept = await self._replica.run_all([("PEXPIRE", log.key, KEY_TTL_MS) for log in logs] + claims)
        for log, there in zip(logs, kept, strict=False):
            if there == 0:
                log.fresh, log.sent = True, 0
                self._publish(log)

    def give_up(self) -> None:
        """End the mirrors: nothing more is heard of their streams, and their readers must not wait for ever."""
        for mirror in self._mirrors():
            mirror.lose("The gateway has lost its Redis, which carried this stream.")

    def _published(self) -> list[PublishedLog]:
        return [log for log in self._shelf.logs() if isinstance(log, PublishedLog) and not log.buffer.ended]

    def _mirrors(self) -> list[Mirror]:
        return [log for log in self._shelf.logs() if isinstance(log, Mirror) and not log.ended]

    async def _fetch(self, sid: str) -> ReadableLog | None:
        """Make a mirror of what Redis has of a stream, and have it follow the stream from there."""
        key = self._keys.log(sid)
        page = await self._replica.look_up("XRANGE", key, HEAD_ID, "+", "COUNT", PAGE)
        if sid in self._creating:
            return None
        if log := self._shelf.get(sid):  # created here meanwhile: an equal request has found its id before its log
            return log
        if not page or b"head" not in page[0][1]:
            return None
        (_, first), *page = page
        buffer = EventBuffer(sid, first[b"head"], first[b"client"].decode(), self._shelf)
        mirror = Mirror(buffer, first[b"producer"].decode(), self._replica, self._release)
        self._shelf.add(mirror)
        last_id = HEAD_ID
        try:
            while page:
                for entry_id, fields in page:
                    mirror.apply(entry_id, fields)
                    last_id = entry_id.decode()
                page = await self._replica.run("XRANGE", key, f"({last_id}", "+", "COUNT", PAGE)
        except BaseException:
            self._release(mirror)
            raise
        buffer.send_away(self._farewell)
        if not mirror.ended:
            self._replica.follow(key, last_id, mirror.apply)
        mirror.linger()
        return mirror

    def _drop_mirror(self, client: str) -> bool:
        """Make room: end the largest mirror of a client's streams. See `Ledger`."""
        mirrors = [mirror for mirror in self._mirrors() if mirror.client == client]
        largest = max(mirrors, key=lambda mirror: mirror.size, default=None)
        if largest is not None:
            largest.lose(NO_ROOM)
        return largest is not None

    def _release(self, mirror: Mirror) -> None:
        """Let go of a mirror. Readers that still have it read on to its end."""
        if self._shelf.get(mirror.sid) is mirror:
            self._replica.unfollow(self._keys.log(mirror.sid))
            self._shelf.forget(mirror.sid)

    def _publish(self, log: PublishedLog) -> None:
        """Send what is new in a log to Redis soon."""
        self._unpublished[log] = None
        self._changed.set()

    async def _keep_publishing(self) -> None:
        while not self._closing:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._publish_once()
            except (RedisError, OSError) as error:
                self._replica.report(error)
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)
            if self._unpublished:
                self._changed.set()
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _publish_once(self) -> None:
        """Send what Redis does not have yet: of each log, as much as one entry holds."""
        logs, self._unpublished = list(self._unpublished), {}
        sent = [(log, last, command) for log in logs for last, command in log.commands(self._ttl_ms)]
        try:
            answers = await self._replica.run_all([command for _, _, command in sent])
            for (log, last, command), answer in zip(sent, answers, strict=True):
                if command[0] != "PEXPIRE":
                    await self._note_answer(log, last, answer)
        except BaseException:
            self._unpublished = dict.fromkeys(logs) | self._unpublished
            raise
        for log in logs:
            if log.unsent or log.fresh:
                self._publish(log)
            elif log.buffer.ended:  # only now: until Redis has the end, this is the only place that knows it
                self._shelf.retain(log.sid)

    async def _note_answer(self, log: PublishedLog, last: int, answer: Any) -> None:
        """Note what Redis answered to an entry that ends with event number `last`."""
        if answer is None:  # Redis has forgotten the log: it was restarted, or has lost it under pressure
            log.fresh, log.sent = True, 0
        elif not isinstance(answer, Exception):
            log.fresh = False
            log.sent = last
        elif isinstance(answer, ResponseError) and "equal or smaller" in str(answer):
            await self._resolve_refusal(log)
        else:
            self._replica.report(answer)

    async def _resolve_refusal(self, log: PublishedLog) -> None:
        """Find out why Redis has newer events: they are this replica's own, with an answer that was lost on the way,
        or another replica has ended the log."""
        newest = await self._replica.run("XREVRANGE", log.key, "+", "-", "COUNT", 1)
        log.fresh = not newest
        seq = int(newest[0][0].partition(b"-")[0]) if newest else 0
        if seq < events.LOST:
            log.sent = seq
        else:
            log.sent = log.last
            log.disowned = True
            self._running.disown(log.sid)

    def _remove_viewers(self, log: PublishedLog, replica: str) -> None:
        if replica in log.replicas:
            log.replicas.discard(replica)
            self._running.leave(log.sid)
