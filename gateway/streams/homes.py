"""Which of several servers has answered a conversation: the next turn finds its beginning in that server's cache."""

from gateway.jobs import Job

MAX_CONVERSATIONS = 10_000


class Homes:
    """The servers that have answered, by what they were asked; the oldest are forgotten."""

    def __init__(self) -> None:
        self._servers: dict[int, str] = {}

    def note(self, job: Job, server: str) -> None:
        """This server has answered the job."""
        if job.conversation:
            self._servers.pop(job.conversation, None)
            self._servers[job.conversation] = server
            if len(self._servers) > MAX_CONVERSATIONS:
                del self._servers[next(iter(self._servers))]

    def of(self, job: Job) -> str:
        """The server that has answered the turn before the job's; empty if there is none, or if it is not known."""
        return self._servers.get(job.beginning, "")
