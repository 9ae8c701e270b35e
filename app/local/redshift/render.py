"""Rows that PostgreSQL reads in another way than Redshift: Avro, and CSV with other NULL or time rules.

They are rendered to PostgreSQL's CSV, in which an unquoted empty field is NULL.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, NamedTuple

import fastavro
import msgspec

from app.core.formats.decoding import reading
from app.core.formats.read_files import avro_errors
from app.errors import FormatInvalid
from app.local.redshift.copy_statement import CopyStatement
from app.local.redshift.files import FileRejected, LoadFailed, whole
from app.local.redshift.sql_tokens import quote
from app.local.redshift.wire import error_of

_ROWS_AT_ONCE: Final = 2000
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - the warehouse's timestamps have no zone
_AVRO_BLOCK_BYTES: Final = 4 << 20
"""Largest data block of an Avro file. Source: Redshift Developer Guide, "Data format parameters", AVRO."""


class TargetColumn(NamedTuple):
    """A column that a COPY fills."""

    name: str
    type: str

    @property
    def is_text(self) -> bool:
        """Whether an empty field can be anything but NULL."""
        return self.type.startswith(("character", "text"))


def failed(copy: CopyStatement, error: FileRejected) -> LoadFailed:
    """The failure of a load because of a file's content."""
    text = f"Load into table '{copy.table[-1]}' failed.  Check 'sys_load_error_detail' system table for details."
    return LoadFailed(error_of("XX000", text), error)


def postgres_reads(copy: CopyStatement) -> bool:
    """Whether PostgreSQL reads this COPY's files as they are: only the empty field text has a special meaning."""
    plain_null = copy.null_as == "" or "\0" in copy.null_as
    return copy.format == "csv" and plain_null and copy.time_format == "auto" and not copy.blanks_as_null


def copy_sql(copy: CopyStatement, columns: Sequence[TargetColumn]) -> str:
    """The COPY that PostgreSQL executes for one file."""
    names = ", ".join(quote(column.name) for column in columns)
    as_is = postgres_reads(copy)
    delimiter, quoting = (copy.delimiter, copy.quote) if as_is else ("\t", '"')
    options = ["FORMAT csv", f"DELIMITER {_e(delimiter)}", f"QUOTE {_e(quoting)}", "NULL ''", "ENCODING 'UTF8'"]
    if as_is and (copy.empty_as_null or copy.null_as == ""):
        options.append(f"FORCE_NULL ({names})")
    elif as_is:
        text = ", ".join(quote(column.name) for column in columns if column.is_text)
        options += [f"FORCE_NOT_NULL ({text})"] if text else []
    return f"COPY {copy.target} ({names}) FROM STDIN ({', '.join(options)})"


def _e(text: str) -> str:
    return "E'" + "".join(f"\\x{byte:02x}" for byte in text.encode()) + "'"


def rendered(copy: CopyStatement, columns: Sequence[TargetColumn], pieces: Iterator[bytes], url: str) -> Iterator[bytes]:
    """The rows of one file as PostgreSQL's CSV.

    Raises:
        LoadFailed: the file is not in its format, or a value not of its column's type.
    """
    rows = _avro_rows(copy, columns, pieces, url) if copy.format == "avro" else _csv_rows(copy, columns, pieces, url)
    number = 0
    while batch := list(islice(rows, _ROWS_AT_ONCE)):
        lines = []
        for row in batch:
            number += 1
            lines.append("\t".join(_field(copy, *pair, url, number) for pair in zip(columns, row, strict=True)))
        yield ("\n".join(lines) + "\n").encode()


def _field(copy: CopyStatement, column: TargetColumn, value: object, url: str, number: int) -> str:
    """One value as a CSV field by the statement's NULL and time rules."""
    if value is None or (copy.format == "csv" and isinstance(value, str) and _is_null(copy, column, value)):
        return ""
    if isinstance(value, bool):
        return "t" if value else "f"
    if column.type.startswith("timestamp") and copy.time_format != "auto":
        return _moment(copy, column, value, url, number)
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return _quoted(msgspec.json.encode(value).decode())
    return _quoted(value)


def _is_null(copy: CopyStatement, column: TargetColumn, value: str) -> bool:
    """Whether a text stands for NULL by the statement's rules."""
    empty = value == "" and (copy.empty_as_null or not column.is_text)
    return empty or value == copy.null_as or (copy.blanks_as_null and not value.strip())


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _moment(copy: CopyStatement, column: TargetColumn, value: Any, url: str, number: int) -> str:
    """A timestamp from seconds or milliseconds since the epoch."""
    unit = "milliseconds" if copy.time_format == "epochmillisecs" else "seconds"
    try:
        if isinstance(value, datetime):  # Redshift does not know this logical type: it sees the number
            return str(value.astimezone(UTC).replace(tzinfo=None))
        return (_EPOCH + timedelta(**{unit: int(value)})).isoformat(" ", "microseconds")
    except (ValueError, TypeError, OverflowError) as exc:
        raise failed(copy, FileRejected(
            filename=url, line_number=number, colname=column.name, type=column.type, err_code=1206,
            raw_field_value=str(value)[:1024], err_reason=f"Invalid timestamp format or value [{copy.time_format}]",
        )) from exc  # fmt: skip


def _avro_rows(
    copy: CopyStatement, columns: Sequence[TargetColumn], pieces: Iterator[bytes], url: str
) -> Iterator[list[Any]]:
    """The records of an Avro file by name; a column without a field is NULL, a field without a column ignored."""
    fold = copy.avro_match == "auto ignorecase"
    number = 0
    try:
        with reading("Avro file"), avro_errors():
            for block in fastavro.block_reader(whole(pieces)):
                if block.size > _AVRO_BLOCK_BYTES:
                    raise FormatInvalid("Avro data block is larger than 4 MB")
                for record in block:
                    number += 1
                    if not isinstance(record, dict):
                        raise FormatInvalid("Avro schema is no record")
                    named = {name.lower(): value for name, value in record.items()} if fold else record
                    yield [named.get(column.name) for column in columns]
    except FormatInvalid as exc:
        raise failed(copy, FileRejected(filename=url, line_number=number, err_code=1225, err_reason=str(exc))) from exc


def _csv_rows(
    copy: CopyStatement, columns: Sequence[TargetColumn], pieces: Iterator[bytes], url: str
) -> Iterator[list[str]]:
    """The fields of a CSV file."""
    number = 0
    try:
        text = io.TextIOWrapper(whole(pieces), encoding="utf-8", newline="")
        for row in csv.reader(text, delimiter=copy.delimiter, quotechar=copy.quote, strict=True):
            number += 1
            if len(row) != len(columns):
                reason = "Extra column(s) found" if len(row) > len(columns) else "Delimiter not found"
                raise failed(copy, FileRejected(filename=url, line_number=number, err_code=1202, err_reason=reason))
            yield row
    except (csv.Error, UnicodeDecodeError) as exc:
        raise failed(copy, FileRejected(filename=url, line_number=number + 1, err_code=1214, err_reason=str(exc))) from exc
