"""The readers of files (SerDes), as Hive's behave: a file's bytes to rows."""

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import fastavro
import zstandard

from app.errors import ConfigurationError

Row = dict[str, Any]
Reader = Callable[[bytes, Sequence[str], Mapping[str, str]], Iterator[Row]]
"""Reads the bytes of one file, given the table's columns and the reader's properties."""


def opened(key: str, body: bytes) -> bytes:
    """A text file unpacked by its ending, as Athena does it; other files are as they are."""
    if key.endswith(".zst"):
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
            return reader.read()
    if key.endswith(".gz"):
        return gzip.decompress(body)
    return bz2.decompress(body) if key.endswith(".bz2") else body


def read_lines(body: bytes, columns: Sequence[str], _: Mapping[str, str]) -> Iterator[Row]:
    """LazySimpleSerDe with a separator that no line has: the first column is the line."""
    for line in body.decode(errors="replace").split("\n")[:-1]:
        yield {columns[0]: line}


def read_csv(body: bytes, columns: Sequence[str], options: Mapping[str, str]) -> Iterator[Row]:
    """OpenCSVSerde: a line is a row, whatever quotes are open; columns that a line lacks are NULL, others are texts."""
    separator, quote = options["separatorChar"], options["quoteChar"]
    for line in body.decode(errors="replace").split("\n")[:-1]:
        values = next(csv.reader([line], delimiter=separator, quotechar=quote, doublequote=True), [])
        yield dict(zip(columns, values, strict=False))


def read_json(body: bytes, columns: Sequence[str], _: Mapping[str, str]) -> Iterator[Row]:
    """OpenX's JsonSerDe: one object a line; keys in lower case, those that the table lacks are passed over."""
    for line in body.splitlines():
        found = _lower(json.loads(line))
        yield {name: found.get(name) for name in columns}


def read_avro(body: bytes, columns: Sequence[str], options: Mapping[str, str]) -> Iterator[Row]:
    """AvroSerDe: by the schema of the table, which resolves that of the file."""
    for record in fastavro.reader(io.BytesIO(body), json.loads(options["avro.schema.literal"])):
        yield {name: record[name] for name in columns}  # type: ignore[index,call-overload]


READERS: Final[Mapping[str, Reader]] = {
    "delimited": read_lines,
    "org.apache.hadoop.hive.serde2.OpenCSVSerde": read_csv,
    "org.openx.data.jsonserde.JsonSerDe": read_json,
    "org.apache.hadoop.hive.serde2.avro.AvroSerDe": read_avro,
}


def reader_of(serde: str) -> Reader:
    """The reader of a class.

    Raises:
        ConfigurationError: this stand-in has none.
    """
    if serde not in READERS:
        raise ConfigurationError(f"SerDe {serde} is not known here: {', '.join(READERS)}")
    return READERS[serde]


def _lower(value: Any) -> Any:
    return {name.lower(): _lower(member) for name, member in value.items()} if isinstance(value, dict) else value
