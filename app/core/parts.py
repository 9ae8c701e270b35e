"""Some lines of a step, those of one fate, and the frames made of them by column."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final

import polars as pl

from app.core.decode import Lines, StoredEvent
from app.core.enrich import NO_ORIGIN
from app.core.fate import Sorted

OF_AGENT: Final = ("browser", "os", "device")
OF_ORIGIN: Final = ("country", "region", "city")


class Part:
    """Lines of one fate, in log order.

    Args:
        lines: all lines of the step.
        found: their agents and origins.
        positions: which lines; at least one.
    """

    def __init__(self, lines: Lines, found: Sorted, positions: Sequence[int]) -> None:
        self.lines = lines
        self.positions = positions
        self.events: Sequence[StoredEvent] = _pick(lines.events, positions)
        self._found = found
        self.spans = _spans(positions, lines.ends)
        """Of each block the part's own positions in it."""
        self.numbers: list[int] = []
        """Of each line its number in its batch."""
        for block, span in enumerate(self.spans):
            header = lines.blocks[block].header
            shift = header.first_line + header.lines - lines.ends[block]
            self.numbers += [n + shift for n in positions[span.start : span.stop]]

    def __len__(self) -> int:
        return len(self.positions)

    def by_batch(self) -> Iterator[tuple[str, list[int]]]:
        """(batch_id, line numbers), block by block."""
        for block, span in enumerate(self.spans):
            if span:
                yield self.lines.blocks[block].header.batch_id, self.numbers[span.start : span.stop]

    def frame(self, schema: dict[str, pl.DataType]) -> pl.DataFrame:
        """DataFrame[one row a line] with the columns of `schema`; a column that no event has is NULL."""
        return pl.DataFrame([self._column(name, dtype) for name, dtype in schema.items()])

    def _column(self, name: str, dtype: pl.DataType) -> pl.Series:
        values: Sequence[Any]
        if name in StoredEvent.__struct_fields__:
            values = list(map(_FIELD[name], self.events))
        elif name in OF_AGENT:
            values = list(map(attrgetter(name), _pick(self._found.agents, self.positions)))
        elif name in OF_ORIGIN:
            origins = _pick(self._found.origins, self.positions)
            if origins.count(NO_ORIGIN) == len(origins):
                return pl.Series(name, [None], dtype=dtype).new_from_index(0, len(origins))
            values = list(map(attrgetter(name), origins))
        elif name == "batch_id":
            values = []
            for block, span in zip(self.lines.blocks, self.spans, strict=True):
                values += [block.header.batch_id] * len(span)
        elif name == "line":
            values = self.numbers
        else:
            return pl.Series(name, [None], dtype=dtype).new_from_index(0, len(self))
        return pl.Series(name, values, dtype=dtype)


_FIELD: Final = {name: attrgetter(name) for name in StoredEvent.__struct_fields__}


def _pick(values: Sequence[Any], positions: Sequence[int]) -> Sequence[Any]:
    if len(positions) == 1:
        return (values[positions[0]],)
    picked: tuple[Any, ...] = itemgetter(*positions)(values)
    return picked


def _spans(positions: Sequence[int], ends: Sequence[int]) -> list[range]:
    spans, start = [], 0
    for end in ends:
        upto = bisect_left(positions, end, start)
        spans.append(range(start, upto))
        start = upto
    return spans
