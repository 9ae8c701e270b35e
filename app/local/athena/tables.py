"""What a CREATE EXTERNAL TABLE of Hive says: the columns, the reader of its files, and where its partitions lie."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlglot import exp

from app.errors import ConfigurationError

_PLACE: Final = re.compile(r"s3://([^/]+)/(.*)")
_VARIABLE: Final = re.compile(r"\\\$\\\{(\w+)\\\}")
_DELIMITED: Final = "delimited"


class ExternalTable(NamedTuple):
    """A table over files."""

    name: str
    columns: dict[str, str]
    """Name -> type in DuckDB's words."""
    partitions: tuple[str, ...]
    """Names of the partition columns; all are texts."""
    bucket: str
    prefix: str
    """The keys of all files begin with it."""
    pattern: re.Pattern[str]
    """Matches the key of a file; a group for each partition column."""
    serde: str
    """The reader's class, or `delimited`."""
    options: Mapping[str, str]
    """The reader's properties."""


def read_table(statement: exp.Create) -> ExternalTable:
    """The table that a parsed statement makes.

    Raises:
        ConfigurationError: it says something that this stand-in does not know.
    """
    schema = statement.this
    name = schema.this.name
    found = _properties(statement)
    location = found.pop("location", "")
    partitioned = statement.find(exp.PartitionedByProperty)
    partitions = tuple(column.name for column in partitioned.this.expressions) if partitioned else ()
    template = found.get("storage.location.template", location)
    place = _PLACE.fullmatch(template)
    if place is None or found.get("projection.enabled") != "true" or not template.endswith("/"):
        raise ConfigurationError(f"table {name}: a location with partition projection is needed, not {template!r}")
    for partition in partitions:
        if f"${{{partition}}}" not in template or f"projection.{partition}.type" not in found:
            raise ConfigurationError(f"table {name}: partition {partition} has no projection")
    pattern = _VARIABLE.sub(_group(found), re.escape(place[2]))
    serde, options = _reader(statement)
    columns = {column.name: column.args["kind"].sql(dialect="duckdb") for column in schema.expressions}
    prefix = place[2].partition("${")[0]
    return ExternalTable(name, columns, partitions, place[1], prefix, re.compile(pattern + r"[^/]+"), serde, options)


def _group(properties: Mapping[str, str]) -> Any:
    """Replaces `${name}` by a group that matches the values of the column's projection."""
    kinds = {"date": r"\d{4}-\d{2}-\d{2}", "integer": r"\d+", "injected": ".+"}

    def group(found: re.Match[str]) -> str:
        kind = properties[f"projection.{found[1]}.type"]
        if kind not in kinds:
            raise ConfigurationError(f"projection of type {kind} is not known here")
        return f"(?P<{found[1]}>{kinds[kind]})"

    return group


def _properties(statement: exp.Create) -> dict[str, str]:
    """TBLPROPERTIES, and LOCATION as `location`."""
    found = {}
    for one in statement.args["properties"].expressions:
        if isinstance(one, exp.LocationProperty):
            found["location"] = one.this.name
        elif isinstance(one, exp.Property) and isinstance(one.this, exp.Literal) and type(one) is exp.Property:
            found[one.this.name] = one.args["value"].name
    return found


def _reader(statement: exp.Create) -> tuple[str, dict[str, str]]:
    serde = statement.find(exp.RowFormatSerdeProperty)
    if serde is None:
        return _DELIMITED, {}
    properties = serde.args.get("serde_properties")
    options = {one.this.name: one.args["value"].name for one in properties.expressions} if properties else {}
    return serde.this.name, options
