"""The logouts of all replicas: sessions that are ended at one are ended at each.

A hash in Redis has the last logout of each key, for replicas that start later. A Redis Stream tells it to those that
run. If Redis is away they hear of it when it is back, and until then a session can start nothing there anyway.
"""

from gateway.replicas.connection import lasting
from gateway.replicas.replica import Fields, Member, Replica

NEWS_LENGTH = 1000
LOGOUT_SECONDS = 31 * 24 * 3600
"""How long a logout is kept: longer than any session lives. Replicas that know it store it again, if it is needed."""


class SharedLogouts(Member):
    """Keeps `logouts` as it is at the other replicas: by the name of a key, a time in ms that only ever grows."""

    def __init__(self, replica: Replica, logouts: dict[str, int]) -> None:
        self._replica = replica
        self._logouts = logouts
        replica.members.append(self)
        replica.follow(replica.keys.logout_news, "0-0", self._hear)

    def tell(self, name: str, at: int) -> None:
        """Tell the other replicas of a logout here."""
        self._store(name, at)
        self._replica.post(
            *lasting("XADD", self._replica.keys.logout_news, "MAXLEN", "~", NEWS_LENGTH, "*", "name", name, "at", at)
        )

    async def renew(self) -> None:
        """Learn what was missed, and store what Redis has lost."""
        stored = await self._replica.run("HGETALL", self._replica.keys.logouts)
        for name, at in stored.items():
            self._learn(name.decode(), int(at))
        for name, at in self._logouts.items():
            if int(stored.get(name.encode(), 0)) < at:
                self._store(name, at)

    def _hear(self, _: bytes, fields: Fields) -> None:
        self._learn(fields[b"name"].decode(), int(fields[b"at"]))

    def _learn(self, name: str, at: int) -> None:
        self._logouts[name] = max(at, self._logouts.get(name, 0))

    def _store(self, name: str, at: int) -> None:
        self._replica.post("HSET", self._replica.keys.logouts, name, at)
        self._replica.post("EXPIRE", self._replica.keys.logouts, LOGOUT_SECONDS)
