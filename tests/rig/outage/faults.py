"""The outages: frozen processes, which keep their connections and do not answer.

That is the worst kind: a refused client gives up at once, but a client without an answer waits and holds its memory.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from app.local.stack.stack_file import Stack


class Outage(NamedTuple):
    """One outage."""

    name: str
    frozen: tuple[str, ...]
    """Services that do not answer."""
    backlog: tuple[str, ...] = ()
    """Roles that are frozen only for its first quarter, so that they have much work in the outage."""


OUTAGES: Final = (
    Outage("kafka", ("kafka",)),
    Outage("aws", ("aws",), backlog=("sink",)),
    Outage("warehouse", ("warehouse",)),
)
"""S3 goes with Kinesis and the registry: without S3 the collector takes nothing, so the sink's load must wait for it."""


@contextmanager
def frozen(stack: Stack, names: Sequence[str]) -> Iterator[None]:
    """Some processes of the stack are stopped inside the block."""
    pids = [stack.running_pid(name) for name in names]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # it ended meanwhile; its successor is not frozen
                os.kill(pid, signal.SIGCONT)
