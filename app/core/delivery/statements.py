"""Every SQL statement that delivery runs, as values; `schema.py` has those that make and change the tables.

Names come only from the closed catalogue of `app.core.formats.tables`. They are quoted, because Redshift reserves some of
them (`partition`).
COPY is literal text, for Redshift takes no bind parameters there; it names a role and never a key (rule D3).
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from app.core.formats.flows import DUPLICATE, Flow, Format
from app.core.formats.tables import BY_NAME, SCHEMA
from app.core.whole_table import whole_table
from app.errors import ConfigurationError

Parameter = str | int | datetime | None

NULL_TEXT: Final = r"\0"
"""NULL AS U+0000: no file has it, because the collector replaces it; the default `\\N` is text that a visitor could send."""
LOADED: Final = "loaded"
QUARANTINED: Final = "quarantined"
_SAFE_URL: Final = re.compile(r"s3://[A-Za-z0-9._-]+/[A-Za-z0-9._=/-]+")
SAFE_ROLE: Final = re.compile(
    r"default|arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+(,arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]+)*"
)
"""The allowed form of a COPY's role."""
SAFE_REGION: Final = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}")
"""The allowed form of a region's name."""
SAFE_SCHEMA: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""The allowed form of a schema's name."""
_NULLS: Final = rf" EMPTYASNULL NULL AS '{NULL_TEXT}'"
_FORMATS: Final = whole_table(Format, {
    Format.TSV_ZSTD: r"CSV DELIMITER '\t' ZSTD TIMEFORMAT 'auto'" + _NULLS,
    Format.TSV_GZIP: r"CSV DELIMITER '\t' GZIP TIMEFORMAT 'auto'" + _NULLS,
    Format.TSV_BZIP2: r"CSV DELIMITER '\t' BZIP2 TIMEFORMAT 'auto'" + _NULLS,
    Format.AVRO_DEFLATE: "FORMAT AS AVRO 'auto' TIMEFORMAT 'epochmillisecs'",
    Format.AVRO_NULL: "FORMAT AS AVRO 'auto' TIMEFORMAT 'epochmillisecs'",
})  # fmt: skip
"""The options of a file format. Avro has a NULL of its own: COPY refuses the rules for NULL there, which are about text."""


class Statement(NamedTuple):
    """SQL with `%s` for each parameter; without parameters it is sent as it is."""

    text: str
    parameters: tuple[Parameter, ...] = ()


class LogRow(NamedTuple):
    """A transaction as `delivery_log` has it."""

    txn_id: str
    epoch: int
    partition: int
    number: int
    status: str
    load_id: str
    rows: int
    stream_time: datetime | None
    """UTC without a zone, as the warehouse keeps it; None while the partition's time stands at nothing."""
    detail: str | None = None


def table(name: str, schema: str = SCHEMA) -> str:
    """A table of a schema, quoted; `name` is one of `TABLES`.

    Raises:
        ConfigurationError: it is none, or the schema's name has characters that do not belong in literal SQL.
    """
    if name not in BY_NAME:
        raise ConfigurationError(f"{name!r} is no table of schema {SCHEMA}")
    if not SAFE_SCHEMA.fullmatch(schema):
        raise ConfigurationError(f"{schema!r} is no name of a schema: a letter, then letters, digits and _, at most 63")
    return f'"{schema}"."{name}"'


def copy(flow: Flow, manifest_url: str, iam_role: str, region: str | None = None, schema: str = SCHEMA) -> Statement:
    """The COPY of one output from a manifest.

    Args:
        flow: the output, with the columns that its files have.
        manifest_url: the manifest in S3.
        iam_role: the role with which the warehouse reads S3, or `default`.
        region: the bucket's region; None where it is the warehouse's.
        schema: the schema of the table.

    Raises:
        ConfigurationError: bucket, role or region hold characters that do not belong in literal SQL.
    """
    if not _SAFE_URL.fullmatch(manifest_url) or not SAFE_ROLE.fullmatch(iam_role):
        raise ConfigurationError(f"not fit for a COPY statement: {manifest_url!r}, role {iam_role!r}")
    if region is not None and not SAFE_REGION.fullmatch(region):
        raise ConfigurationError(f"not fit for a COPY statement: region {region!r}")
    role = "default" if iam_role == "default" else f"'{iam_role}'"
    columns = ", ".join(f'"{name}"' for name in flow.names)
    return Statement(
        f"COPY {table(flow.name, schema)} ({columns}) FROM '{manifest_url}' IAM_ROLE {role} MANIFEST {_FORMATS[flow.format]}"
        + (f" REGION '{region}'" if region else "")
        + " MAXERROR 0 COMPUPDATE OFF STATUPDATE OFF"
    )


LOCK: Final = Statement(f"LOCK TABLE {table('delivery_log')}")
"""The first statement of every load: a session that waits for the lock sees afterwards all earlier commits (rule D1)."""

COPIED: Final = Statement("SELECT pg_last_copy_count()")


def positions(epoch: int) -> Statement:
    """Rows (partition, highest number decided)."""
    text = f'SELECT "partition", MAX(number) FROM {table("delivery_log")} WHERE epoch = %s GROUP BY "partition"'
    return Statement(text, (epoch,))


def insert_log(rows: Sequence[LogRow]) -> Statement:
    """Add transactions to delivery_log, in one statement: Redshift takes seconds for many small ones."""
    row = "(" + ", ".join(["%s"] * len(LogRow._fields)) + ")"
    columns = ", ".join(f'"{name}"' for name in LogRow._fields)
    text = f"INSERT INTO {table('delivery_log')} ({columns}) VALUES {', '.join([row] * len(rows))}"
    return Statement(text, tuple(value for values in rows for value in values))


def log_of(txn_id: str) -> Statement:
    """The row (status, load_id) of a transaction, if delivery has decided about it."""
    return Statement(f"SELECT status, load_id FROM {table('delivery_log')} WHERE txn_id = %s", (txn_id,))


def mark_released(txn_id: str, load_id: str) -> Statement:
    """Turn a quarantined transaction into a loaded one."""
    text = (
        f"UPDATE {table('delivery_log')} SET status = %s, load_id = %s, loaded_at = GETDATE() "
        "WHERE txn_id = %s AND status = %s"
    )
    return Statement(text, (LOADED, load_id, txn_id, QUARANTINED))


def count_rows(output: str, txn_id: str) -> Statement:
    """How many rows an output's table has of a transaction."""
    return Statement(f"SELECT COUNT(*) FROM {table(output)} WHERE txn_id = %s", (txn_id,))


def delete_rows(output: str, txn_id: str) -> Statement:
    """Delete the rows that an output's table has of a transaction: a repair loads its file again."""
    return Statement(f"DELETE FROM {table(output)} WHERE txn_id = %s", (txn_id,))


_UNDER_NUMBER: Final = 'epoch = %s AND "partition" = %s AND "number" = %s'


def log_rows(epoch: int, partition: int, number: int) -> Statement:
    """The rows of delivery_log under a number."""
    columns = ", ".join(f'"{name}"' for name in LogRow._fields)
    text = f"SELECT {columns} FROM {table('delivery_log')} WHERE {_UNDER_NUMBER}"
    return Statement(text, (epoch, partition, number))


def delete_log(epoch: int, partition: int, number: int) -> Statement:
    """Delete the rows of delivery_log under a number: a repair writes the right one."""
    return Statement(f"DELETE FROM {table('delivery_log')} WHERE {_UNDER_NUMBER}", (epoch, partition, number))


QUARANTINE: Final = Statement(
    f'SELECT txn_id, epoch, "partition", number, "rows", detail, loaded_at FROM {table("delivery_log")} '
    f"WHERE status = '{QUARANTINED}' ORDER BY epoch, \"partition\", number"
)
"""Every quarantined transaction."""


def ledger_of(batch_ids: Sequence[str]) -> Statement:
    """Rows (batch_id, txn_id, line_set) of what the ledger has of these batches."""
    places = ", ".join(["%s"] * len(batch_ids))
    text = f"SELECT batch_id, txn_id, line_set FROM {table('ledger')} WHERE batch_id IN ({places})"
    return Statement(text, tuple(batch_ids))


# --- rows of some batches, in the order of their ids: Redshift keeps one cursor a session


def rows_of_batches(flow: Flow, first_id: str, end_id: str) -> Statement:
    """The cursor over a flow's rows of the batches from `first_id` to before `end_id`, by batch and line."""
    columns = ", ".join(f'"{name}"' for name in flow.names)
    order = "batch_id, line" if "line" in flow.names else "batch_id"
    text = (
        f"DECLARE {_CURSOR} CURSOR FOR SELECT {columns} FROM {table(flow.name)} "
        f"WHERE batch_id >= %s AND batch_id < %s ORDER BY {order}"
    )
    return Statement(text, (first_id, end_id))


_CURSOR: Final = "instream_rows"


def fetch(rows: int) -> Statement:
    """The next rows of the cursor."""
    return Statement(f"FETCH FORWARD {rows:d} FROM {_CURSOR}")


def duplicates_of(first_id: str, end_id: str) -> Statement:
    """Rows (batch_id, line_set) of the ledger's duplicates in the batches from `first_id` to before `end_id`."""
    text = f"SELECT batch_id, line_set FROM {table('ledger')} WHERE outcome = %s AND batch_id >= %s AND batch_id < %s"
    return Statement(text, (DUPLICATE, first_id, end_id))


def delete_batches(name: str, schema: str, first_id: str, end_id: str) -> Statement:
    """Delete the rows of the batches from `first_id` to before `end_id` from a table of another schema."""
    text = f"DELETE FROM {table(name, schema)} WHERE batch_id >= %s AND batch_id < %s"
    return Statement(text, (first_id, end_id))


SESSION: Final = Statement("SELECT pg_backend_pid(), GETDATE()")
"""The session's process id, and the warehouse's time (UTC, whole seconds)."""

_LOAD_ERRORS: Final = {
    "sys_load_error_detail": (
        "SELECT query_id, file_name, line_number, column_name, error_code, error_message, '' FROM sys_load_error_detail "
        "WHERE session_id = %s AND start_time >= %s AND query_id > %s ORDER BY query_id DESC LIMIT 1"
    ),
    "stl_load_errors": (
        "SELECT query, filename, line_number, colname, err_code, err_reason, raw_field_value FROM stl_load_errors "
        "WHERE session = %s AND starttime >= %s AND query > %s ORDER BY query DESC LIMIT 1"
    ),
}
LOAD_ERROR_TABLES: Final = tuple(_LOAD_ERRORS)
"""The warehouse's tables of load errors, the better first.

Redshift Serverless refuses STL tables, and an old cluster has no SYS views. Source: Redshift Database Developer Guide,
"SYS_LOAD_ERROR_DETAIL" and "STL_LOAD_ERRORS".
"""


def load_error(system_table: str, pid: int, since: datetime, seen: int) -> Statement:
    """Rows (query, file, line, column, code, reason, value) of the newest load error of a session, at most one.

    Args:
        system_table: one of `LOAD_ERROR_TABLES`.
        pid: the session's process id.
        since: the session's beginning; the warehouse gives process ids of ended sessions to new ones.
        seen: the newest query of the session whose error is known already.
    """
    return Statement(_LOAD_ERRORS[system_table], (pid, since, seen))


_COLUMNS: Final = (
    "SELECT c.table_name, t.table_type, c.column_name, c.data_type, c.character_maximum_length, c.is_nullable, "
    "CASE WHEN c.column_default IS NULL THEN 0 ELSE 1 END FROM information_schema.columns c "
    "JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name "
    "WHERE c.table_schema = '{}' ORDER BY c.table_name, c.ordinal_position"
)
COLUMNS: Final = Statement(_COLUMNS.format(SCHEMA))
"""Every column of the schema's tables and views, in their order."""


def columns_of(schema: str) -> Statement:
    """The same of another schema."""
    table(BY_NAME["ledger"].name, schema)  # refuses a text that literal SQL cannot hold
    return Statement(_COLUMNS.format(schema))
