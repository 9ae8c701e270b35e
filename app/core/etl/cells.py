"""From blocks to cells: every field of every line of a step, as kernels read it (rule J1).

A block in the collector's own canonical form is scanned. Any doubt about one of its bytes, and the whole block is read as
`app.core.etl.decode` reads it; then what that reader says fills the same cells. So for any bytes the cells are what the
careful reader says, and everything behind them has one form of input.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from app.core.etl.decode import Decoded, read_blocks, read_carefully
from app.core.etl.field_table import FIELD, FIELD_TABLE, REQUIRED
from app.core.events.fields import EVENT_TYPES
from app.core.formats.source import AcceptedBlock
from app.kernels.cells import LEN_BITS, LEN_MASK, PAD, Bytes, Ints, Words
from app.kernels.scan import DOUBT, TEXT, are_complete, scan

KEPT_BYTES: Final = 32 * 1024 * 1024
KEPT_LINES: Final = 65_536
"""A reader keeps tables up to these sizes for the next step; larger ones are given back."""
_LF: Final = 10
_MALFORMED, _RECEIVED_AT = FIELD["malformed"], FIELD["received_at"]
_IS_TEXT: Final = {name: FIELD_TABLE.kinds[number] == TEXT for name, number in FIELD.items()} | {"event_type": True}
_BIT: Final = {name: np.uint64(1 << number) for name, number in FIELD.items()}
_TYPE_NUMBER: Final = {event_type: number for number, event_type in enumerate(EVENT_TYPES)}


class Cells(NamedTuple):
    """The n lines of a step, in log order. The arrays belong to their reader, which writes over them at its next read."""

    arena: Bytes
    """The texts of the blocks, one behind the other, then strings that are not there as they are meant; PAD bytes more."""
    used: int
    """The bytes of the arena that are used."""
    rec: Ints
    """int64[n, fields]: a cell for each field that the line has (`app.kernels.cells`), by its number (`FIELD`).

    A text longer than `LEN_MASK` is cut at a character: only the payload of a line that is not UTF-8 can be so long, and
    its row takes less of it.
    """
    present: Words
    """uint64[n]: bit `FIELD[name]`: the line has the field."""
    types: Ints
    """int64[n]: the number of each line's `event_type` in `EVENT_TYPES`, -1 if it has none. (Its cell is its text.)"""
    starts: Ints
    """int64[n + 1]: line k, with its LF, is arena[starts[k] : starts[k + 1]]."""
    blocks: Sequence[AcceptedBlock]
    ends: Sequence[int]
    """For each block, the position behind its last line."""

    def text(self, cell: int) -> bytes:
        """The text of a cell."""
        at = cell >> LEN_BITS
        return self.arena[at : at + (cell & LEN_MASK)].tobytes()

    def has(self, name: str) -> npt.NDArray[np.bool_]:
        """bool[n]: whether each line has the field."""
        found: npt.NDArray[np.bool_] = np.not_equal(self.present & _BIT[name], 0)
        return found

    def value(self, line: int, name: str) -> bytes | None:
        """The text of a field of a line; None if the line lacks it."""
        return self.text(int(self.rec[line, FIELD[name]])) if self.present[line] & _BIT[name] else None


class CellReader:
    """Reads the blocks of a step into tables of its own, which grow as they must; one step at a time."""

    def __init__(self) -> None:
        self.doubts = 0
        """Blocks that were not of the canonical form."""
        self._arena = np.empty(PAD, np.uint8)
        self._make_tables(0)

    def read(self, blocks: Sequence[AcceptedBlock]) -> Cells:
        """The lines of `blocks`, which are in log order; the guarantees are those of `read_blocks`."""
        side = self._begin(blocks)
        is_ascii = all(block.text.isascii() for block in blocks)
        at = first = 0
        for block in blocks:
            self._reserve(side, len(block.text))
            stop = at + len(block.text)
            end = self._scan(block, at, side, first) if is_ascii or _is_utf8(block.text) else DOUBT
            if end == DOUBT:
                self.doubts += 1
                for decoded in read_blocks([block]):
                    end = self._fill(decoded, side, first)
                self._cut(at, stop, first)
            side, at, first = end, stop, first + block.header.lines
        return self._cells(blocks, side, first, at)

    def read_carefully(self, blocks: Sequence[AcceptedBlock], rehearse: Callable[[Cells], object]) -> Cells:
        """The lines of `blocks`, each put through `rehearse` alone; a line that raises becomes malformed (rule E6)."""
        alone = CellReader()
        return self.take(read_carefully(blocks, lambda decoded: rehearse(alone.take(decoded))))

    def take(self, decoded: Decoded) -> Cells:
        """The cells of lines that were read already."""
        size = self._begin(decoded.blocks)
        side = self._fill(decoded, size, 0)
        self._cut(0, size, 0)
        return self._cells(decoded.blocks, side, sum(block.header.lines for block in decoded.blocks), size)

    def _begin(self, blocks: Sequence[AcceptedBlock]) -> int:
        """Make room for `blocks`, and put their texts into the arena. Returns their bytes."""
        texts = b"".join([block.text for block in blocks])
        size, lines = len(texts), sum(block.header.lines for block in blocks)
        if len(self._arena) > KEPT_BYTES or len(self._arena) < 2 * size + PAD:
            self._arena = np.empty(3 * size + PAD, np.uint8)
        if len(self._rec) > KEPT_LINES or len(self._rec) < lines:
            self._make_tables(lines + lines // 2)
        self._arena[:size] = np.frombuffer(texts, np.uint8)
        return size

    def _make_tables(self, lines: int) -> None:
        self._rec = np.empty((lines, len(FIELD)), np.int64)
        self._present = np.empty(lines, np.uint64)
        self._types = np.empty(lines, np.int64)
        self._starts = np.empty(lines + 1, np.int64)

    def _reserve(self, used: int, more: int) -> None:
        """Make room for `more` bytes behind the used ones."""
        if used + more + PAD > len(self._arena):
            arena = np.empty(used + more + len(self._arena), np.uint8)
            arena[:used] = self._arena[:used]
            self._arena = arena

    def _scan(self, block: AcceptedBlock, at: int, side: int, first: int) -> int:
        """The new end of what is used of the arena, with the block's lines in the tables; DOUBT if it cannot be scanned."""
        if not block.text.endswith(b"\n"):
            return DOUBT  # every loop of the scanner ends there
        lines, floor = block.header.lines, block.header.received_at_ms
        names, slots, multiplier, kinds, tags = FIELD_TABLE
        end = scan(
            self._arena, at, at + len(block.text), side, names, slots, multiplier, kinds, tags,
            first, lines, self._rec, self._present, self._types, self._starts,
        )  # fmt: skip
        is_sure = end != DOUBT and are_complete(
            self._rec, self._present, self._types, first, first + lines, REQUIRED, _MALFORMED, _RECEIVED_AT, floor
        )
        return end if is_sure else DOUBT

    def _fill(self, decoded: Decoded, side: int, first: int) -> int:
        """Put lines that were read already at `first`, and their texts at `side`. Returns the new end of what is used."""
        lines = sum(block.header.lines for block in decoded.blocks)
        self._present[first : first + lines] = 0
        self._types[first : first + lines] = -1
        texts: list[bytes] = []
        for name, values in decoded.columns.items():
            held = [n for n, value in enumerate(values) if value is not None]
            if not held:
                continue
            rows = np.array(held) + first
            self._present[rows] |= _BIT[name]
            found = [values[n] for n in held]
            if name == "event_type":
                self._types[rows] = [_TYPE_NUMBER[event_type] for event_type in found]
            if _IS_TEXT[name]:
                own = [_fitting(text.encode()) for text in found]
                sizes = np.array([len(text) for text in own])
                ends = side + np.cumsum(sizes)
                self._rec[rows, FIELD[name]] = (ends - sizes) << LEN_BITS | sizes
                texts += own
                side = int(ends[-1])
            else:
                self._rec[rows, FIELD[name]] = found
        return self._append(b"".join(texts), side)

    def _append(self, texts: bytes, end: int) -> int:
        """Put texts into the arena, so that they end at `end`."""
        start = end - len(texts)
        self._reserve(start, len(texts))
        self._arena[start:end] = np.frombuffer(texts, np.uint8)
        return end

    def _cut(self, at: int, stop: int, first: int) -> None:
        """Write down where the lines in arena[at:stop] begin."""
        behind = np.flatnonzero(self._arena[at:stop] == _LF) + (at + 1)
        self._starts[first] = at
        self._starts[first + 1 : first + 1 + len(behind)] = behind

    def _cells(self, blocks: Sequence[AcceptedBlock], used: int, lines: int, size: int) -> Cells:
        self._starts[lines] = size
        return Cells(
            self._arena, used, self._rec[:lines], self._present[:lines], self._types[:lines], self._starts[: lines + 1],
            blocks, list(accumulate(block.header.lines for block in blocks)),
        )  # fmt: skip


def _fitting(text: bytes) -> bytes:
    return text if len(text) <= LEN_MASK else text[:LEN_MASK].decode(errors="ignore").encode()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
