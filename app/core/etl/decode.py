"""From blocks to their lines, column by column (rule J1).

Stored lines are canonical JSON with typed fields, so one strict, typed decoder reads a whole block. If it fails or leaves a
doubt, the block is read line by line: text that is no stored line becomes a malformed line with a reason, and the other
lines stay as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol

import msgspec
import polars as pl
import zstandard
from msgspec.structs import astuple as _astuple

from app.core.events.canonical_json import storable_text
from app.core.events.fields import EVENT_TYPES, FIELDS, INT64, STORED_FIELDS
from app.core.events.read_stored import read_stored_line
from app.core.formats.block import BlockHeader, frame_of, open_frame
from app.core.formats.flows import ColumnKind
from app.core.formats.source import AcceptedBlock
from app.core.whole_table import whole_table
from app.errors import FrameInvalid, NewerFormat

AT_ONCE: Final = 1000
"""Lines that go from text to columns together. Their objects, ten times as large as the columns, are freed in between.

Each column costs some 7 us, however short it is: with 500 lines at once the columns take half as long again. With 1,500
lines the objects have left the processor's cache when they are read.
"""
_NUL: Final = b"\\u0000"
"""The decoder accepts this escape, and no stored line may hold it."""
ANY_FAILURE: Final = (Exception, pl.exceptions.PanicException)
"""The exceptions of work on bad input. A panic in polars is no Exception; `except Exception` does not catch it."""


class StoredEvent(Protocol):
    """A stored line: the fields of `STORED_FIELDS`; None for a field that the line lacks."""

    event_type: str | None
    event_id: str | None
    page_view_id: str | None
    occurred_at: int | None
    received_at: int
    malformed: str | None


_OF_KIND: Final[Mapping[ColumnKind, Any]] = whole_table(ColumnKind, {
    ColumnKind.STRING: str, ColumnKind.BOOLEAN: bool,
    ColumnKind.INTEGER: (integer := Annotated[int, msgspec.Meta(ge=INT64[0], le=INT64[1])]), ColumnKind.TIMESTAMP: integer,
})  # fmt: skip


_AS_WRITTEN: Final = sorted(STORED_FIELDS.items(), key=lambda field: field[0] != "event_type")


def _stored_field(name: str, kind: ColumnKind) -> Any:
    if name == "received_at":
        return name, _OF_KIND[kind]
    return name, (Literal[EVENT_TYPES] if name == "event_type" else _OF_KIND[kind]) | None, None


_Stored: Final[Any] = msgspec.defstruct(
    "_Stored", [_stored_field(name, kind) for name, kind in _AS_WRITTEN], gc=False, forbid_unknown_fields=True,
    kw_only=True,
)  # fmt: skip
"""`StoredEvent` as it is decoded. Its fields are in the order in which they are written, which is faster to read."""
_decoder: Final[msgspec.json.Decoder[StoredEvent]] = msgspec.json.Decoder(_Stored)
astuple: Final[Callable[[StoredEvent], tuple[Any, ...]]] = _astuple  # type: ignore[assignment]
_LOOSE: Final = frozenset(EVENT_TYPES) - frozenset(FIELDS["page_view_id"].required_by)
"""Types of events that need no page view."""


class Decoded(NamedTuple):
    """The lines of some blocks, in log order."""

    columns: Mapping[str, Sequence[Any]]
    """Stored field -> its value in each line; None where the line lacks it."""
    blocks: Sequence[AcceptedBlock]


def read_blocks(blocks: Sequence[AcceptedBlock]) -> Iterator[Decoded]:
    """The lines of `blocks`, a few blocks at a time.

    Args:
        blocks: in log order.

    Guarantees: each block yields exactly `header.lines` lines, numbered from `header.first_line`. A line is malformed, with
    a reason, or it has event_id, a known event_type, occurred_at, received_at and (except for a redirect) page_view_id, and
    its received_at is not before its block's.
    """
    doubtful = pl.Series([block.text for block in blocks], dtype=pl.Binary).bin.contains(_NUL)  # by far the fastest search
    events: list[StoredEvent] = []
    taken: list[AcceptedBlock] = []
    for block, in_doubt in zip(blocks, doubtful.to_list(), strict=True):
        found = None if in_doubt else _read_together(block)
        events += [_read_line(line, block) for line in block.text.split(b"\n")[:-1]] if found is None else found
        taken.append(block)
        if len(events) >= AT_ONCE:
            yield _by_column(events, taken)
            events, taken = [], []
    if taken:
        yield _by_column(events, taken)


def read_carefully(blocks: Sequence[AcceptedBlock], rehearse: Callable[[Decoded], object]) -> Decoded:
    """The lines of `blocks`. Each line is read on its own and put through `rehearse` alone (rule E6).

    A line that raises becomes malformed, with the exception's name as its reason; the other lines stay as they are.
    """
    events = []
    for block in blocks:
        for n, line in enumerate(block.text.split(b"\n")[:-1]):
            header = msgspec.structs.replace(block.header, first_line=block.header.first_line + n, lines=1)
            alone = block._replace(header=header, text=line + b"\n")
            received_at = block.header.received_at_ms
            try:
                event = _read_line(line, alone)
                received_at = event.received_at
                rehearse(_by_column([event], [alone]))
            except (MemoryError, NewerFormat):
                raise  # no fault of the line
            except ANY_FAILURE as exc:  # the fault is in this line, and the reason says so
                event = malformed_line(line, f"processing: {type(exc).__name__}", received_at)
            events.append(event)
    return _by_column(events, blocks)


def open_block(header: BlockHeader, message: bytes, reader: zstandard.ZstdDecompressor) -> bytes:
    """The NDJSON of a block, given its header and the whole envelope; `reader` is one of `frame_reader`.

    Raises:
        FrameInvalid: its frame cannot be opened, or does not hold the lines that its header states.
    """
    text = open_frame(frame_of(message), reader)
    count = text.count(b"\n")
    if count != header.lines or not text.endswith(b"\n"):
        raise FrameInvalid(f"block {header.block} of batch {header.batch_id} holds {count} lines, not {header.lines}")
    return text


def _by_column(events: Sequence[StoredEvent], blocks: Sequence[AcceptedBlock]) -> Decoded:
    return Decoded(dict(zip(_Stored.__struct_fields__, zip(*map(astuple, events), strict=True), strict=True)), blocks)


def _read_together(block: AcceptedBlock) -> list[StoredEvent] | None:
    """All lines of a block; None if a line must be read with more care."""
    try:
        events = _decoder.decode_lines(block.text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if len(events) != block.header.lines or min([e.received_at for e in events]) < block.header.received_at_ms:
        return None
    valid = [e for e in events if e.malformed is None]
    # Lists of one field are scanned in C, in a quarter of the time that a condition on each line takes.
    lacking = None in [e.event_id for e in valid] or None in [e.occurred_at for e in valid]
    lacking = lacking or None in [e.event_type for e in valid]
    if lacking or any([e.page_view_id is None and e.event_type not in _LOOSE for e in valid]):
        return None
    return events


def _read_line(line: bytes, block: AcceptedBlock) -> StoredEvent:
    """One stored line, or a malformed one in its place. Raises NewerFormat, see `read_stored_line`."""
    try:
        fields = read_stored_line(line)
    except NewerFormat as exc:
        raise NewerFormat(f"offset {block.offset}, batch {block.header.batch_id}: {exc}") from exc
    floor = block.header.received_at_ms
    received_at = fields["received_at"]
    if received_at is None:
        fields["received_at"] = floor
    elif received_at < floor:
        return malformed_line(line, "received_at: before its block's", floor)
    event: StoredEvent = _Stored(**fields)
    return event


def malformed_line(line: bytes, reason: str, received_at_ms: int) -> StoredEvent:
    """A line that is rejected with `reason`; of its fields it keeps only its text."""
    text = storable_text(line.decode(errors="replace"))
    event: StoredEvent = _Stored(received_at=received_at_ms, malformed=reason, payload=text)
    return event
