"""The facts about a line from which its fate follows: the raw line itself, the ledger's rows, and the row that it became."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from app.core.audit.stages import Stage
from app.core.formats.decoding import read
from app.core.formats.registry_item import RegistryItem
from app.errors import FormatInvalid


class LineFields(msgspec.Struct):
    """The fields of a stored line that a trace shows or decides by."""

    event_id: str | None = None
    event_type: str | None = None
    page_view_id: str | None = None
    received_at: int | None = None
    malformed: str | None = None


class RawLine(NamedTuple):
    """A line of a raw file."""

    batch_id: str
    line: int
    raw_key: str
    item: RegistryItem | None
    """The batch in the registry; None if the registry does not have it, or it cannot be read there."""
    text: bytes
    """The line as it is stored."""
    fields: LineFields

    @property
    def block(self) -> int | None:
        """The number of the block that has the line; None without the registry's item."""
        return None if self.item is None else block_of(self.item, self.line)


_fields: Final = msgspec.json.Decoder(LineFields)


def fields_of(text: bytes) -> LineFields:
    """The fields of a stored line; of bytes that are no stored line only that they are malformed."""
    try:
        return read(_fields, text, "stored line")
    except FormatInvalid:
        return LineFields(malformed="line: cannot be read")


def block_of(item: RegistryItem, line: int) -> int | None:
    """The number of the block that has a line; None if the batch has no such line."""
    found = (n for n, place in enumerate(item.blocks) if place.first_line <= line < place.first_line + place.lines)
    return next(found, None)


class LoadedOutcome(NamedTuple):
    """A row of the ledger: the outcome of some lines of a batch, and the transaction that brought it."""

    txn_id: str
    outcome: str
    lines: int
    line_set: str
    """Base64 of the Roaring bitmap of line numbers."""
    loaded_at_ms: int
    """Since then the rows of this transaction are visible."""


class RowFacts(NamedTuple):
    """The facts that a trace reads of a flow's row; None for a column that the flow does not have."""

    batch_id: str
    line: int
    txn_id: str
    event_id: str | None = None
    page_view_id: str | None = None
    reason: str | None = None
    kind: str | None = None
    joined: bool | None = None
    engagement_id: str | None = None


class HeldLine(NamedTuple):
    """The stage that holds a line which the warehouse's ledger does not have."""

    stage: Stage | None
    """None if no service could tell it."""
    detail: str
    until_ms: int | None = None
    """JOIN: the moment, by stream time, at which the last line of its block leaves the window."""
    txn_id: str | None = None
    """QUARANTINED and DELIVERY: the transaction."""


class LineFacts(NamedTuple):
    """Everything known about one line."""

    raw: RawLine
    loaded: Sequence[LoadedOutcome] = ()
    """The ledger's rows that have the line; more than one is a fault."""
    row: RowFacts | None = None
    """The row that it became, if its outcome is a flow."""
    first: RowFacts | None = None
    """The row of the first event that it joined, if its outcome is `joined`."""
    held: HeldLine | None = None
    """Only of a line that the ledger does not have."""
    offset: int | None = None
    """The offset of its block in topic `blocks`; None if it is not known (any more)."""
    file: str | None = None
    """The file in S3 that has its row."""
