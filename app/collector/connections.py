"""The clients' connections: how many there are, and which one makes room for a new one.

Every connection is in one of four states:

    idle       waits for a request, or has sent a part of its head   closed after the head or keep-alive timeout
    sending    its body arrives                                      503 after the request timeout
    handled    its events are on their way to storage                answered within the request timeout
    unread     the client does not read its answers                  cut off after the request timeout

At the limit of connections a new one takes the place of the oldest idle one, else of the oldest that sends; if there is
neither, it is told 503. So clients that only hold connections keep no other client out.
"""

from typing import NamedTuple, Protocol

from app.collector.metrics import CONNECTIONS, CONNECTIONS_CLOSED
from app.collector.sparse_log import SparseLog
from app.settings import Settings


class Connection(Protocol):
    """A connection, as the order of connections sees it."""

    def end(self, reason: str) -> None:
        """Cut the connection off."""


class Bounds(NamedTuple):
    """The bounds of the connections of one collector."""

    connections: int
    head_timeout_s: float
    unread_timeout_s: float
    allowed_origins: tuple[str, ...]


class Connections:
    """The open connections, and the order in which they make room for new ones."""

    def __init__(self, bounds: Bounds, faults: SparseLog) -> None:
        self.bounds = bounds
        self.faults = faults
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        self._sending: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, new: Connection) -> bool:
        """Whether there is room for a new connection; an older one may lose its place."""
        if len(self._open) >= self.bounds.connections:
            oldest = next(iter(self._idle), None) or next(iter(self._sending), None)
            self.faults.note(
                "connection_limit", "raise INSTREAM_MAX_CONNECTIONS and RLIMIT_NOFILE, or start more collectors"
            )
            if oldest is None:
                CONNECTIONS_CLOSED.labels("refused").inc()
                return False
            oldest.end("replaced")
            self.forget(oldest)
        self._open.add(new)
        self._idle[new] = None
        CONNECTIONS.set(len(self._open))
        return True

    def forget(self, one: Connection) -> None:
        """The connection is closed; a second call changes nothing."""
        self._open.discard(one)
        self._idle.pop(one, None)
        self._sending.pop(one, None)
        CONNECTIONS.set(len(self._open))

    def moves(self, one: Connection, *, idle: bool, sending: bool) -> None:
        """The connection is now idle, sends a body, or neither: its request is handled."""
        for is_in, state in ((idle, self._idle), (sending, self._sending)):
            if is_in and one in self._open:
                state.setdefault(one)
            else:
                state.pop(one, None)


def bounds_of(settings: Settings, connections: int) -> Bounds:
    """The bounds that the settings say, with a limit of connections that the process's descriptors allow."""
    return Bounds(connections, settings.head_timeout_s, settings.request_timeout_s, settings.allowed_origins)
