"""Runs Athena's statements on DuckDB over the files of the bucket."""

import asyncio
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb
import sqlglot
from sqlglot import exp

from app.adapters.ports import ObjectStore
from app.errors import ConfigurationError
from app.local.athena.serdes import opened, reader_of
from app.local.athena.tables import ExternalTable, read_table

_READS: Final = 16
"""Files of one table that are read at once."""


class LocalAthena:
    """A database of tables and views; it begins empty, and its tables name the bucket of `objects`."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._tables: dict[str, ExternalTable] = {}
        self._views: dict[str, exp.Create] = {}

    async def run(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement. Returns: the rows of a query.

        Raises:
            ConfigurationError: it says something that the stand-in does not know.
            OutsideError: S3 does not answer.
        """
        statement = _parsed(sql)
        if isinstance(statement, exp.Query):
            return await self._query(statement)
        if not isinstance(statement, exp.Create):
            raise ConfigurationError(f"a statement {statement.key} is not known here")
        if statement.kind == "TABLE":
            table = read_table(statement)
            if table.bucket != self._objects.bucket:
                raise ConfigurationError(f"table {table.name} is of bucket {table.bucket}, not {self._objects.bucket}")
            self._tables.setdefault(table.name, table)
        elif statement.kind == "VIEW":
            self._views[statement.this.name] = statement
        return []

    async def _query(self, statement: exp.Query) -> list[dict[str, Any]]:
        views, tables = self._needed(statement)
        with TemporaryDirectory(prefix="instream-athena-") as folder, duckdb.connect() as database:
            for table in tables:
                await self._load(database, table, Path(folder) / f"{table.name}.json")
            for view in views:
                database.execute(_translated(view))
            try:
                found = await asyncio.to_thread(database.execute, _translated(statement))
            except duckdb.Error as exc:
                raise ConfigurationError(f"the query failed: {exc}") from exc
            names = [column[0] for column in found.description or []]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def _needed(self, statement: exp.Expr) -> tuple[list[exp.Create], list[ExternalTable]]:
        """The views that a statement reads, those that a view reads before it; and all tables."""
        views: dict[str, exp.Create] = {}
        tables: dict[str, ExternalTable] = {}
        local = {cte.alias for cte in statement.find_all(exp.CTE)}
        for name in {table.name for table in statement.find_all(exp.Table)} - local:
            if name in self._tables:
                tables[name] = self._tables[name]
            elif name in self._views:
                inner_views, inner_tables = self._needed(self._views[name].expression)
                views |= {view.this.name: view for view in inner_views} | {name: self._views[name]}
                tables |= {table.name: table for table in inner_tables}
            else:
                raise ConfigurationError(f"there is no table or view {name}: run `instream athena init`")
        return list(views.values()), list(tables.values())

    async def _load(self, database: duckdb.DuckDBPyConnection, table: ExternalTable, path: Path) -> None:
        """Read a table's files into the database."""
        reader, limit = reader_of(table.serde), asyncio.Semaphore(_READS)

        async def read(key: str) -> bytes:
            async with limit:
                return opened(key, await self._objects.get(key))

        keys = [info.key async for info in self._objects.list(table.prefix)]
        places = {key: found.groupdict() for key in keys if (found := table.pattern.fullmatch(key))}
        bodies = await asyncio.gather(*map(read, places))
        with path.open("w") as file:
            for (key, partitions), body in zip(places.items(), bodies, strict=True):
                about = partitions | {"$path": f"s3://{table.bucket}/{key}"}
                for row in reader(body, list(table.columns), table.options):
                    file.write(json.dumps(row | about) + "\n")
        columns = table.columns | dict.fromkeys([*table.partitions, "$path"], "VARCHAR")
        types = ", ".join(f"{json.dumps(name)}: '{kind}'" for name, kind in columns.items())
        source = f"read_json(?, columns = {{{types}}}, format = 'newline_delimited', maximum_object_size = 67108864)"
        database.execute(f"CREATE TABLE {table.name} AS SELECT * FROM {source}", [str(path)])


@cache
def _parsed(sql: str) -> exp.Expr:
    """A statement's tree, for reading only.

    Raises:
        ConfigurationError: it is not Athena's SQL.
    """
    try:
        return sqlglot.parse_one(sql, read="athena")
    except sqlglot.errors.ParseError as exc:
        raise ConfigurationError(f"this is not Athena's SQL: {exc}") from exc


def _translated(statement: exp.Expr) -> str:
    """The statement for DuckDB; the database's name is left out, because one database is all there is."""
    copy = statement.copy()
    for table in copy.find_all(exp.Table):
        table.set("db", None)
    return copy.sql(dialect="duckdb")
