"""How many connections the process's file descriptors allow."""

import contextlib
import resource
from typing import Final

import structlog

log = structlog.get_logger(__name__)

RESERVED: Final = 1200
"""Descriptors for other things: connections to AWS and of /metrics, and up to 1024 new connections of one turn of the loop,
which are open for a moment even if they are refused. With few descriptors, half of them."""


def connection_limit(wanted: int) -> int:
    """The limit of connections: `wanted`, or fewer if RLIMIT_NOFILE allows fewer. The soft limit is raised first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + RESERVED
    if soft != resource.RLIM_INFINITY and soft < need:
        raised = need if hard == resource.RLIM_INFINITY else min(hard, need)
        with contextlib.suppress(OSError, ValueError):  # the limit then stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return wanted
    allowed = min(wanted, max(1, soft - min(RESERVED, soft // 2)))
    log.warning("fewer connections than INSTREAM_MAX_CONNECTIONS", allowed=allowed, remedy=f"set RLIMIT_NOFILE to {need}")
    return allowed
