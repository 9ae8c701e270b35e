"""The catalogue of the warehouse's tables: one for each output of `flows.py`, and those that no file feeds.

Lengths of strings are bytes, times are UTC. Distribution keeps joined rows on one node (a page view, its ads and its
engagement share page_view_id); sorting makes the views' time ranges cheap.
"""

from typing import Final, NamedTuple

from app.core.formats.flows import OUTPUTS, Column, ColumnKind, Flow

SCHEMA: Final = "analytics"
DETAIL_BYTES: Final = 4096
LOADED_AT: Final = Column("loaded_at", ColumnKind.TIMESTAMP, default="GETDATE()")
"""The last column of every table that a load fills; no file has it."""


class Table(NamedTuple):
    """One table of schema `analytics`."""

    name: str
    columns: tuple[Column, ...]
    about: str
    """The meaning of a row."""
    sorted_by: str
    distributed_by: str = ""
    """The column whose equal values lie on one node; empty if rows are spread evenly."""
    on_every_node: bool = False
    """Whether each node has all rows: for tables that are small."""
    primary_key: tuple[str, ...] = ()
    """Redshift plans with it and does not enforce it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in the table's order."""
        return tuple(column.name for column in self.columns)


def table_of(flow: Flow) -> Table:
    """The table that the files of `flow` feed: the file's columns, and the time of the load."""
    return Table(flow.name, (*flow.columns, LOADED_AT), flow.about, flow.sorted_by, flow.distributed_by)


DELIVERY_LOG: Final = Table(
    "delivery_log",
    (
        Column("txn_id", max_bytes=64, required=True),
        Column("epoch", ColumnKind.INTEGER, integer_bytes=4, required=True),
        Column("partition", ColumnKind.INTEGER, integer_bytes=4, required=True),
        Column("number", ColumnKind.INTEGER, required=True),
        Column("status", max_bytes=16, required=True),
        Column("load_id", max_bytes=64),
        Column("rows", ColumnKind.INTEGER, required=True),
        Column("stream_time", ColumnKind.TIMESTAMP),
        Column("detail", max_bytes=DETAIL_BYTES),
        LOADED_AT,
    ),
    "what delivery has decided about a transaction: the walk goes on behind the highest number of a partition, and every "
    "load locks the table first; stream_time is how far the partition's time had come; rows counts all outputs",
    sorted_by="number", on_every_node=True, primary_key=("txn_id",),
)  # fmt: skip
SCHEMA_LOG: Final = Table(
    "schema_log",
    (
        Column("applied_at", ColumnKind.TIMESTAMP, required=True, default="GETDATE()"),
        Column("version", max_bytes=64, required=True),
        Column("statement", max_bytes=65535, required=True),
        Column("reason", max_bytes=1024, required=True),
    ),
    "a change that `instream init` made to the schema, with the version of the program; every change locks the table first",
    sorted_by="applied_at", on_every_node=True,
)  # fmt: skip

LOADED: Final = (*(table_of(flow) for flow in OUTPUTS), DELIVERY_LOG)
"""The tables that a load writes to."""
TABLES: Final = (*LOADED, SCHEMA_LOG)
"""All tables."""
BY_NAME: Final = {table.name: table for table in TABLES}
