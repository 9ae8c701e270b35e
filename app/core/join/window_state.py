"""The window as the tables keep it, and its index made from them (rules J2, J3).

    pending  number                 Arrow IPC of the first events that a step left open
    seconds  number, `d`            Arrow IPC of the second events that a step left without a decision
    seconds  number, `m`            Roaring bitmap of the rows of it that have a decision by now; absent while none has

A number is the source offset of the first block of the step that stored the frame. The closed first events of a frame need
no table: they are exactly those up to `EtlMeta.closed`. A frame is deleted when its last event is closed or decided.

Versions (rule E10): a frame names its columns. If one that a reader does not know holds a value, the frame is a newer one's,
because the event's row would lack the value; columns that came after it was stored are NULL.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import polars as pl
from pyroaring import BitMap

from app.core.formats.columns import DTYPES, pack_frame, refuse_unknown_values, schema_in, unpack_frame, without
from app.core.formats.decoding import read_bitmap, reading
from app.core.formats.flows import ENGAGEMENTS, PAGE_VIEWS
from app.core.formats.step_message import Changes
from app.core.join.join_order import FIRST, SECOND, Due
from app.core.join.window import FRAME_COLUMNS, Frame, OpenWindow
from app.core.join.window_close import Closing, FrameRow, NewFrames
from app.core.rules import JoinRules
from app.core.state.tables import KEY_BYTES, StateReader
from app.errors import FormatInvalid, HistoryBroken

_TABLES: Final = {FIRST: "pending", SECOND: "seconds"}
_OF_INDEX: Final[dict[str, pl.DataType]] = {"digest": pl.Binary(), "size": pl.Int64()}
_KNOWN: Final = {
    kind: {**{column.name: DTYPES[column.kind] for column in flow.columns}, **_OF_INDEX}
    for kind, flow in ((FIRST, PAGE_VIEWS), (SECOND, ENGAGEMENTS))
}
"""By kind the columns that a stored frame may have: of the events' flow, and of the index."""
_NUMBER: Final = struct.Struct(">Q")
_DATA: Final = b"d"
_MASK: Final = b"m"
_LOADED_AT_ONCE: Final = 4096


def pending_key(number: int) -> bytes:
    """The key of a frame of first events."""
    return _NUMBER.pack(number)


def frame_number(key: bytes) -> int:
    """The number of the frame in a key of `pending` or `seconds`."""
    number: int = _NUMBER.unpack_from(key)[0]
    return number


def is_data(key: bytes) -> bool:
    """Whether a key of `seconds` holds a frame, and not its mask."""
    return key[-1:] == _DATA


def load_window(state: StateReader, rules: JoinRules, closed: Due) -> OpenWindow:
    """The index of everything that is open in the tables. It reads all of `pending` and `seconds` once.

    Raises:
        FormatInvalid: what the tables hold cannot be read.
        NewerFormat: a newer ETL stored it.
    """
    window = OpenWindow(rules)
    window.closed = closed
    for key, value in state.scan("pending"):
        window.add(_index(window, FIRST, frame_number(key), value))
    data: dict[int, bytes] = {}
    masks: dict[int, bytes] = {}
    for key, value in state.scan("seconds"):
        (data if is_data(key) else masks)[frame_number(key)] = value
    for number, value in data.items():
        mask = read_bitmap(masks[number], "mask in table seconds") if number in masks else None
        window.add(_index(window, SECOND, number, value), mask)
    digests = list({digest for frame in window.first_events.values() for digest in frame.digests[frame.at :]})
    for start in range(0, len(digests), _LOADED_AT_ONCE):
        asked = digests[start : start + _LOADED_AT_ONCE]
        found = [(digest, view) for digest, view in zip(asked, state.get("views", asked), strict=True) if view is not None]
        window.learn_joining_keys([digest for digest, _ in found], [view for _, view in found])
    return window


def read_frame(kind: int, packed: bytes, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """A stored frame of events of a kind, or some of its columns; those that this reader does not know are left out.

    Raises:
        FormatInvalid: it is no such frame.
        NewerFormat: it has a value in a column that this reader does not know.
    """
    held = columns_in_frame(kind, packed)
    return unpack_frame(packed, held if columns is None else columns)


def columns_in_frame(kind: int, packed: bytes) -> list[str]:
    """The columns of a stored frame of events of a kind that this reader knows.

    Raises:
        FormatInvalid: it is no such frame.
        NewerFormat: it has a value in a column that this reader does not know.
    """
    what, known = f"frame in table {_TABLES[kind]}", _KNOWN[kind]
    refuse_unknown_values(f"{what} with column", packed, known)
    held = {name: dtype for name, dtype in schema_in(packed).items() if name in known}
    if wrong := [name for name, dtype in held.items() if dtype != known[name]]:
        raise FormatInvalid(f"{what} has columns of another type: {', '.join(wrong)}")
    return list(held)


def _index(window: OpenWindow, kind: int, number: int, packed: bytes) -> Frame:
    """The index of a stored frame."""
    columns = read_frame(kind, packed, FRAME_COLUMNS)
    with reading(f"frame {number} in table {_TABLES[kind]}"):
        return window.frame(kind, number, columns)


class Prepared(NamedTuple):
    """The index of a frame that this worker packed itself, so that it need not read the frame again."""

    packed: bytes
    frame: Frame


def learn_step(window: OpenWindow, closed: Due, changes: Iterable[Changes], prepared: Sequence[Prepared] = ()) -> None:
    """Bring the index from before a step to behind it, from the step's message.

    Args:
        window: the index.
        closed: everything up to here is closed.
        changes: the changes of the step.
        prepared: indexes for frames in `changes`; an index fits if it was made from the same bytes.
    """
    by_table = {change.table: change for change in changes}

    def frame_of(kind: int, key: bytes, value: bytes) -> Frame:
        for known in prepared:
            if known.frame.kind == kind and known.frame.number == frame_number(key) and known.packed == value:
                return known.frame
        return _index(window, kind, frame_number(key), value)

    window.close(closed)
    if (views := by_table.get("views")) is not None:
        window.learn_joining_keys(*views.columns)
    if (pending := by_table.get("pending")) is not None:
        for key in pending.deleted():
            window.drop_first_events(frame_number(key))
        for key, value in pending.puts():
            window.add(frame_of(FIRST, key, value))
    if (second_events := by_table.get("seconds")) is not None:
        for key in second_events.deleted():
            if is_data(key):
                window.drop_second_events(frame_number(key))
        for key, value in second_events.puts():
            if is_data(key):
                window.add(frame_of(SECOND, key, value))
            else:
                window.decide(frame_number(key), read_bitmap(value, "mask in table seconds"))


class StoredFrames:
    """Frames of `pending` and `seconds` out of the tables. The frames that the last step read are kept for the next one.

    A stored frame never changes, and its events close in several steps.
    """

    def __init__(self, state: StateReader) -> None:
        self._state = state
        self._kept: dict[int, dict[int, pl.DataFrame]] = {FIRST: {}, SECOND: {}}

    def fetch(
        self, kind: int, places: Sequence[FrameRow], own: tuple[int, pl.DataFrame | None]
    ) -> Mapping[int, pl.DataFrame]:
        """The frames that `places` name, from the tables; `own` is this step's frame, which is not stored.

        Raises:
            HistoryBroken: the tables lack a frame that the index knows.
            FormatInvalid: a frame cannot be read.
            NewerFormat: a newer ETL stored it.
        """
        numbers = sorted({number for number, _ in places})
        frames = {number: kept for number in numbers if (kept := self._kept[kind].get(number)) is not None}
        table, tag = ("pending", b"") if kind == FIRST else ("seconds", _DATA)
        asked = [n for n in numbers if n not in frames and (own[1] is None or n != own[0])]
        for number, value in zip(asked, self._state.get(table, [_NUMBER.pack(n) + tag for n in asked]), strict=True):
            if value is None:
                raise HistoryBroken(f"table {table} has lost frame {number}, which is still open")
            frames[number] = read_frame(kind, value)
        self._kept[kind] = dict(frames)
        if own[1] is not None and own[0] in numbers:
            frames[own[0]] = own[1]
        return frames


class LeftOpen(NamedTuple):
    """The events that a step brings and leaves in the window; None if there are none."""

    first_events: pl.DataFrame | None
    second_events: pl.DataFrame | None

    @property
    def frames(self) -> list[pl.DataFrame]:
        """The frames that there are."""
        return [frame for frame in self if frame is not None]


def left_open(
    closing: Closing, number: int, first_events: pl.DataFrame | None, second_events: pl.DataFrame | None
) -> LeftOpen:
    """The events of frame `number`, which the step brings, without those that it closes or joins at once."""
    decided = [*closing.second_events, *(place for place in closing.joined if place)]
    return LeftOpen(_without(first_events, closing.first_events, number), _without(second_events, decided, number))


def _without(events: pl.DataFrame | None, gone: Iterable[FrameRow], number: int) -> pl.DataFrame | None:
    if events is None:
        return None
    kept = without(events, [row for n, row in gone if n == number])
    return kept if kept.height else None


def window_changes(window: OpenWindow, closing: Closing, number: int, opened: LeftOpen) -> list[Changes]:
    """The changes of a step in `pending` and `seconds` (rules J2, J3).

    Args:
        window: the index before the step.
        closing: the events that the step closes.
        number: number of the frames that the step brings.
        opened: the events that the step brings and leaves open.
    """
    pending_gone = []
    for n in {n for n, _ in closing.first_events if n != number}:
        frame = window.first_events[n]
        if frame.passed(closing.closed) == len(frame):
            pending_gone.append(n)

    decided: dict[int, list[int]] = {}
    for n, row in [*closing.second_events, *(place for place in closing.joined if place)]:
        decided.setdefault(n, []).append(row)
    decided.pop(number, None)
    seconds_gone, masks = [], {}
    for n, rows in decided.items():
        mask = window.second_events[n].decided | BitMap(rows)
        if len(mask) == len(window.second_events[n]):
            seconds_gone.append(n)
        else:
            masks[n] = mask
    packed = [None if frame is None else pack_frame(frame) for frame in opened]
    return frame_changes(number, (packed[FIRST], packed[SECOND]), (pending_gone, seconds_gone), masks)


def frame_changes(
    number: int, packed: tuple[bytes | None, bytes | None], gone: tuple[list[int], list[int]], masks: Mapping[int, BitMap]
) -> list[Changes]:
    """The changes in `pending` and `seconds` by a step that brings frames `number`.

    Args:
        number: of the frames that the step brings.
        packed: these frames: first and second events; None if there are none.
        gone: the frames that go, by kind.
        masks: frame of second events -> the rows of it that have a decision.
    """
    puts: dict[int, list[tuple[bytes, bytes]]] = {FIRST: [], SECOND: []}
    for kind, value in enumerate(packed):
        if value is not None:
            puts[kind].append((pending_key(number) if kind == FIRST else _NUMBER.pack(number) + _DATA, value))
    puts[SECOND] += [(_NUMBER.pack(n) + _MASK, mask.serialize()) for n, mask in masks.items()]
    deletes = [pending_key(n) for n in gone[FIRST]], [_NUMBER.pack(n) + tag for n in gone[SECOND] for tag in (_DATA, _MASK)]
    changes = []
    for kind, table in _TABLES.items():
        if puts[kind] or deletes[kind]:
            changes.append(Changes.pack(table, KEY_BYTES[table], puts[kind], sorted(deletes[kind])))
    return changes


def prepare(changes: Iterable[Changes], new: NewFrames, closing: Closing) -> list[Prepared]:
    """The indexes of the frames that a step stores whole, for `learn_step`."""
    closed_places = {*closing.first_events, *closing.second_events, *(place for place in closing.joined if place)}
    touched = {number for number, _ in closed_places}
    prepared = []
    by_table = {change.table: change for change in changes}
    for table, tag, frame in (("pending", b"", new.first_events), ("seconds", _DATA, new.second_events)):
        if frame is not None and frame.number not in touched and table in by_table:
            key = _NUMBER.pack(frame.number) + tag
            prepared += [Prepared(value, frame) for found, value in by_table[table].puts() if found == key]
    return prepared
