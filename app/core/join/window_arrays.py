"""One partition's open window in arrays: the kernel path's `app.core.join.window.OpenWindow` (rules J2, J3).

A step is decided in two moves, `admit` and `close`, and neither changes the window: both give values that lie over it. The
window changes in `advance` alone, when a step counts. So a step can be decided again after a failure, and is the same.

The tables are today's and any path's (`app.core.join.window_state`): an owner may load what the plain path has stored, and
the plain path may take over.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from app.core.formats.decoding import read_bitmap
from app.core.formats.step_message import Changes
from app.core.join.admit_arrays import (
    Admitted,
    Arrivals,
    BlockTimes,
    Overlay,
    Values,
    ViewReader,
    admit,
    in_closing_order,
    no_overlay,
)
from app.core.join.close_arrays import Closer, WindowStep, window_step
from app.core.join.frame_arrays import StoredEvents, known_values, lay_over_stored, read_stored, values_in
from app.core.join.join_order import FIRST, SECOND, Due
from app.core.join.open_frames import OpenFrame, OpenFrames
from app.core.join.open_tables import OpenTables
from app.core.join.window_state import frame_number, is_data
from app.core.rules import JoinRules
from app.core.state.tables import StateReader
from app.kernels.cells import Bytes, Ints
from app.kernels.join.layout import NONE, ROW
from app.kernels.join.window import add_frame, close_slots, decide_slots, set_joining

_NOTHING: Final = np.empty(0, np.int64)
_TABLES: Final = frozenset({"views", "pending", "seconds"})


class Prepared(NamedTuple):
    """A step that this owner decided itself, and its changes of tables `views`, `pending` and `seconds`."""

    step: WindowStep
    changes: Sequence[Changes]


class ArrayWindow:
    """Everything open in one partition."""

    def __init__(self, rules: JoinRules) -> None:
        self._rules = rules
        self._tables = OpenTables()
        self._frames = OpenFrames(self._tables, rules)
        self._steps = 0
        """How many steps it has followed."""
        self.closed = Due()

    @classmethod
    def load(cls, state: StateReader, rules: JoinRules, closed: Due) -> "ArrayWindow":
        """Everything that is open in the tables. It reads all of `pending` and `seconds` once.

        Raises:
            FormatInvalid: what the tables hold cannot be read.
            NewerFormat: a newer ETL stored it.
        """
        window = cls(rules)
        window.closed = closed
        for key, value in state.scan("pending"):
            events = read_stored(FIRST, frame_number(key), value)
            window._take([events], known_values(state, events, closed.due_ms - rules.upper_ms), every=False)
        masks: dict[int, BitMap] = {}
        for key, value in state.scan("seconds"):
            if is_data(key):
                window._take([read_stored(SECOND, frame_number(key), value)], None)
            else:
                masks[frame_number(key)] = read_bitmap(value, "mask in table seconds")
        window._decide_rows(masks)
        return window

    def leftover(self, stream_time_ms: int) -> bool:
        """Whether something is open that is due before `stream_time_ms`."""
        order = self._frames.order
        return bool(order) and order[0].due_ms < stream_time_ms

    def holds_open(self, first: int, last: int) -> bool:
        """Whether events of a step whose first block is one of the source messages `first` to `last` wait in the window."""
        return any(first <= number <= last for frames in self._frames.by_number for number in frames)

    def admit(  # noqa: PLR0913, PLR0917  (each is something of its own)
        self,
        arena: Bytes,
        times: BlockTimes,
        first_events: Arrivals,
        second_events: Arrivals,
        state: ViewReader,
        dedup_window_ms: int,
    ) -> Admitted:
        """Take the new events of a step's blocks (`app.core.join.admit_arrays.admit`). The window does not change."""
        return admit(self._tables, arena, times, first_events, second_events, state, self._rules, dedup_window_ms)

    def close(self, admitted: Admitted | None, number: int, stream_time_ms: int, budget_bytes: int) -> WindowStep:
        """The step that closes what is due before `stream_time_ms` (`app.core.join.close_arrays.Closer.run`).

        The window does not change; a step may be closed again with another budget.

        Args:
            admitted: the new events; None if there are none.
            number: source offset of the step's first block, the number of the frames that it brings; -1 without blocks.
            stream_time_ms: stream time after the step.
            budget_bytes: the sizes of the events that close may sum up to it.
        """
        admitted = admitted or Admitted(no_overlay(self._tables), _NOTHING, None, _NOTHING, _NOTHING)
        closings = Closer(self._tables, self._frames, self.closed, admitted, number).run(stream_time_ms, budget_bytes)
        return window_step(self._tables, self._frames, admitted, number, closings, self._steps)

    def advance(self, closed: Due, changes: Iterable[Changes], prepared: Prepared | None = None) -> None:
        """Follow a step that counts, whichever owner decided it.

        Args:
            closed: everything up to here is closed.
            changes: the changes of the step; those of other tables than the window's are passed over.
            prepared: the step that this owner decided last. It saves the reading of frames if the step has its very changes.

        Raises:
            FormatInvalid: a frame or a mask cannot be read.
            NewerFormat: a newer ETL stored it.
        """
        by_table = {change.table: change for change in changes if change.table in _TABLES}
        self.closed = closed
        if (
            prepared is not None
            and prepared.step.window == self._steps
            and prepared.step.closed == closed
            and {change.table: change for change in prepared.changes} == by_table
        ):
            self._apply(prepared.step)
        else:
            self._learn(by_table)
        self._steps += 1

    def _apply(self, step: WindowStep) -> None:
        """Take a step from its arrays."""
        admitted, frames = step.admitted, []
        kept = (step.kept_firsts, step.kept_seconds + admitted.overlay.firsts)
        for kind, slots in ((FIRST, admitted.first_slots), (SECOND, admitted.second_slots)):
            if len(kept[kind]):
                picks = slots - admitted.overlay.head
                if len(kept[kind]) < len(picks):
                    picks = picks[np.isin(picks, kept[kind])]
                frames.append(NewFrame(kind, step.number, picks, np.searchsorted(kept[kind], picks)))
        self._add(admitted.overlay, frames)
        self._close()
        decide_slots(*self._changing, step.decided_slots)
        for number, mask in step.masks.items():
            self._frames.by_number[SECOND][number].decided = mask
        for kind in (FIRST, SECOND):
            for number in step.gone[kind]:
                self._frames.drop(kind, number)

    def _learn(self, by_table: Mapping[str, Changes]) -> None:
        """Take a step from its message alone."""
        new: list[StoredEvents] = []
        masks: dict[int, BitMap] = {}
        pending, second_events = by_table.get("pending"), by_table.get("seconds")
        if pending is not None:
            new += [read_stored(FIRST, frame_number(key), value) for key, value in pending.puts()]
        if second_events is not None:
            for key, value in second_events.puts():
                if is_data(key):
                    new.append(read_stored(SECOND, frame_number(key), value))
                else:
                    masks[frame_number(key)] = read_bitmap(value, "mask in table seconds")
        self._take(new, values_in(by_table["views"]) if "views" in by_table else None)
        self._close()
        self._decide_rows(masks)
        if pending is not None:
            for key in pending.deleted():
                frame = self._frames.drop(FIRST, frame_number(key))
                close_slots(*self._changing, frame.base + frame.at, frame.base + frame.length)
        if second_events is not None:
            for key in second_events.deleted():
                if is_data(key):
                    frame = self._frames.drop(SECOND, frame_number(key))
                    decide_slots(*self._changing, np.arange(frame.base, frame.base + frame.length))

    def _take(self, new: Sequence[StoredEvents], known: Values | None, *, every: bool = True) -> None:
        """Take frames as they are stored.

        Args:
            new: the frames.
            known: the joining first events of page views.
            every: whether `known` are all that the step changes, and one that is not in `new` has closed on arrival.
        """
        overlay = lay_over_stored(self._tables, new, known, every=every)
        ends = {FIRST: 0, SECOND: overlay.firsts}
        frames = []
        for events in new:
            start = ends[events.kind]
            ends[events.kind] = stop = start + len(events.sizes)
            picks = in_closing_order(self._tables, overlay, np.arange(start, stop)) - overlay.head
            frames.append(NewFrame(events.kind, events.number, picks, picks - start))
        self._add(overlay, frames)

    def _add(self, overlay: Overlay, new: Sequence["NewFrame"]) -> None:
        """Take frames of an overlay's events, and the joining first events that are new in it."""
        if not len(overlay.views):
            return
        tables = self._tables
        tables.fit_events(sum(len(frame.picks) for frame in new))
        tables.fit_views(len(overlay.views))
        placed = np.full(len(overlay.own), NONE, np.int64)
        views = overlay.views.copy()
        added = []
        for kind, number, picks, rows in new:
            frame = OpenFrame(kind, number, tables.place(len(picks)), len(picks))
            add_frame(*self._changing, overlay.own, views, picks, rows, frame.base, number, kind == SECOND, placed)
            added.append(frame)
        set_joining(tables.views, views, overlay.head, placed)
        for frame in added:
            self._frames.add(frame, self.closed)
            if frame.kind == FIRST:
                close_slots(*self._changing, frame.base, frame.base + frame.at)

    def _close(self) -> None:
        """First events up to `closed` close."""
        for frame, before in self._frames.close(self.closed):
            if frame.kind == FIRST:
                close_slots(*self._changing, frame.base + before, frame.base + frame.at)

    def _decide_rows(self, masks: Mapping[int, BitMap]) -> None:
        """Rows of frames of second events have a decision."""
        for number, mask in masks.items():
            frame = self._frames.by_number[SECOND][number]
            new = np.zeros(frame.length, np.bool_)
            new[(mask - frame.decided).to_array()] = True
            slots = np.arange(frame.base, frame.base + frame.length)
            rows = self._tables.events[self._tables.rows_of(slots), ROW]
            decide_slots(*self._changing, slots[new[rows]])
            frame.decided = mask

    @property
    def _changing(self) -> tuple[Ints, Ints, Ints, Ints, int]:
        """The first arguments of the kernels that change the window."""
        tables = self._tables
        return tables.events, tables.views, tables.places, tables.counts, tables.secret


class NewFrame(NamedTuple):
    """A frame that comes into the window."""

    kind: int
    number: int
    picks: Ints
    """Rows of the overlay's `own`, in closing order."""
    rows: Ints
    """The row of each in the frame."""
