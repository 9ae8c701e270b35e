"""The rows of a transaction's files again; `app.core.formats.flow_files` wrote them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import fastavro
import polars as pl
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType

from app.core.formats.avro_schema import schema_of
from app.core.formats.columns import DTYPES, nothing
from app.core.formats.decoding import reading, refuse_newer
from app.core.formats.file_codecs import DECOMPRESS
from app.core.formats.flow_files import TIME_FORMAT, frame_schema
from app.core.formats.flows import BY_NAME, ColumnKind, Flow


def decode_output(output: str, body: bytes, version: int | None = None) -> pl.DataFrame:
    """The rows of a file that `encode_output` wrote.

    Args:
        output: name of one of `app.core.formats.flows.OUTPUTS`.
        body: the file.
        version: the version of its columns, from its record; None for today's. Columns that came later are NULL.

    Raises:
        FormatInvalid: the bytes are no such file.
        NewerFormat: its columns are of a newer version.
    """
    flow = BY_NAME[output]
    refuse_newer(f"file with columns of {output}", version or flow.version, flow.version)
    with reading(f"{flow.format.value} of {output}, {len(body)} bytes,"), avro_errors():
        if not body:
            raise EOFError("nothing there")
        if (decompress := DECOMPRESS[flow.format]) is not None:
            held = flow.at(version or flow.version)
            return _with_all_columns(flow, _read_tsv(held, decompress(body)))
        records = cast(list[dict[str, Any]], list(fastavro.reader(io.BytesIO(body), schema_of(output))))
        columns = {name: [record[name] for record in records] for name in flow.names}
        return pl.DataFrame(columns, schema=frame_schema(output))


@contextmanager
def avro_errors() -> Iterator[None]:
    """Turn those errors of fastavro that derive from Exception alone into a ValueError, which `reading` knows."""
    try:
        yield
    except (SchemaParseException, SchemaResolutionError, UnknownType) as exc:
        raise ValueError(str(exc)) from exc


def _with_all_columns(flow: Flow, held: pl.DataFrame) -> pl.DataFrame:
    schema = frame_schema(flow.name)
    return pl.DataFrame([held[n] if n in held.columns else nothing(n, kind, held.height) for n, kind in schema.items()])


def _read_tsv(flow: Flow, text: bytes) -> pl.DataFrame:
    if not text:
        return pl.DataFrame(schema={column.name: DTYPES[column.kind] for column in flow.columns})
    kinds = {
        column.name: pl.String() if column.kind is ColumnKind.TIMESTAMP else DTYPES[column.kind] for column in flow.columns
    }
    frame = pl.read_csv(text, separator="\t", has_header=False, schema=kinds, quote_char='"')
    times = [
        pl.col(column.name).str.to_datetime(TIME_FORMAT, time_unit="ms").cast(pl.Int64)
        for column in flow.columns if column.kind is ColumnKind.TIMESTAMP
    ]  # fmt: skip
    return frame.with_columns(times)
