"""The tables' SQL: that of version 1 word for word, and for every change what Redshift takes."""

import pytest

from app.core.delivery import schema
from app.core.delivery.schema import create_table
from app.core.delivery.statements import LogRow
from app.core.formats.flows import OUTPUTS, Column, ColumnKind
from app.core.formats.tables import BY_NAME, DELIVERY_LOG, LOADED, LOADED_AT, SCHEMA_LOG, TABLES, Table
from app.errors import ConfigurationError
from app.local.redshift import alter
from app.local.redshift.sql_tokens import Token, statements
from app.sql import views
from tests.worlds.warehouse_schema import VERSION_1


def words(tokens: list[Token]) -> list[str]:
    """A CREATE TABLE but for quotes, and for IF NOT EXISTS, which the plan needs no more."""
    found = [token.upper or token.value.upper() for token in tokens]
    return found[:2] + (found[5:] if found[2:5] == ["IF", "NOT", "EXISTS"] else found[2:])


def of_version_1() -> dict[str, list[str]]:
    made = [tokens for tokens in statements((VERSION_1 / "tables.sql").read_text()) if tokens[1].upper == "TABLE"]
    return {tokens[7].value: words(tokens) for tokens in made}


def without_added(table: Table) -> Table:
    return table._replace(columns=tuple(column for column in table.columns if column.since == 1))


def test_tables_are_made_as_the_text_of_version_1_made_them() -> None:
    """Tables that came later, and columns that say so, are left out."""
    old = of_version_1()
    made = {table.name: words(statements(create_table(without_added(table)))[0]) for table in TABLES if table.name in old}
    assert made == old


def test_every_output_has_a_table_with_its_columns_and_the_time_of_the_load() -> None:
    for flow in OUTPUTS:
        assert BY_NAME[flow.name].columns == (*flow.columns, LOADED_AT)
    assert [table.name for table in LOADED] == [flow.name for flow in OUTPUTS] + [DELIVERY_LOG.name]
    assert DELIVERY_LOG.names == (*LogRow._fields, "loaded_at")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_is_whole(table: Table) -> None:
    """Keys are columns, names are unique, strings have a bound that Redshift knows, and what came later may be NULL."""
    assert {table.sorted_by, *table.primary_key} | ({table.distributed_by} - {""}) <= set(table.names)
    assert len(set(table.names)) == len(table.names)
    for column in table.columns:
        assert (column.kind is ColumnKind.STRING) == (0 < column.max_bytes <= 65535), column
        assert column.since == 1 or not column.required, f"{column.name}: rows from before {column.since} lack it"
    assert len(f"analytics.{table.name} is missing: {table.about}".encode()) <= SCHEMA_LOG.columns[-1].max_bytes


TABLE = Table(
    "ledger",
    (
        Column("a", max_bytes=9, required=True),
        Column("b", ColumnKind.INTEGER, integer_bytes=2),
        Column("t", ColumnKind.TIMESTAMP),
    ),
    "a test", sorted_by="t", distributed_by="b", primary_key=("a", "b"),
)  # fmt: skip
A, B, T = TABLE.columns
ALTER = 'ALTER TABLE "analytics"."ledger" '


def test_a_table_is_made_with_its_keys() -> None:
    assert create_table(TABLE) == (
        'CREATE TABLE "analytics"."ledger" (\n    "a" VARCHAR(9) NOT NULL,\n    "b" SMALLINT,\n    "t" TIMESTAMP,\n'
        '    PRIMARY KEY ("a", "b")\n)\nDISTSTYLE KEY DISTKEY ("b")\nSORTKEY ("t")'
    )
    assert create_table(TABLE._replace(distributed_by="")).endswith('DISTSTYLE EVEN\nSORTKEY ("t")')
    assert create_table(TABLE._replace(distributed_by="", on_every_node=True)).endswith('DISTSTYLE ALL\nSORTKEY ("t")')


@pytest.mark.parametrize(
    ("column", "definition"),
    [
        (Column("x", max_bytes=7), '"x" VARCHAR(7)'),
        (Column("x", ColumnKind.BOOLEAN), '"x" BOOLEAN'),
        (Column("x", ColumnKind.INTEGER, integer_bytes=4, default="3"), '"x" INTEGER DEFAULT 3'),
        (LOADED_AT, '"loaded_at" TIMESTAMP DEFAULT GETDATE()'),
        (Column("x", max_bytes=7, required=True), "\"x\" VARCHAR(7) DEFAULT '' NOT NULL"),
        (Column("x", ColumnKind.INTEGER, required=True), '"x" BIGINT DEFAULT 0 NOT NULL'),
        (Column("x", ColumnKind.BOOLEAN, required=True), '"x" BOOLEAN DEFAULT FALSE NOT NULL'),
        (Column("x", ColumnKind.TIMESTAMP, required=True, default="GETDATE()"), '"x" TIMESTAMP DEFAULT GETDATE() NOT NULL'),
        (Column("x", ColumnKind.TIMESTAMP, required=True), "\"x\" TIMESTAMP DEFAULT '1970-01-01' NOT NULL"),
    ],
)
def test_a_column_is_added(column: Column, definition: str) -> None:
    assert schema.add_column(TABLE, column) == f"{ALTER}ADD COLUMN {definition}"


def test_a_column_is_replaced_with_its_values() -> None:
    assert schema.replace_column(TABLE, B) == (
        f'{ALTER}ADD COLUMN "b_new" SMALLINT',
        'UPDATE "analytics"."ledger" SET "b_new" = CAST("b" AS SMALLINT) WHERE "b" IS NOT NULL',
        f'{ALTER}DROP COLUMN "b"',
        f'{ALTER}RENAME COLUMN "b_new" TO "b"',
    )


def test_keys_are_taken_away_before_and_given_back_behind() -> None:
    assert schema.without_keys(TABLE, A, ("x",)) == (
        f'{ALTER}DROP CONSTRAINT "ledger_pkey"', "x", f'{ALTER}ADD PRIMARY KEY ("a", "b")',
    )  # fmt: skip
    assert schema.without_keys(TABLE, B, ("x",))[1:3] == (f"{ALTER}ALTER DISTSTYLE EVEN", "x")
    assert schema.without_keys(TABLE, B, ("x",))[3:] == (
        f'{ALTER}ADD PRIMARY KEY ("a", "b")', f'{ALTER}ALTER DISTKEY "b"',
    )  # fmt: skip
    assert schema.without_keys(TABLE, T, ("x",)) == (f"{ALTER}ALTER SORTKEY NONE", "x", f'{ALTER}ALTER SORTKEY ("t")')
    plain = Column("c", max_bytes=3)
    assert schema.without_keys(TABLE, plain, ("x",)) == ("x",)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_change_is_one_that_the_stand_in_takes_for_redshifts(table: Table) -> None:
    for column in table.columns:
        texts = [schema.add_column(table, column), *schema.without_keys(table, column, schema.replace_column(table, column))]
        texts += [schema.resize_column(table, column)] if column.kind is ColumnKind.STRING else []
        for text in texts:
            (tokens,) = statements(text)
            assert tokens[0].upper == "UPDATE" or alter.rewrite(tokens, alone=True)


def test_names_come_from_the_catalogue() -> None:
    with pytest.raises(ConfigurationError):
        create_table(TABLE._replace(name="users"))


def test_views_are_read_in_their_order_without_comments() -> None:
    assert [view.name for view in views()] == [
        "campaign_profit",
        "popular_articles",
        "popular_authors",
        "trends",
        "page_view_engagement",
        "line_fates",
        "browser_loss",
    ]
    for view in views():
        assert view.statement.startswith(f"CREATE OR REPLACE VIEW analytics.{view.name} AS\n")
        assert not {"--", ";"} & {view.statement[-1], *view.statement.split()}
        assert len(view.statement.encode()) <= 65535
