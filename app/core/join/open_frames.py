"""The frames of an open window in arrays: where each lies, how far it is closed, and which closes next."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pyroaring import BitMap

from app.core.join.join_order import Due
from app.core.join.open_tables import OpenTables, words_of
from app.core.join.window import DueEntry
from app.core.rules import JoinRules
from app.kernels.join.closing_order import count_passed
from app.kernels.join.layout import RECEIVED

_LAST: Final = 2**63


@dataclass(slots=True)
class OpenFrame:
    """A frame that the tables hold. Its events have the slots from `base` on, in closing order."""

    kind: int
    number: int
    """The key of the frame in its table: a source offset."""
    base: int
    length: int
    at: int = 0
    """How many of its events are passed: they are due at or before the window's `closed`."""
    decided: BitMap = field(default_factory=BitMap)
    """Rows of second events that have a decision."""
    entry: DueEntry | None = None
    """Its next due event; None if all are passed."""


class OpenFrames:
    """The frames of a window by number, and their order of closing."""

    def __init__(self, tables: OpenTables, rules: JoinRules) -> None:
        self._tables = tables
        self.spans: Final = (rules.upper_ms, rules.lower_ms)
        """Kind -> how long after its receipt an event is due, ms."""
        self.by_number: tuple[dict[int, OpenFrame], dict[int, OpenFrame]] = {}, {}
        """Kind -> number -> frame."""
        self.order: list[DueEntry] = []
        """The next due event of each frame that has one, in closing order."""

    def passed(self, frame: OpenFrame, closed: Due) -> int:
        """How many events of a frame are due at or before `closed`."""
        moment_ms = closed.due_ms - self.spans[frame.kind]
        words = words_of(closed.event_id if frame.kind == closed.kind else "", self._tables.words)
        if frame.kind < closed.kind:  # all at that moment come before it
            moment_ms += 1
        if not (closed.event_id and frame.kind == closed.kind):
            words = words[:0]
        return int(count_passed(self._tables.events, frame.base, frame.length, moment_ms, words))

    def due_before(self, end_ms: int) -> list[tuple[OpenFrame, int]]:
        """The frames with an event due before `end_ms`, in closing order; each with the place behind its last such event."""
        entries = self.order[: bisect_left(self.order, (end_ms,))]
        frames = [self.by_number[entry.kind][entry.frame] for entry in entries]
        return [(frame, self.passed(frame, Due(end_ms))) for frame in frames]

    def add(self, frame: OpenFrame, closed: Due) -> None:
        """Take a frame whose events are in the tables."""
        self.by_number[frame.kind][frame.number] = frame
        self._pass_to(frame, self.passed(frame, closed))

    def close(self, closed: Due) -> Iterable[tuple[OpenFrame, int]]:
        """Move every frame behind `closed`; each that moves, with the place where it was."""
        upto = bisect_right(self.order, DueEntry(*closed, _LAST))
        entries = self.order[:upto]
        del self.order[:upto]
        for entry in entries:
            frame = self.by_number[entry.kind][entry.frame]
            before, frame.entry = frame.at, None
            self._pass_to(frame, self.passed(frame, closed))
            yield frame, before

    def drop(self, kind: int, number: int) -> OpenFrame:
        """The frame is gone: all of it is closed or decided."""
        frame = self.by_number[kind].pop(number)
        if frame.entry is not None:
            del self.order[bisect_left(self.order, frame.entry)]
        self._tables.free(frame.base)
        return frame

    def _pass_to(self, frame: OpenFrame, at: int) -> None:
        frame.at = at
        if at < frame.length:
            slot = frame.base + at
            received = int(self._tables.events[slot & (len(self._tables.events) - 1), RECEIVED])
            due_ms = received + self.spans[frame.kind]
            frame.entry = DueEntry(due_ms, frame.kind, self._tables.id_at(slot), frame.number)
            insort(self.order, frame.entry)
