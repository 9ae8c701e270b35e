"""What is down in an outage: frozen processes, which keep their connections and answer nobody.

That is the worst kind: what is refused gives up at once, what is not answered is waited for, with everything held for it.
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
    """Services that answer nobody."""
    backlog: tuple[str, ...] = ()
    """Roles that are frozen for its first quarter alone, so that they meet the outage with much to do."""


OUTAGES: Final = (
    Outage("kafka", ("kafka",)),
    Outage("aws", ("aws",), backlog=("sink",)),
    Outage("warehouse", ("warehouse",)),
)
"""S3 goes with Kinesis and the registry: without S3 the collector takes nothing, so the sink's load must wait for it."""


@contextmanager
def frozen(stack: Stack, names: Sequence[str]) -> Iterator[None]:
    """Some processes of the stack stand still inside the block."""
    pids = [stack.running_pid(name) for name in names]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # somebody ended it; its successor is not frozen
                os.kill(pid, signal.SIGCONT)
