"""The decision of a process at a crash point: go on, or end at once.

A plan is a file that says which point is armed and how often a worker must end at it. A process looks at the plan before
every call, so a test can arm a point while workers run. A process writes its end beside the plan before it ends, so a worker
that was started again knows whether it must end once more.

    <plan>            `[{"id": "...", "point": "sink.s3.put.jobdata.after", "times": 2}]`, replaced whole
    <plan>.deaths     a line for each end: id, point, pid, ms since the epoch
    <plan>.reached    a line for each point that a process reached for the first time in its life
    <plan>.unlisted   a line for each call without a point: there must be none
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from app.crash.catalogue import CALLS, SIDES, Point, read_point
from app.errors import ConfigurationError
from app.settings import Settings

log = structlog.get_logger(__name__)

EXIT_CODE: Final = 86
"""The exit code of a worker that ended at a crash point; no other end has it."""


class Armed(msgspec.Struct, frozen=True):
    """A point at which a worker ends."""

    id: str
    """Tells two armings of one point apart."""
    point: str
    times: int = 1
    """The number of ends: a worker that was started again ends there again, until so many have ended."""


class Death(NamedTuple):
    """A worker's end at a point."""

    armed_id: str
    point: str
    pid: int
    at_ms: int


class PlanFile:
    """A plan and the files beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def arm(self, armed: Sequence[Armed]) -> None:
        """Let workers end at these points. Points that were armed before are disarmed.

        Raises:
            ConfigurationError: there is no such point.
        """
        for each in armed:
            read_point(each.point)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(armed))
        beside.replace(self.path)

    def armed(self) -> list[Armed]:
        """The armed points; empty if there is no file.

        Raises:
            ConfigurationError: the file is no plan, or names an unknown point.
        """
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=list[Armed])
        except FileNotFoundError:
            return []
        except msgspec.DecodeError as exc:
            raise ConfigurationError(f"INSTREAM_CRASH_PLAN: {self.path} is no plan: {exc}") from exc
        for each in found:
            read_point(each.point)
        return found

    def deaths(self) -> list[Death]:
        """The ends so far, oldest first."""
        words = (line.split() for line in self._lines("deaths"))
        return [Death(armed_id, point, int(pid), int(at_ms)) for armed_id, point, pid, at_ms in words]

    def reached(self) -> set[str]:
        """The points that any process reached."""
        return set(self._lines("reached"))

    def unlisted(self) -> set[str]:
        """The calls without a point that any process made."""
        return set(self._lines("unlisted"))

    def note(self, what: str, line: str) -> None:
        """Append a line to the file of `what`; safe from any process and thread."""
        file = os.open(self._file(what), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)

    def _lines(self, what: str) -> list[str]:
        try:
            return self._file(what).read_text().splitlines()
        except FileNotFoundError:
            return []

    def _file(self, what: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{what}")


class CrashPoints:
    """The points of one process."""

    def __init__(self, role: str, plan: PlanFile, end: Callable[[int], object] = os._exit) -> None:
        """Prepare.

        Args:
            role: the role of this process.
            plan: says which points are armed.
            end: ends the process with an exit code.

        Raises:
            ConfigurationError: the plan cannot be read.
        """
        self.role = role
        self._plan = plan
        self._end = end
        self.is_awake = True
        """False in a process that stands by as a spare: it passes every point."""
        self._calls = frozenset(CALLS[role])
        self._reached: set[str] = set()
        self._seen: tuple[int, int] | None = None
        self._armed: dict[str, Armed] = {}
        self._look()

    def reach(self, call: str, side: str) -> None:
        """Be at the point before or after a call. If the point is armed, this never returns.

        Raises:
            RuntimeError: the call is not in the catalogue.
        """
        if not self.is_awake:
            return
        name = str(Point(self.role, call, side))
        if name not in self._reached:
            self._first_time(name, call, side)
        self._look()
        armed = self._armed.get(name)
        if armed is not None and self._left(armed):
            self._plan.note("deaths", f"{armed.id} {name} {os.getpid()} {time.time_ns() // 1_000_000}")
            self._end(EXIT_CODE)

    def _first_time(self, name: str, call: str, side: str) -> None:
        if call not in self._calls or side not in SIDES:
            self._plan.note("unlisted", f"{self.role}.{call}")
            log.critical("call without a crash point", call=call, role=self.role)
            raise RuntimeError(f"{self.role} calls {call}, which has no crash points: add it to app.crash.catalogue.CALLS")
        self._reached.add(name)
        self._plan.note("reached", name)

    def _left(self, armed: Armed) -> bool:
        return sum(death.armed_id == armed.id for death in self._plan.deaths()) < armed.times

    def _look(self) -> None:
        """Read the plan if it has changed since the last look."""
        try:
            found = os.stat(self._plan.path)
            seen = (found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            seen = (0, 0)
        if seen != self._seen:
            self._armed = {each.point: each for each in self._plan.armed()}
            self._seen = seen


def crash_points(role: str, settings: Settings) -> CrashPoints | None:
    """The points of this process; None if they are turned off, as they always are except in tests.

    Raises:
        ConfigurationError: the plan cannot be read, or names an unknown point.
    """
    return None if settings.crash_plan is None else CrashPoints(role, PlanFile(settings.crash_plan))
