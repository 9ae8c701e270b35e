"""The end of a worker, whatever its threads wait for: after a crash Faust may wait for ever on the consumer's dead one."""

import os
import threading
from typing import Final

import structlog

log = structlog.get_logger(__name__)

CRASH_GRACE_S: Final = 4.0
"""From a crash to the end of the process: the other partitions may finish the step in flight; nothing relies on it."""
STOP_GRACE_S: Final = 25.0
"""From SIGTERM to the end of the process: the drain (`LEAVE_TIMEOUT_S`) and Faust's own shutdown."""
EXIT_CODE: Final = 1


class Deadline:
    """Ends the process when its time is up; it is enough to be killed safely at any moment, for then this is too."""

    def __init__(self) -> None:
        self._ends_in_s = float("inf")
        self._timer: threading.Timer | None = None

    def set(self, seconds: float, why: str) -> None:
        """Let the process live for at most `seconds` more; a shorter deadline replaces a longer one."""
        if seconds >= self._ends_in_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._ends_in_s = seconds
        self._timer = threading.Timer(seconds, self._end, [why, seconds])
        self._timer.daemon = True
        self._timer.start()

    @staticmethod
    def _end(why: str, seconds: float) -> None:
        log.critical("shutdown hangs, process ends", why=why, after_s=seconds)
        os._exit(EXIT_CODE)
