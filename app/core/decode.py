"""From the blocks of a step to one table of their lines (rule J1).

Stored lines are canonical JSON with typed fields, so a whole step is read by one columnar call. Where that fails or leaves a
doubt, the block goes line by line: what is no stored line becomes a malformed line with a reason and fails no neighbour.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl

from app.core.block import BlockHeader, frame_of, open_frame
from app.core.canonical import storable_text
from app.core.event_fields import EVENT_TYPES, STORED_FIELDS
from app.core.events import read_stored_line
from app.core.flows import Kind
from app.errors import FrameInvalid

_DTYPES: Final[dict[Kind, type[pl.DataType]]] = {
    Kind.STRING: pl.String,
    Kind.INTEGER: pl.Int64,
    Kind.TIMESTAMP: pl.Int64,
    Kind.BOOLEAN: pl.Boolean,
}
STORED_SCHEMA: Final = {name: _DTYPES[kind]() for name, kind in STORED_FIELDS.items()}
_READ_SCHEMA: Final = {name: dtype for name, dtype in STORED_SCHEMA.items() if name != "payload_b64"}
_DOUBTFUL: Final = (b"\\u0000", b"\\ud", b"\\uD")
"""Escapes that the columnar reader gets wrong in silence: NUL, and halves of surrogate pairs."""
ANY_FAILURE: Final = (Exception, pl.exceptions.PanicException)
"""What working on bad input may raise: a panic in polars is no Exception, and would pass by every `except Exception`."""


class AcceptedBlock(NamedTuple):
    """A block that the step takes, with the partition's time at its place in the log."""

    header: BlockHeader
    offset: int
    text: bytes
    """Its lines: NDJSON, `header.lines` of them."""
    stream_time_ms: int

    @property
    def stored_ms(self) -> int:
        """What `seen`, `blocks` and `views` remember as its time (rule E7)."""
        return max(self.stream_time_ms, self.header.received_at_ms)


class Lines(NamedTuple):
    """Every line of a step's blocks, in log order."""

    frame: pl.DataFrame
    """[n lines]: the stored schema less payload_b64, then `block` (index in `blocks`) and `line` (in its batch)."""
    blocks: Sequence[AcceptedBlock]
    texts: Sequence[bytes]
    """Of each block its NDJSON."""


def read_blocks(blocks: Sequence[AcceptedBlock]) -> Lines:
    """The lines of `blocks`.

    Args:
        blocks: in log order.

    Guarantees: each block yields exactly `header.lines` rows, numbered from `header.first_line`; every row is either
    malformed, with a reason, or has event_id, a known event_type, occurred_at, received_at and (but for a redirect)
    page_view_id, and was not received before its block says.

    """
    texts = [block.text for block in blocks]
    frame = _read_columns(b"".join(texts), blocks)
    if frame is None:
        each = [_read_columns(text, [block]) for text, block in zip(texts, blocks, strict=True)]
        frame = pl.concat([
            _read_lines(text, block) if columns is None else columns
            for text, block, columns in zip(texts, blocks, each, strict=True)
        ])  # fmt: skip
    return Lines(_number(frame, blocks), blocks, texts)


def read_carefully(blocks: Sequence[AcceptedBlock], rehearse: Callable[[Lines], object]) -> Lines:
    """The lines of `blocks`, each read on its own and put through `rehearse` alone (rule E6).

    A line that raises in either is malformed, with the exception's name as its reason; its neighbours stay what they are.
    """
    texts = [block.text for block in blocks]
    rows = []
    for block, text in zip(blocks, texts, strict=True):
        for n, line in enumerate(text.split(b"\n")[:-1]):
            header = msgspec.structs.replace(block.header, first_line=block.header.first_line + n, lines=1)
            alone = block._replace(header=header)
            received_at = block.header.received_at_ms
            try:
                row = _read_lines(line + b"\n", alone)
                received_at = row["received_at"].item()
                rehearse(Lines(_number(row, [alone]), [alone], [line + b"\n"]))
            except MemoryError:
                raise  # that is nobody's line
            except ANY_FAILURE as exc:  # whatever it is, it is this line's fault, and the reason says so
                reason = f"processing: {type(exc).__name__}"
                row = pl.DataFrame([malformed_line(line, reason, received_at)], schema=_READ_SCHEMA, orient="row")
            rows.append(row)
    return Lines(_number(pl.concat(rows), blocks), blocks, texts)


def open_block(header: BlockHeader, message: bytes) -> bytes:
    """The NDJSON of a block, given its header and the whole envelope.

    Raises:
        FrameInvalid: its frame cannot be opened, or does not hold the lines that its header states.
    """
    text = open_frame(frame_of(message))
    count = text.count(b"\n")
    if count != header.lines or not text.endswith(b"\n"):
        raise FrameInvalid(f"block {header.block} of batch {header.batch_id} holds {count} lines, not {header.lines}")
    return text


def _number(frame: pl.DataFrame, blocks: Sequence[AcceptedBlock]) -> pl.DataFrame:
    """`frame` with each line's block and number."""
    firsts = [block.header.first_line for block in blocks]
    ends = [block.header.first_line + block.header.lines for block in blocks]
    spans = pl.DataFrame({"block": range(len(blocks)), "first": firsts, "end": ends})
    return frame.hstack(spans.select("block", pl.int_ranges("first", "end").alias("line")).explode("line"))


def _read_columns(text: bytes, blocks: Sequence[AcceptedBlock]) -> pl.DataFrame | None:
    """All lines by column; None where a line may not be what it seems."""
    if b"\\u" in text and any(escape in text for escape in _DOUBTFUL):  # one search where there is none
        return None
    try:
        frame = pl.read_ndjson(text, schema=_READ_SCHEMA)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    if frame.height != sum(block.header.lines for block in blocks):
        return None
    earliest = min(block.header.received_at_ms for block in blocks)
    if len(blocks) > 1:
        floors = pl.Series([b.header.received_at_ms for b in blocks]).gather(
            pl.Series([n for n, b in enumerate(blocks) for _ in range(b.header.lines)], dtype=pl.UInt32)
        )
    else:
        floors = pl.Series([earliest])
    named = pl.col("event_id").is_not_null() & pl.col("occurred_at").is_not_null()
    placed = pl.col("page_view_id").is_not_null() | (pl.col("event_type") == "redirect")
    typed = pl.col("event_type").is_in(EVENT_TYPES) & placed
    complete = pl.col("malformed").is_not_null() | (named & typed)
    fits = frame.select((complete & (pl.col("received_at") >= floors)).fill_null(value=False).all()).item()
    return frame if fits else None


def _read_lines(text: bytes, block: AcceptedBlock) -> pl.DataFrame:
    """All lines of one block, each on its own."""
    return pl.DataFrame([_read_line(line, block) for line in text.split(b"\n")[:-1]], schema=_READ_SCHEMA, orient="row")


def _read_line(line: bytes, block: AcceptedBlock) -> dict[str, Any]:
    """One stored line, or a malformed one in its place."""
    fields = read_stored_line(line)
    floor = block.header.received_at_ms
    received_at = fields["received_at"]
    if received_at is None:
        fields["received_at"] = floor
    elif received_at < floor:
        return malformed_line(line, "received_at: before its block's", floor)
    return {name: fields[name] for name in _READ_SCHEMA}


def malformed_line(line: bytes, reason: str, received_at_ms: int) -> dict[str, Any]:
    """The row of a line that is rejected with `reason`; it says nothing of itself but its text."""
    blank: dict[str, Any] = dict.fromkeys(_READ_SCHEMA)
    payload = storable_text(line.decode(errors="replace"))
    return {**blank, "malformed": reason, "payload": payload, "received_at": received_at_ms}
