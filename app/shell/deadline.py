"""The end of a worker, even if its threads hang.

After a crash Faust may wait for ever on the consumer's dead thread. A blocked event loop runs no watchdog.
"""

import os
import threading
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from app.clock import Clock, SystemClock

log = structlog.get_logger(__name__)

CRASH_GRACE_S: Final = 4.0
"""Time from a crash to the end of the process: the other partitions may finish the step in flight; nothing relies on it."""
STOP_GRACE_S: Final = 25.0
"""Time from SIGTERM to the end of the process: the drain (`LEAVE_TIMEOUT_S`) and Faust's own shutdown."""
EXIT_CODE: Final = 1


class Timer(Protocol):
    """A call that is planned."""

    def cancel(self) -> None:
        """Drop the call."""


def call_later(seconds: float, call: Callable[[], None]) -> Timer:
    """Call from a thread of its own: a blocked event loop does not stop it, and it does not keep the process alive."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


class Deadline:
    """Ends the process when its time is up. This is safe, because the process may be killed safely at any moment.

    Args:
        clock: Deadlines are compared by it.
        later: Starts a timer.
        end: Ends the process with an exit code.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        later: Callable[[float, Callable[[], None]], Timer] = call_later,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._clock = clock or SystemClock()
        self._later = later
        self._end = end
        self._at_s = float("inf")
        self._timer: Timer | None = None

    def set(self, seconds: float, why: str) -> None:
        """Let the process live for at most `seconds` more; an earlier deadline stays."""
        at_s = self._clock.monotonic_s() + seconds
        if at_s >= self._at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at_s = at_s

        def over() -> None:
            log.critical("shutdown hangs, process ends", why=why, after_s=seconds)
            self._end(EXIT_CODE)

        self._timer = self._later(seconds, over)


class Deadman:
    """Ends the process when the event loop has not called `beat` for a while.

    A process that was stopped (SIGSTOP) for longer than that ends when it goes on: it is a zombie, and may be killed safely.

    Args:
        later: Starts a timer.
        end: Ends the process with an exit code.
    """

    def __init__(
        self, later: Callable[[float, Callable[[], None]], Timer] = call_later, end: Callable[[int], object] = os._exit
    ) -> None:
        self._later = later
        self._end = end
        self._timer: Timer | None = None

    def beat(self, seconds: float) -> None:
        """The event loop turns: let the process live for at most `seconds` without another beat."""
        self.stop()

        def over() -> None:
            log.critical("event loop stands, process ends", after_s=seconds)
            self._end(EXIT_CODE)

        self._timer = self._later(seconds, over)

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
