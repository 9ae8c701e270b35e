"""The rows and the ledger of a rebuild on disk, in slices of batches: a slice is compared as a whole, in memory."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import polars as pl
from pyroaring import BitMap

from agents.audit.rebuild.offline import Made
from app.core.formats.columns import pack_frame, stack, unpack_frame
from app.core.formats.step_message import LedgerEntry

SLICE_LINES: Final = 20_000
"""A slice takes batches until they have so many lines."""
_LENGTH: Final = struct.Struct(">I")
_LEDGER: Final = "ledger"
_entries: Final = msgspec.msgpack.Decoder(list[LedgerEntry])
Outcomes = dict[str, dict[str, BitMap]]
"""Batch -> outcome -> its lines."""


class Slice(NamedTuple):
    """Some batches whose ids follow each other."""

    number: int
    batch_ids: list[str]
    end_id: str
    """The first id of the next slice, or the end of the span."""


def slices_of(lines: Mapping[str, int], end_id: str, most_lines: int = SLICE_LINES) -> list[Slice]:
    """Cut batches into slices.

    Args:
        lines: batch -> its number of lines.
        end_id: behind the last batch.
        most_lines: a slice with more has one batch.
    """
    groups: list[list[str]] = []
    held = most_lines
    for batch_id in sorted(lines):
        if held + lines[batch_id] > most_lines:
            groups.append([])
            held = 0
        groups[-1].append(batch_id)
        held += lines[batch_id]
    ends = [*(group[0] for group in groups[1:]), end_id][: len(groups)]
    return [Slice(n, group, end) for n, (group, end) in enumerate(zip(groups, ends, strict=True))]


class RowFiles:
    """Appends what a rebuild makes to a file a slice and flow, and reads a slice again."""

    def __init__(self, folder: Path, slices: list[Slice]) -> None:
        self._folder = folder
        self.slices = slices
        self._slice_of = {batch_id: each.number for each in slices for batch_id in each.batch_ids}

    def add(self, made: Made) -> None:
        """Add the rows and the ledger of a step."""
        for flow, rows in made.rows.items():
            numbers = pl.Series("slice", [self._slice_of[batch_id] for batch_id in rows["batch_id"].to_list()])
            for (number,), part in rows.with_columns(numbers).partition_by("slice", as_dict=True).items():
                self._append(int(number), flow, pack_frame(part.drop("slice")))
        by_slice: dict[int, list[LedgerEntry]] = {}
        for entry in made.ledger:
            by_slice.setdefault(self._slice_of[entry.batch_id], []).append(entry)
        for number, entries in by_slice.items():
            self._append(number, _LEDGER, msgspec.msgpack.encode(entries))

    def rows(self, number: int, flow: str) -> pl.DataFrame:
        """The rows of a flow in a slice, with the columns that have values."""
        parts = [unpack_frame(packed) for packed in self._read(number, flow)]
        return stack(parts) if parts else pl.DataFrame(schema={"batch_id": pl.String, "line": pl.Int64})

    def outcomes(self, number: int) -> Outcomes:
        """The ledger of a slice."""
        found: Outcomes = {}
        for packed in self._read(number, _LEDGER):
            for entry in _entries.decode(packed):
                lines = found.setdefault(entry.batch_id, {}).setdefault(entry.outcome, BitMap())
                lines |= BitMap.deserialize(entry.line_set)
        return found

    def drop(self, number: int) -> None:
        """Delete a slice that is done."""
        for file in self._folder.glob(f"{number}.*"):
            file.unlink()

    def _append(self, number: int, name: str, packed: bytes) -> None:
        with (self._folder / f"{number}.{name}").open("ab") as file:
            file.write(_LENGTH.pack(len(packed)) + packed)

    def _read(self, number: int, name: str) -> Iterator[bytes]:
        file = self._folder / f"{number}.{name}"
        if not file.exists():
            return
        with file.open("rb") as opened:
            while head := opened.read(_LENGTH.size):
                yield opened.read(_LENGTH.unpack(head)[0])
