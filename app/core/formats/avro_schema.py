"""The Avro schemas of the flows that are written as Avro, made from the catalogue.

Warehouses map Avro fields to columns by name. Timestamps are plain longs, milliseconds since the epoch: COPY reads them with
TIMEFORMAT 'epochmillisecs', and does not know Avro's logical types. Every field may be null and is null by default, so a
reader of today finds NULL if a file of an older version lacks the field.
"""

from functools import cache
from typing import Any, Final

import fastavro

from app.core.formats.flows import BY_NAME, Column, ColumnKind
from app.core.whole_table import whole_table

NAMESPACE: Final = "instream"
_TYPES: Final = whole_table(ColumnKind, {
    ColumnKind.STRING: "string", ColumnKind.TIMESTAMP: "long", ColumnKind.INTEGER: "long", ColumnKind.BOOLEAN: "boolean",
})  # fmt: skip
_DOCS: Final = {ColumnKind.TIMESTAMP: "milliseconds since the epoch, UTC"}


def avro_schema(flow: str, version: int | None = None) -> dict[str, Any]:
    """The schema of `flow` as a JSON value: of the given version, by default the newest."""
    columns = BY_NAME[flow].columns
    newest = BY_NAME[flow].version if version is None else version
    fields = [_field(column) for column in columns if column.since <= newest]
    return {"type": "record", "name": flow, "namespace": NAMESPACE, "fields": fields}


@cache
def schema_of(flow: str) -> Any:
    """The schema that `flow` is written and read with, parsed by fastavro: the same text in every process.

    fastavro leaves the keys of a field in the order of a set, and this order differs between processes.
    """
    parsed: Any = fastavro.parse_schema(avro_schema(flow))
    parsed["fields"] = [dict(sorted(field.items())) for field in parsed["fields"]]
    return parsed


def _field(column: Column) -> dict[str, Any]:
    field = {"name": column.name, "type": ["null", _TYPES[column.kind]], "default": None}
    return field | {"doc": _DOCS[column.kind]} if column.kind in _DOCS else field
