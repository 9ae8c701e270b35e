"""Differences that the deep audit names, and that `instream repair` mends: what is damaged, and where.

Only damage is a difference. A batch that waits for the join, a transaction that is committed and not loaded yet, a raw file
whose registration may still come: they are late, and late is no difference.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from app.core.whole_table import whole_table


class DifferenceKind(StrEnum):
    """Every kind of damage. `lost`: it is not there; `changed`: it is there and is not what its source says."""

    REGISTRY_LOST = "registry_lost"
    REGISTRY_CHANGED = "registry_changed"
    RAW_LOST = "raw_lost"
    RAW_CHANGED = "raw_changed"
    RECORD_LOST = "record_lost"
    RECORD_CHANGED = "record_changed"
    FILE_LOST = "file_lost"
    FILE_CHANGED = "file_changed"
    MANIFEST_LOST = "manifest_lost"
    MANIFEST_CHANGED = "manifest_changed"
    READY_LOST = "ready_lost"
    READY_CHANGED = "ready_changed"
    LOG_LOST = "log_lost"
    LOG_CHANGED = "log_changed"
    ROWS_LOST = "rows_lost"
    ROWS_DOUBLED = "rows_doubled"
    ROWS_CHANGED = "rows_changed"
    ROWS_FOREIGN = "rows_foreign"
    LINES_LOST = "lines_lost"
    LINES_DOUBLED = "lines_doubled"
    QUARANTINED = "quarantined"
    DEAD_LETTER = "dead_letter"
    STEP_DAMAGED = "step_damaged"


MEANINGS: Final[Mapping[DifferenceKind, str]] = whole_table(DifferenceKind, {
    DifferenceKind.REGISTRY_LOST: "the registry has no item of a batch that has a raw file and a ledger",
    DifferenceKind.REGISTRY_CHANGED: "a registry item cannot be read, or contradicts the batch's raw file",
    DifferenceKind.RAW_LOST: "the raw file of a registered batch is missing",
    DifferenceKind.RAW_CHANGED: "the raw file of a registered batch has another sha256 than the registry says",
    DifferenceKind.RECORD_LOST: "a chain has no commit record of a number, and it has a higher number",
    DifferenceKind.RECORD_CHANGED: "a commit record cannot be read, or says that it is another one",
    DifferenceKind.FILE_LOST: "a data file that a commit record names is missing",
    DifferenceKind.FILE_CHANGED: "a data file has another sha256 than its commit record says",
    DifferenceKind.MANIFEST_LOST: "a manifest of a finished transaction is missing",
    DifferenceKind.MANIFEST_CHANGED: "a manifest does not say what its commit record says",
    DifferenceKind.READY_LOST: "the ready.json of a finished transaction is missing",
    DifferenceKind.READY_CHANGED: "a ready.json does not say what its commit record says",
    DifferenceKind.LOG_LOST: "delivery_log has no row of a transaction that delivery has passed",
    DifferenceKind.LOG_CHANGED: "a row of delivery_log does not say what the commit record says, or is there twice",
    DifferenceKind.ROWS_LOST: "rows of a loaded data file are not in the warehouse",
    DifferenceKind.ROWS_DOUBLED: "rows of a data file are in the warehouse more often than in the file",
    DifferenceKind.ROWS_CHANGED: "rows in the warehouse have other values than their data file",
    DifferenceKind.ROWS_FOREIGN: "rows in the warehouse are in no data file of a loaded transaction",
    DifferenceKind.LINES_LOST: "lines of a batch are in no ledger, and nothing on its way can bring them",
    DifferenceKind.LINES_DOUBLED: "lines of a batch are in the ledger more than once, or are none of its lines",
    DifferenceKind.QUARANTINED: "delivery has set a transaction aside: its rows are not in the warehouse",
    DifferenceKind.DEAD_LETTER: "the etl could not read a block, and no copy of it was read since",
    DifferenceKind.STEP_DAMAGED: "a message of topic rows cannot be read, and the steps behind it need it",
})  # fmt: skip


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One damage. Fields that do not apply are empty."""

    kind: DifferenceKind
    batch_id: str = ""
    flow: str = ""
    """The output (`app.core.formats.flows.OUTPUTS`) that is damaged."""
    lines: list[int] = []
    """The damaged lines of the batch, ascending. Rows of a ledger: the lines that they are about."""
    detail: str = ""
    """What was found and what should be there, in words."""
    txn_id: str = ""
    """The transaction that the damage belongs to. Each file, manifest, log or rows difference has one."""
    key: str = ""
    """The S3 object that is damaged, or whose content the warehouse should have."""
    partition: int | None = None
    """The chain's or topic's partition."""
    number: int | None = None
    """The transaction's number in its chain."""
    offset: int | None = None
    """The offset of a damaged step on topic `rows`."""


def in_ranges(lines: Iterable[int]) -> str:
    """Line numbers for a reader: `0-41, 57`."""
    ranges: list[tuple[int, int]] = []
    for line in sorted(set(lines)):
        if ranges and ranges[-1][1] == line - 1:
            ranges[-1] = ranges[-1][0], line
        else:
            ranges.append((line, line))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def place_in_words(batch_id: str, flow: str, lines: Iterable[int], txn_id: str) -> str:
    """The place of a damage for a reader: `batch ID  FLOW  lines 0-41  TXN`, without what does not apply."""
    ranges = in_ranges(lines)
    parts = [batch_id and f"batch {batch_id}", flow, ranges and f"lines {ranges}", txn_id]
    return "  ".join(part for part in parts if part)
