"""The events that close in a step, in arrays: `app.core.join.window_close.close_due` by kernels (rules J2, J3, E6).

Same events, same pairs, same order; the proof at the head of that module holds here. The window does not change: the
step's own events lie over it (`app.core.join.admit_arrays.Overlay`), and everything that a step would change is in its
`WindowStep`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from app.core.formats.step_message import Changes
from app.core.join.admit_arrays import Admitted
from app.core.join.join_order import FIRST, SECOND, Due
from app.core.join.open_frames import OpenFrame, OpenFrames
from app.core.join.open_tables import OpenTables, id_in_words, words_of
from app.core.join.window_close import EXTRA, LATE, NO_FIRST
from app.core.join.window_state import frame_changes
from app.kernels.cells import Ints
from app.kernels.join.close import close_firsts, close_seconds
from app.kernels.join.close_in_order import DUE, DUE_KIND, DUE_WORDS, NUMBER, RUN_COLUMNS, START, STOP, close_in_order
from app.kernels.join.close_in_order import KIND as RUN_KIND
from app.kernels.join.closing_order import total_of
from app.kernels.join.layout import FRAME, NONE, RECEIVED, ROW, SIZE

REASONS: Final = (NO_FIRST, EXTRA, LATE)
"""The reason of each code in `WindowStep.reasons`: NO_FIRST, EXTRA and LATE of `app.kernels.join.close`."""
_NOTHING: Final = np.empty(0, np.int64)
_ROOM: Final = 256


class WindowStep(NamedTuple):
    """The events that close in a step, and everything that the step changes in the window.

    A place is a frame's number and a row in it. A row of the step's own frames, which have its `number`, is a position among
    the first events, or among the second events, that were admitted.
    """

    number: int
    admitted: Admitted
    first_frames: Ints
    """Places of the first events that close."""
    first_rows: Ints
    joined_frames: Ints
    """Place of the second event that each of them takes; row NONE (-1) if it takes none."""
    joined_rows: Ints
    second_frames: Ints
    """Places of second events that become engagements."""
    second_rows: Ints
    reasons: Ints
    """For each of them a place in `REASONS`."""
    closed: Due
    """Everything up to here is closed."""
    more: bool
    """Whether an event that is due is left over, because the step's budget is spent."""
    kept_firsts: Ints
    """Positions of the admitted first events that the step leaves open, ascending: its frame in `pending`."""
    kept_seconds: Ints
    """Positions of the admitted second events that the step leaves without a decision: its frame in `seconds`."""
    decided_slots: Ints
    """Second events of the window that get their decision."""
    masks: dict[int, BitMap]
    """Frame of second events -> the rows with a decision after the step, for each frame that changes and stays."""
    gone: tuple[list[int], list[int]]
    """Kind -> the frames whose last event closes, or gets its decision."""
    window: int
    """The state of the window that the step was decided on: how many steps it had followed."""

    @property
    def closed_before(self) -> int:
        """The events that the step closes or joins out of frames of earlier steps."""
        joined = self.joined_frames[self.joined_rows != NONE]
        return sum(int((frames != self.number).sum()) for frames in (self.first_frames, joined, self.second_frames))

    def changes(self, pending: bytes | None, seconds: bytes | None) -> list[Changes]:
        """The changes of tables `pending` and `seconds`.

        Args:
            pending: the packed frame of `kept_firsts`; None if there are none.
            seconds: the packed frame of `kept_seconds`; None if there are none.
        """
        return frame_changes(self.number, (pending, seconds), self.gone, self.masks)


class Closer:
    """Closes what is due in a window under a step's overlay."""

    def __init__(self, tables: OpenTables, frames: OpenFrames, closed: Due, admitted: Admitted, number: int) -> None:
        self._tables = tables
        self._frames = frames
        self._closed = closed
        self._admitted = admitted
        self._number = number

    def run(self, stream_time_ms: int, budget_bytes: int) -> "Closings":
        """Close everything due before `stream_time_ms`, as far as the budget reaches.

        Events that were due before this step (from an old block that was sent again) close whatever it costs, because they
        are never stored.

        Guarantees: at least one decision, if any is due and `budget_bytes` is positive. First events are in order of their
        frames, and inside a frame in closing order.
        """
        runs = self._due(stream_time_ms)
        whole = self._whole(runs, stream_time_ms, budget_bytes)
        return self._in_order(runs, stream_time_ms, budget_bytes) if whole is None else whole

    def _due(self, end_ms: int) -> list["Run"]:
        """The events due before `end_ms`: those of the window in order of its frames, then the step's own."""
        runs = [
            Run(frame.kind, frame.number, np.arange(frame.base + frame.at, frame.base + upto))
            for frame, upto in self._frames.due_before(end_ms)
            if upto > frame.at
        ]
        overlay = self._admitted.overlay
        for kind, slots in ((FIRST, self._admitted.first_slots), (SECOND, self._admitted.second_slots)):
            received = overlay.own[slots - overlay.head, RECEIVED]
            upto = int(received.searchsorted(end_ms - self._frames.spans[kind]))
            if upto:
                runs.append(Run(kind, self._number, slots[:upto]))
        return runs

    def _whole(self, runs: Sequence["Run"], stream_time_ms: int, budget_bytes: int) -> "Closings | None":
        """Everything due, frame by frame; None if it costs more than the budget. It costs less than the total order."""
        tables, overlay = self._tables, self._admitted.overlay
        firsts = [run.slots for run in runs if run.kind == FIRST]
        cost = 0
        for slots in firsts:
            cost += int(total_of(tables.events, overlay.own, overlay.head, slots, SIZE))
            if cost > budget_bytes:  # before anything is matched: a long backlog closes in many steps
                return None
        first_slots = np.concatenate(firsts) if firsts else _NOTHING
        joined = np.empty(len(first_slots), np.int64)
        others, reasons, taken = self._match(first_slots, joined)
        second_slots = np.concatenate([_NOTHING, *(run.slots for run in runs if run.kind == SECOND)])
        unmet = np.empty(len(second_slots), np.int64)
        count, left = close_seconds(*self._window, second_slots, self._frames.spans[SECOND], unmet)
        if cost + taken + left > budget_bytes:
            return None
        return Closings(
            first_slots,
            joined,
            np.concatenate([others, unmet[:count]]),
            np.concatenate([reasons, np.full(count, REASONS.index(NO_FIRST))]),
            max(self._closed, Due(stream_time_ms)),
            more=False,
        )

    def _match(self, slots: Ints, joined: Ints) -> tuple[Ints, Ints, int]:
        """Find the second event of each first event; the others with their reasons, and the sizes of all of them."""
        room = _ROOM
        while True:
            others, reasons = np.empty(room, np.int64), np.empty(room, np.int64)
            count, cost = close_firsts(*self._window, slots, *self._frames.spans, joined, others, reasons)
            if count <= room:
                return others[:count], reasons[:count], cost
            room = count

    def _in_order(self, runs: Sequence["Run"], stream_time_ms: int, budget_bytes: int) -> "Closings":
        """One event after the other in the total order, until the budget is spent."""
        slots = np.concatenate([_NOTHING, *(run.slots for run in runs)])
        ends = np.cumsum([0, *(len(run.slots) for run in runs)])
        firsts, joined = np.empty(len(slots), np.int64), np.empty(len(slots), np.int64)
        room = len(slots) + _ROOM
        while True:
            table = np.empty((len(runs), RUN_COLUMNS), np.int64)
            table[:, START], table[:, STOP] = ends[:-1], ends[1:]
            table[:, RUN_KIND] = [run.kind for run in runs]
            table[:, NUMBER] = [run.number for run in runs]
            closed = np.concatenate([self._closed[:DUE_WORDS], words_of(self._closed.event_id, self._tables.words)])
            seconds, reasons = np.empty(room, np.int64), np.empty(room, np.int64)
            first_count, second_count, more, moved = close_in_order(
                *self._window, slots, table, *self._frames.spans, budget_bytes, closed, firsts, joined, seconds, reasons
            )
            if second_count <= room:
                break
            room = second_count
        end = self._closed
        if moved:
            end = Due(int(closed[DUE]), int(closed[DUE_KIND]), id_in_words(closed[DUE_WORDS:]))
        return Closings(
            firsts[:first_count],
            joined[:first_count],
            seconds[:second_count],
            reasons[:second_count],
            end if more else max(end, Due(stream_time_ms)),
            more=bool(more),
        )

    @property
    def _window(self) -> tuple[Ints, Ints, Ints, Ints, Ints, int, int]:
        """The first arguments of the closing kernels."""
        tables, overlay = self._tables, self._admitted.overlay
        return tables.events, tables.views, overlay.own, overlay.views, overlay.places, overlay.head, tables.secret


class Run(NamedTuple):
    """Events of one frame that are due."""

    kind: int
    number: int
    slots: Ints
    """In closing order."""


class Closings(NamedTuple):
    """The events that close, by slot."""

    firsts: Ints
    joined: Ints
    """NONE for a first event that takes no second event."""
    seconds: Ints
    reasons: Ints
    closed: Due
    more: bool


def window_step(  # noqa: PLR0913, PLR0917  (each is something of its own)
    tables: OpenTables, frames: OpenFrames, admitted: Admitted, number: int, closings: Closings, window: int
) -> WindowStep:
    """The step in which these events close."""
    overlay = admitted.overlay

    def places(slots: Ints, start: int) -> tuple[Ints, Ints]:
        """The frame and the row of the event in each slot; those of the overlay begin at row `start` of `own`."""
        at = tables.rows_of(slots)
        frame_of, row_of = tables.events[at, FRAME], tables.events[at, ROW]
        own = slots >= overlay.head
        if own.any():
            frame_of[own] = number
            row_of[own] = slots[own] - overlay.head - start
        none = slots == NONE
        frame_of[none] = NONE
        row_of[none] = NONE
        return frame_of, row_of

    joined = closings.joined[closings.joined != NONE]
    decided = np.concatenate([joined, closings.seconds])
    stored = decided[decided < overlay.head]
    masks, full = _masks(frames, *places(stored, 0))
    closed_frames = {int(n) for n in np.unique(places(closings.firsts, 0)[0])} - {number}
    pending_gone = [
        n for n in closed_frames if (frame := frames.by_number[FIRST][n]).length == frames.passed(frame, closings.closed)
    ]
    return WindowStep(
        number,
        admitted,
        *places(closings.firsts, 0),
        *places(closings.joined, overlay.firsts),
        *places(closings.seconds, overlay.firsts),
        closings.reasons,
        closings.closed,
        closings.more,
        _kept(admitted.first_slots - overlay.head, closings.firsts - overlay.head),
        _kept(admitted.second_slots - overlay.head, decided - overlay.head) - overlay.firsts,
        stored,
        masks,
        (sorted(pending_gone), sorted(full)),
        window,
    )


def _kept(rows: Ints, gone: Ints) -> Ints:
    """The rows of an overlay that a step leaves open, ascending; `gone` are those of events that close."""
    gone = gone[gone >= 0]
    return np.sort(rows) if not len(gone) else np.setdiff1d(rows, gone)


def _masks(frames: OpenFrames, frame_of: Ints, row_of: Ints) -> tuple[dict[int, BitMap], list[int]]:
    """Frame -> its rows with a decision after the step, for those that stay; and the frames whose rows all have one."""
    masks: dict[int, BitMap] = {}
    full: list[int] = []
    order = np.argsort(frame_of, kind="stable")
    numbers, starts = np.unique(frame_of[order], return_index=True)
    rows = row_of[order].astype(np.uint32)
    for number, (start, stop) in zip(numbers.tolist(), pairwise([*starts.tolist(), len(rows)]), strict=True):
        frame: OpenFrame = frames.by_number[SECOND][number]
        mask = frame.decided | BitMap(rows[start:stop])
        if len(mask) == frame.length:
            full.append(number)
        else:
            masks[number] = mask
    return masks, full
