"""The plain path's join and the kernel path's, each deciding the same steps over tables of its own."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import polars as pl

from app.core.formats.columns import gather, pack_frame
from app.core.formats.source import AcceptedBlock
from app.core.formats.step_message import Changes
from app.core.join import open_tables
from app.core.join.admit_arrays import Admitted, Arrivals, BlockTimes
from app.core.join.close_arrays import REASONS, WindowStep
from app.core.join.join import Events, JoiningFirsts, admit_events
from app.core.join.join_order import FIRST, SECOND, Due, id_in, join_keys_of, time_in
from app.core.join.open_tables import id_in_words
from app.core.join.window import OpenWindow
from app.core.join.window_arrays import ArrayWindow, Prepared
from app.core.join.window_close import Closing, NewFrames, close_due
from app.core.join.window_state import LeftOpen, learn_step, left_open, prepare, window_changes
from app.core.rules import EtlRules
from app.core.state.encoding import digests_of
from app.core.state.tables import KEY_BYTES, MemoryState
from app.kernels.cells import LEN_BITS, PAD
from app.kernels.join.layout import EVENTS, HEAD, HIGH, IDS, LOW, NEXT, NONE, RECEIVED, ROW, VIEW
from app.kernels.join.layout import FIRST as JOINING
from tests.builders.join_log import DEDUP_WINDOW_MS, RULES, JoinBlock, JoinEvent, Move

Place = tuple[int, int]


class Taken(NamedTuple):
    """The entries of the log that a step takes."""

    blocks: list[JoinBlock]
    now_ms: list[int]
    """Stream time at each block."""
    stream_time_ms: int
    number: int

    def events(self, kind: int) -> list[tuple[int, JoinEvent]]:
        """(block, event) of a kind."""
        return [(n, event) for n, block in enumerate(self.blocks) for event in block.events if event.kind == kind]


def taken(entries: Sequence[JoinBlock | Move], now_ms: int, number: int) -> Taken:
    blocks, times = [], []
    for entry in entries:
        if isinstance(entry, Move):
            now_ms += entry.by_ms
        else:
            blocks.append(entry)
            times.append(now_ms)
    return Taken(blocks, times, now_ms, number if blocks else -1)


class Decision(NamedTuple):
    """What a step decides, in the words of both paths."""

    late: list[int]
    views: list[tuple[bytes, bytes]]
    first_events: list[Place]
    joined: list[Place | None]
    second_events: list[Place]
    reasons: list[str]
    closed: Due
    more: bool
    changes: dict[str, tuple[list[tuple[bytes, bytes]], list[bytes]]]


class Filtered(MemoryState):
    """Tables with a filter before them, which is wrong on some digests."""

    def maybe(self, table: str, digests: Any) -> Any:
        keys = [row.astype(">u8").tobytes() for row in digests]
        return np.array([key in self.tables[table] or key[0] % 3 == 0 for key in keys], np.bool_)


def columns_of(events: Sequence[JoinEvent]) -> pl.DataFrame | None:
    if not events:
        return None
    return pl.DataFrame(
        {
            "event_id": [event.event_id for event in events],
            "received_at": [event.received_ms for event in events],
            "digest": digests_of([f"view {event.view}" for event in events]),
            "size": [event.size for event in events],
        },
        schema={"event_id": pl.String, "received_at": pl.Int64, "digest": pl.Binary, "size": pl.Int64},
    )


def rebuilt(frame: pl.DataFrame | None) -> pl.DataFrame | None:
    """An equal frame, made from its values as `columns_of` makes it: so equal frames have equal bytes."""
    return None if frame is None else pl.DataFrame(frame.to_dict(as_series=False), schema=frame.schema)


def put_and_deleted(changes: Sequence[Changes]) -> dict[str, tuple[list[tuple[bytes, bytes]], list[bytes]]]:
    return {change.table: (list(change.puts()), list(change.deleted())) for change in changes}


class Path:
    """The tables of a path."""

    def __init__(self) -> None:
        self.state = Filtered()

    def forget(self, before_ms: int) -> None:
        """A store may forget what was stored before the dedup window."""
        views = self.state.tables["views"]
        for digest in [digest for digest, view in views.items() if int.from_bytes(view[:8]) < before_ms]:
            del views[digest]


class PlainPath(Path):
    """The join of the plain path."""

    def __init__(self) -> None:
        super().__init__()
        self.window = OpenWindow(RULES)
        self._prepared: Any = ()

    def decide(self, step: Taken, budget: int) -> Decision:
        firsts, seconds = step.events(FIRST), step.events(SECOND)
        sides = []
        for events in (firsts, seconds):
            frame = columns_of([event for _, event in events])
            spans, at = [], 0
            for n in range(len(step.blocks)):
                width = sum(block == n for block, _ in events)
                spans.append(range(at, at + width))
                at += width
            keys = join_keys_of([e.received_ms for _, e in events], [e.event_id for _, e in events])
            sides.append((frame, Events(spans, keys, [] if frame is None else frame["digest"].to_list())))
        (first_frame, first_events), (second_frame, second_events) = sides
        asked = [*first_events.digests, *(d for d in second_events.digests if d not in self.window.joining_keys)]
        found = zip(asked, self.state.get("views", asked), strict=True)
        known = JoiningFirsts({digest: view for digest, view in found if view is not None}, self.window.joining_keys)
        blocks = [
            AcceptedBlock(_Header(block.received_ms), 0, b"", now)  # type: ignore[arg-type]
            for block, now in zip(step.blocks, step.now_ms, strict=True)
        ]
        admitted = admit_events(blocks, first_events, second_events, known, _RULES)
        waiting = [n for n in range(len(seconds)) if n not in set(admitted.late)]
        if second_frame is not None:
            second_frame = gather(second_frame, waiting) if waiting else None
        new = NewFrames(
            None if first_frame is None else self.window.frame(FIRST, step.number, first_frame),
            None if second_frame is None else self.window.frame(SECOND, step.number, second_frame),
            admitted.views,
        )
        closing = close_due(self.window, new, step.stream_time_ms, budget)
        opened = LeftOpen(*map(rebuilt, left_open(closing, step.number, first_frame, second_frame)))
        stored = window_changes(self.window, closing, step.number, opened)
        self._prepared = prepare(stored, new, closing)
        self.changes = list(stored)
        if admitted.views:
            self.changes.append(Changes.pack("views", KEY_BYTES["views"], admitted.views.items()))
        return self._decision(step, admitted, closing, waiting)

    def _decision(self, step: Taken, admitted: Any, closing: Closing, waiting: list[int]) -> Decision:
        def place(found: Place | None) -> Place | None:
            """Rows of the step's own second events are counted without late ones; the kernel path counts all."""
            return (found[0], waiting[found[1]]) if found and found[0] == step.number else found

        return Decision(
            admitted.late, sorted(admitted.views.items()), closing.first_events, [place(p) for p in closing.joined],
            [p for p in map(place, closing.second_events) if p], closing.reasons, closing.closed, closing.more,
            put_and_deleted(self.changes),
        )  # fmt: skip

    def advance(self, closed: Due) -> None:
        self.state.apply(self.changes)
        learn_step(self.window, closed, self.changes, self._prepared)


def small_tables() -> Any:
    """Tables begin so small that a history of a few events makes them grow."""
    return mock.patch.multiple(open_tables, _EVENTS=2, _VIEWS=1, _WORDS=1)


class ArrayPath(Path):
    """The join of the kernel path."""

    def __init__(self) -> None:
        super().__init__()
        with small_tables():
            self.window = ArrayWindow(RULES)
        self.step: WindowStep | None = None
        self.abandoned: Prepared | None = None

    def decide(self, step: Taken, budget: int, halvings: int = 0) -> Decision:
        """Decide a step; before that with a budget that is too large, as an owner does whose message is too large."""
        sides, text = [], b""
        for kind in (FIRST, SECOND):
            events = step.events(kind)
            cells = []
            for _, event in events:
                cells.append(len(text) << LEN_BITS | len(event.event_id))
                text += event.event_id.encode()
            digests = b"".join(digests_of([f"view {event.view}" for _, event in events]))
            sides.append(Arrivals(
                np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2),
                _ints([event.received_ms for _, event in events]), _ints(cells),
                _ints([event.size for _, event in events]), _ints([block for block, _ in events]),
            ))  # fmt: skip
        stored = [max(block.received_ms, now) for block, now in zip(step.blocks, step.now_ms, strict=True)]
        arena = np.frombuffer(bytearray(text + b"\xee" * PAD), np.uint8)
        times = BlockTimes(_ints(step.now_ms), _ints(stored))
        admitted = self.window.admit(arena, times, *sides, self.state, DEDUP_WINDOW_MS)
        for n in range(halvings, 0, -1):
            self.window.close(admitted, step.number, step.stream_time_ms, budget << n)
        self.step = self.window.close(admitted, step.number, step.stream_time_ms, budget)
        return self._decision(step, admitted)

    def _decision(self, step: Taken, admitted: Admitted) -> Decision:
        made = self.step
        assert made is not None
        kept = []
        for kind, rows in ((FIRST, made.kept_firsts), (SECOND, made.kept_seconds)):
            events = [event for _, event in step.events(kind)]
            frame = columns_of([events[n] for n in rows.tolist()])
            kept.append(None if frame is None else pack_frame(frame))
        self.changes = made.changes(*kept)
        if admitted.views is not None:
            self.changes.append(admitted.views)
        joined = _places(made.joined_frames, made.joined_rows)
        return Decision(
            admitted.late.tolist(), [] if admitted.views is None else list(admitted.views.puts()),
            _places(made.first_frames, made.first_rows), [None if row == NONE else (n, row) for n, row in joined],
            _places(made.second_frames, made.second_rows), [REASONS[n] for n in made.reasons.tolist()],
            made.closed, made.more, put_and_deleted(self.changes),
        )  # fmt: skip

    @property
    def prepared(self) -> Prepared | None:
        """The last decision."""
        return None if self.step is None else Prepared(self.step, self.changes)

    def abandon(self) -> None:
        """The last decision is never sent."""
        self.abandoned = self.prepared

    def advance(self, closed: Due, prepared: Prepared | None) -> None:
        """Follow the last decision; an owner that lost its partition has prepared another one, or none."""
        self.state.apply(self.changes)
        self.window.advance(closed, self.changes, prepared)
        self.abandoned = prepared

    def load(self, closed: Due) -> None:
        with small_tables():
            self.window = ArrayWindow.load(self.state, RULES, closed)


class Open(NamedTuple):
    """What is open: the same for both paths after the same steps."""

    order: list[Any]
    joining: dict[bytes, tuple[int, str]]
    waiting: dict[bytes, list[tuple[int, str, int, int]]]
    """Page view -> (received_at, id, frame, row) of second events without a decision."""


def open_in_plain(window: OpenWindow) -> Open:
    return Open(
        window.order,
        {digest: (time_in(key), id_in(key)) for digest, key in window.joining_keys.items()},
        {
            digest: sorted((time_in(w.join_key), id_in(w.join_key), w.frame, w.row) for w in found)
            for digest, found in window.waiting.items()
        },
    )


def open_in_arrays(window: ArrayWindow) -> Open:
    tables, frames = window._tables, window._frames
    joining: dict[bytes, tuple[int, str]] = {}
    waiting: dict[bytes, list[tuple[int, str, int, int]]] = {}
    named: dict[int, int] = {}
    for kind, by_number in enumerate(frames.by_number):
        for frame in by_number.values():
            for slot in range(frame.base, frame.base + frame.length):
                row = tables.events[slot & (len(tables.events) - 1)]
                if (view := int(row[VIEW])) == NONE:
                    continue
                named[view] = named.get(view, 0) + 1
                digest = tables.views[view][[HIGH, LOW]].view(np.uint64).astype(">u8").tobytes()
                event = (int(row[RECEIVED]), id_in_words(row[IDS:]))
                if kind == SECOND:
                    waiting.setdefault(digest, []).append((*event, frame.number, int(row[ROW])))
                elif tables.views[view, JOINING] == slot:
                    joining[digest] = event
    assert {view: int(tables.views[view, EVENTS]) for view in named} == named
    assert tables.counts[2] == len(named) == int((tables.places != NONE).sum())
    for view in named:
        slots, slot = [], int(tables.views[view, HEAD])
        while slot != NONE:
            slots.append(slot)
            slot = int(tables.events[slot & (len(tables.events) - 1), NEXT])
        digest = tables.views[view][[HIGH, LOW]].view(np.uint64).astype(">u8").tobytes()
        assert len(slots) == len(set(slots)) == len(waiting.get(digest, []))
    return Open(frames.order, joining, {digest: sorted(found) for digest, found in waiting.items()})


class _Header(NamedTuple):
    received_at_ms: int


_RULES = EtlRules(epoch=1, partitions=1, join=RULES, dedup_window_ms=DEDUP_WINDOW_MS, message_bytes=1 << 20)


def _ints(values: Sequence[int]) -> Any:
    return np.array(values, np.int64)


def _places(frames: Any, rows: Any) -> list[Place]:
    return list(zip(frames.tolist(), rows.tolist(), strict=True))
