r"""The files of a transaction: rows become a frame, and a frame the bytes of its flow's format.

TSV is CSV quoting with a tab between fields and LF behind every row, no header: Redshift's `CSV DELIMITER '\t'` and
PostgreSQL's csv format read it alike. A field is quoted when it holds a tab, a quote, CR or LF, or is the empty string; NULL
is the unquoted empty field; COPY loads both as NULL. Avro files have NULL for both, and carry the schemas of
`app.core.formats.avro_schema`. `app.core.formats.read_files` reads the files again.

The same rows give the same bytes for every writer, this one and that of kernels (`app.core.formats.kernel_files`): nothing
comes from a clock, a random source or a file name. Only the bytes of gzip and deflate may differ between kinds of
processors, because their library uses special instructions; unpacked they are the same.
"""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, compress
from typing import Final, NamedTuple

import fastavro
import numpy as np
import numpy.typing as npt
import polars as pl
from pyroaring import BitMap

from app.core.formats.avro_file import avro_file
from app.core.formats.avro_schema import schema_of
from app.core.formats.columns import DTYPES, refuse_unknown_values, schema_in, unpack_frame
from app.core.formats.decoding import refuse_unknown
from app.core.formats.file_codecs import TSV_CODECS
from app.core.formats.flows import (
    BY_NAME,
    DEAD_LETTERS,
    FLOWS,
    LEDGER,
    MAX_LINE_BITS,
    REPLAYS,
    Column,
    ColumnKind,
    Flow,
)
from app.core.formats.step_message import DeadLetter, LedgerEntry, Replay
from app.errors import FormatInvalid
from app.kernels.columns import FIRST_MS, LAST_MS

TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S%.6f"
_ZERO, _ONE = b"01"
_AVRO_ROWS_AT_ONCE: Final = 8192

RECEIVED: Final = "received_at"
"""The column that says when a row's line was received."""
Moments = npt.NDArray[np.int64]
"""Milliseconds since the epoch."""

MIN_TIMESTAMP_MS: Final = FIRST_MS
"""The years that both warehouses read from text are 1 to 9999."""
MAX_TIMESTAMP_MS: Final = LAST_MS

_FLOW_NAMES: Final = frozenset(flow.name for flow in FLOWS)


def frame_schema(output: str) -> dict[str, pl.DataType]:
    """Column -> type of an output's frame, in file order; timestamps are Int64 milliseconds since the epoch."""
    return {column.name: DTYPES[column.kind] for column in BY_NAME[output].columns}


class FlowFile(NamedTuple):
    """The file of one flow."""

    rows: int
    body: bytes
    received_ms: tuple[Moments, ...]
    """For each step, when those of its rows were received that say it."""


EncodeStreams = Callable[[str, Sequence[bytes], str], FlowFile]
"""`encode_streams`, by this module or by kernels."""


def encode_streams(output: str, streams: Sequence[bytes], txn_id: str) -> FlowFile:
    """The file of a flow's rows in `streams` (Arrow IPC streams, one a step), in their order; `txn_id` is filled in.

    Raises:
        NewerFormat, FormatInvalid: as `concat_rows`, and as `encode_output`.
    """
    frames = [read_rows(output, stream) for stream in streams]
    rows = _concat(output, frames, txn_id)
    return FlowFile(rows.height, encode_output(output, rows), tuple(map(received_in, frames)))


def received_in(frame: pl.DataFrame) -> Moments:
    """When the rows were received that say it."""
    if RECEIVED not in frame.columns:
        return np.empty(0, np.int64)
    column = frame[RECEIVED]
    received: Moments = (column.drop_nulls() if column.null_count() else column).to_numpy()
    return received


def concat_rows(output: str, streams: Iterable[bytes], txn_id: str) -> pl.DataFrame:
    """The rows of `streams` (Arrow IPC streams, one a step) in their order, as the frame that becomes one file.

    If a stream lacks a column, the values are NULL: its step was written before the column was added. A column that the flow
    does not have yet is left out if it holds no value. `txn_id` is filled in.

    Raises:
        FormatInvalid: a stream cannot be read, or holds a column of another type than the flow's.
        NewerFormat: a stream holds a value in a column that the flow does not have yet.
    """
    return _concat(output, [read_rows(output, stream) for stream in streams], txn_id)


def _concat(output: str, frames: Sequence[pl.DataFrame], txn_id: str) -> pl.DataFrame:
    schema = frame_schema(output)
    rows = pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema=schema)
    made = {name: pl.lit(None, dtype=kind) for name, kind in schema.items() if name not in rows.columns}
    made["txn_id"] = pl.lit(txn_id, dtype=pl.String)
    return rows.select(made[name].alias(name) if name in made else pl.col(name) for name in schema)


def read_rows(output: str, stream: bytes) -> pl.DataFrame:
    """The rows of one step, with those columns that its stream has.

    Raises: as `concat_rows`.
    """
    held, known = schema_in(stream), frame_schema(output)
    if wrong := {name: kind for name, kind in held.items() if name in known and known[name] != kind}:
        raise FormatInvalid(f"rows of {output} have columns of another type: {wrong}")
    return read_columns(output, stream)


def read_columns(output: str, stream: bytes) -> pl.DataFrame:
    """The columns of one step's rows that the flow has, of any type.

    Raises: as `concat_rows`.
    """
    known = BY_NAME[output].names
    refuse_unknown_values(f"rows of {output} with column", stream, known)
    held = schema_in(stream)
    return unpack_frame(stream, None if held.keys() <= set(known) else [name for name in held if name in known])


def refuse_unknown_rows(rows: Mapping[str, bytes]) -> None:
    """Check that the catalogue has every flow of a step's rows (flow -> Arrow IPC stream), and every column with a value.

    Raises:
        NewerFormat: it lacks one: a newer ETL wrote the rows, and without its column a row would not be whole (rule E10).
        FormatInvalid: a stream cannot be read.
    """
    refuse_unknown("step with rows of flow", rows, _FLOW_NAMES)
    for name, stream in rows.items():
        refuse_unknown_values(f"step with rows of {name} that have column", stream, BY_NAME[name].names)


def ledger_frame(entries: Sequence[LedgerEntry], txn_id: str) -> pl.DataFrame:
    """The frame of output `ledger`, a row an entry; an entry that spans more lines than line_bits holds is cut into rows.

    An entry whose set is no bitmap, or has another size than it says, stays as it is, without line_bits: the audit names it.
    """
    cut: list[tuple[LedgerEntry, int, BitMap, bytes]] = []
    for entry in entries:
        lines = _members(entry)
        if not lines or lines.max() - lines.min() < MAX_LINE_BITS:
            cut.append((entry, entry.lines, lines, entry.line_set))
            continue
        for start in range(lines.min(), lines.max() + 1, MAX_LINE_BITS):
            if part := lines & BitMap(range(start, start + MAX_LINE_BITS)):
                cut.append((entry, len(part), part, part.serialize()))
    firsts = [lines.min() if lines else None for _, _, lines, _ in cut]
    lasts = [lines.max() if lines else None for _, _, lines, _ in cut]
    columns = {
        "txn_id": [txn_id] * len(cut), "batch_id": [entry.batch_id for entry, *_ in cut],
        "outcome": [entry.outcome for entry, *_ in cut], "lines": [count for _, count, *_ in cut],
        "line_set": [base64.b64encode(packed).decode() for *_, packed in cut], "first_line": firsts, "last_line": lasts,
        "line_bits": _line_bits([lines for _, _, lines, _ in cut]),
    }  # fmt: skip
    return pl.DataFrame(columns, schema=frame_schema(LEDGER.name))


def _members(entry: LedgerEntry) -> BitMap:
    """The lines of an entry; none if it is damaged."""
    try:
        lines = BitMap.deserialize(entry.line_set)
    except ValueError:
        return BitMap()
    return lines if len(lines) == entry.lines else BitMap()


def _line_bits(sets: Sequence[BitMap]) -> list[str | None]:
    """For each set a character for each line from its first to its last: 1 if the set has it, else 0; None for no lines."""
    spans = [lines.max() - lines.min() + 1 if lines else 0 for lines in sets]
    starts = [0, *accumulate(spans)]
    shifts = [start - lines.min() if lines else 0 for start, lines in zip(starts, sets, strict=False)]
    lines = np.frombuffer(b"".join(lines.to_array() for lines in sets), np.uint32)
    bits = np.full(starts[-1], _ZERO, np.uint8)
    bits[lines + np.repeat(np.array(shifts, np.int64), [len(lines) for lines in sets])] = _ONE
    text = bits.tobytes().decode()
    return [text[start : start + span] if span else None for start, span in zip(starts, spans, strict=False)]


def replays_frame(replays: Sequence[Replay], txn_id: str) -> pl.DataFrame:
    """The frame of output `replays`, one row for each known block."""
    columns = {
        "txn_id": [txn_id] * len(replays), "batch_id": [replay.batch_id for replay in replays],
        "block": [replay.block for replay in replays], "attempt": [replay.attempt for replay in replays],
    }  # fmt: skip
    return pl.DataFrame(columns, schema=frame_schema(REPLAYS.name))


def dead_letters_frame(letters: Sequence[DeadLetter], txn_id: str) -> pl.DataFrame:
    """The frame of output `dead_letters`, one row for each unreadable source message."""
    columns = {
        "txn_id": [txn_id] * len(letters), "batch_id": [letter.batch_id for letter in letters],
        "block": [letter.block for letter in letters], "attempt": [letter.attempt for letter in letters],
        "source_offset": [letter.offset for letter in letters], "reason": [letter.reason for letter in letters],
    }  # fmt: skip
    return pl.DataFrame(columns, schema=frame_schema(DEAD_LETTERS.name))


def encode_output(output: str, frame: pl.DataFrame) -> bytes:
    """The file of an output.

    Args:
        output: name of one of `app.core.formats.flows.OUTPUTS`.
        frame: DataFrame[n rows] with exactly the columns and types of `frame_schema(output)`.

    Returns: the file's bytes in the flow's format and codec; a valid file without rows if the frame has none.

    Raises:
        FormatInvalid: the frame has other columns or types, or a timestamp outside the years 1 to 9999.

    Guarantees: the same rows give the same bytes, gzip's on one kind of processor.
    """
    flow = BY_NAME[output]
    if list(frame.schema.items()) != list(frame_schema(output).items()):
        raise FormatInvalid(f"rows of {output} do not have its columns: {dict(frame.schema)}")
    pack = TSV_CODECS[flow.format]
    return _avro(flow, frame) if pack is None else pack(_tsv(flow, frame))


# --- TSV


def _as_text(column: Column) -> pl.Expr:
    """A column for `write_csv`: timestamps as datetimes, other columns unchanged."""
    name = pl.col(column.name)
    return name.cast(pl.Datetime("ms")) if column.kind is ColumnKind.TIMESTAMP else name


def _tsv(flow: Flow, frame: pl.DataFrame) -> bytes:
    times = [column.name for column in flow.columns if column.kind is ColumnKind.TIMESTAMP]
    outside = [name for name in times if not frame[name].drop_nulls().is_between(MIN_TIMESTAMP_MS, MAX_TIMESTAMP_MS).all()]
    if outside:
        raise FormatInvalid(f"rows of {flow.name} have times outside the years 1 to 9999: {', '.join(outside)}")
    text = io.BytesIO()  # a str costs half as much again
    frame.select(_as_text(column) for column in flow.columns).write_csv(
        text, include_header=False, separator="\t", line_terminator="\n", quote_char='"', quote_style="necessary",
        null_value="", datetime_format=TIME_FORMAT,
    )  # fmt: skip
    return text.getvalue()


# --- Avro


def _avro(flow: Flow, frame: pl.DataFrame) -> bytes:
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    empty = frame.select((pl.col(name) == "").any() for name in texts).row(0)  # COPY makes NULL of it only in text files
    nulls = frame.with_columns(pl.col(name).replace("", None) for name in compress(texts, empty))
    schema, records, ends = schema_of(flow.name), io.BytesIO(), list[int]()
    for piece in nulls.iter_slices(_AVRO_ROWS_AT_ONCE):
        for record in piece.iter_rows(named=True):
            fastavro.schemaless_writer(records, schema, record)
            ends.append(records.tell())
    return avro_file(flow.name, records.getbuffer(), ends)
