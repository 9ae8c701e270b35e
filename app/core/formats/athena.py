"""The tables of the bucket for Hive and Athena: their statements, made from the catalogue.

A table names a folder of the bucket and a reader of its files (a SerDe). Its partitions follow from the dates by partition
projection, so nobody registers them. Files with tabs and quotes are read by Hive's OpenCSVSerde, which knows texts only, so
each such table `<output>_files` has a view `<output>` with the catalogue's types. A text may hold a line break, and that
reader ends the row there: the row keeps its batch and line and loses the columns behind the break, and the views leave out
the rest of it, which names no transaction. The warehouse has such rows whole.

Sources: Athena User Guide, "Open CSV SerDe", "Avro SerDe", "Partition projection", "Querying DynamoDB exports".
"""

import json
from typing import Final, NamedTuple, assert_never

from app.core.formats.avro_schema import avro_schema
from app.core.formats.flows import OUTPUTS, Column, ColumnKind, Flow, Format
from app.core.whole_table import whole_table

REGISTRY: Final = "registry_exports"
RAW: Final = "raw_lines"
_AVRO: Final = frozenset({Format.AVRO_DEFLATE, Format.AVRO_NULL})
_AVRO_TYPES: Final = whole_table(ColumnKind, {
    ColumnKind.STRING: "string", ColumnKind.TIMESTAMP: "bigint", ColumnKind.INTEGER: "bigint", ColumnKind.BOOLEAN: "boolean",
})  # fmt: skip
_REGISTRY_FIELDS: Final = {
    "batch_id": "s", "epoch": "n", "line_count": "n", "byte_count": "n", "sha256": "s", "raw_key": "s", "received_at": "n",
    "state": "s", "attempts": "n",
}  # fmt: skip
"""Attribute of a registry item (`app.core.formats.registry_item`) -> its type in an export of DynamoDB."""


class Lake(NamedTuple):
    """Where the files lie, and where their tables are made."""

    database: str
    bucket: str
    first_day: str
    """YYYY-MM-DD: no file is older."""


class AthenaStatement(NamedTuple):
    """One statement."""

    name: str
    """The database, table or view that it makes."""
    sql: str


def statements(lake: Lake) -> list[AthenaStatement]:
    """Everything that makes the tables and views, in order. Running them again changes nothing but the views' texts."""
    made = [AthenaStatement(lake.database, f"CREATE DATABASE IF NOT EXISTS {lake.database}"), _raw(lake), _registry(lake)]
    for flow in OUTPUTS:
        made += [_files(lake, flow), _view(lake, flow)]
    return made


def _raw(lake: Lake) -> AthenaStatement:
    delimited = "ROW FORMAT DELIMITED FIELDS TERMINATED BY '\\001' LINES TERMINATED BY '\\n'"  # no JSON text has 001
    return _table(lake, RAW, "raw", ["`line` string"], f"{delimited}\nSTORED AS TEXTFILE")


def _registry(lake: Lake) -> AthenaStatement:
    fields = ",".join(f"{name}:struct<{kind}:string>" for name, kind in _REGISTRY_FIELDS.items())
    location = f"s3://{lake.bucket}/registry/"
    return AthenaStatement(REGISTRY, "\n".join([
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {lake.database}.{REGISTRY} (",
        f"  `item` struct<{fields}>",
        ")",
        "PARTITIONED BY (`export` string)",
        "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe' WITH SERDEPROPERTIES ('case.insensitive' = 'true')",
        f"LOCATION '{location}'",
        "TBLPROPERTIES (",
        "  'projection.enabled' = 'true', 'projection.export.type' = 'injected',",
        f"  'storage.location.template' = '{location}${{export}}/data/'",
        ")",
    ]))  # fmt: skip


def _files(lake: Lake, flow: Flow) -> AthenaStatement:
    """The table of a flow's files."""
    name, folder = f"{flow.name}_files", f"data/{flow.name}"
    if flow.format in _AVRO:
        columns = [f"`{column.name}` {_AVRO_TYPES[column.kind]}" for column in flow.columns]
        schema = json.dumps(avro_schema(flow.name), separators=(",", ":"))
        reader = f"{_serde('org.apache.hadoop.hive.serde2.avro.AvroSerDe')} ('avro.schema.literal' = '{schema}')"
        return _table(lake, name, folder, columns, f"{reader}\nSTORED AS AVRO")
    columns = [f"`{column.name}` string" for column in flow.columns]
    options = "('separatorChar' = '\\t', 'quoteChar' = '\"', 'escapeChar' = '\\0')"  # the files have no escape character
    reader = f"{_serde('org.apache.hadoop.hive.serde2.OpenCSVSerde')} {options}"
    return _table(lake, name, folder, columns, f"{reader}\nSTORED AS TEXTFILE")


def _serde(name: str) -> str:
    return f"ROW FORMAT SERDE '{name}' WITH SERDEPROPERTIES"


def _table(lake: Lake, name: str, folder: str, columns: list[str], reader: str) -> AthenaStatement:
    """A table of files in folders of an hour; `reader` says how they are read."""
    location, days = f"s3://{lake.bucket}/{folder}/", f"{lake.first_day},NOW+1DAY"
    return AthenaStatement(name, "\n".join([
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {lake.database}.{name} (",
        ",\n".join(f"  {column}" for column in columns),
        ")",
        "PARTITIONED BY (`dt` string, `hour` string)",
        reader,
        f"LOCATION '{location}'",
        "TBLPROPERTIES (",
        "  'projection.enabled' = 'true',",
        f"  'projection.dt.type' = 'date', 'projection.dt.format' = 'yyyy-MM-dd', 'projection.dt.range' = '{days}',",
        "  'projection.hour.type' = 'integer', 'projection.hour.range' = '0,23', 'projection.hour.digits' = '2',",
        f"  'storage.location.template' = '{location}dt=${{dt}}/hour=${{hour}}/'",
        ")",
    ]))  # fmt: skip


def _view(lake: Lake, flow: Flow) -> AthenaStatement:
    typed = _of_avro if flow.format in _AVRO else _of_text
    columns = ",\n".join(f"  {typed(column)} AS {_quoted(column.name)}" for column in flow.columns)
    return AthenaStatement(flow.name, "\n".join([
        f"CREATE OR REPLACE VIEW {lake.database}.{flow.name} AS",
        "SELECT",
        f"{columns},",
        "  dt,",
        "  hour",
        f"FROM {lake.database}.{flow.name}_files",
        "WHERE txn_id <> ''",
    ]))  # fmt: skip


def _quoted(name: str) -> str:
    return f'"{name}"'


def _of_text(column: Column) -> str:
    """A value that the reader of texts gives: the empty text is NULL."""
    name = _quoted(column.name)
    match column.kind:
        case ColumnKind.STRING:
            return f"nullif({name}, '')"
        case ColumnKind.TIMESTAMP:
            return f"try_cast({name} AS timestamp(6))"
        case ColumnKind.INTEGER:
            return f"try_cast({name} AS bigint)"
        case ColumnKind.BOOLEAN:
            return f"try_cast({name} AS boolean)"
        case _:
            assert_never(column.kind)


def _of_avro(column: Column) -> str:
    name = _quoted(column.name)
    match column.kind:
        case ColumnKind.STRING:
            return f"nullif({name}, '')"
        case ColumnKind.TIMESTAMP:
            return f"CAST(from_unixtime({name} / 1e3) AS timestamp(6))"
        case ColumnKind.INTEGER | ColumnKind.BOOLEAN:
            return name
        case _:
            assert_never(column.kind)
