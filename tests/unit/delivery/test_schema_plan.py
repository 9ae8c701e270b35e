"""What `instream init` sets out to do, from what a warehouse says of itself."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from app.core.delivery import schema
from app.core.delivery.schema_found import FoundColumn, FoundWarehouse, View, found_as, lacking, tables_of, view_of, views_in
from app.core.delivery.schema_plan import Refusal, SchemaPlan, SchemaStep, plan_schema
from app.core.formats.flows import Column, ColumnKind
from app.core.formats.tables import DELIVERY_LOG, LOADED, SCHEMA_LOG, TABLES, Table
from app.errors import FormatInvalid

MAKE = "CREATE OR REPLACE VIEW analytics"
VIEWS = (view_of(f"{MAKE}.one AS SELECT 1"), view_of(f"{MAKE}.two AS SELECT 2"))
REPLAYS = next(table for table in TABLES if table.name == "replays")
PAGE_VIEWS = next(table for table in TABLES if table.name == "page_views")
TEXT, LONG = "character varying", "bigint"
ALTER = 'ALTER TABLE "analytics"."page_views"'


def as_it_should_be(tables: Iterable[Table] = TABLES, **changes: Any) -> FoundWarehouse:
    """A warehouse on which nothing is to be done."""
    found = FoundWarehouse(
        tables={table.name: tuple(map(found_as, table.columns)) for table in tables},
        views=frozenset(view.name for view in VIEWS), view_statements={view.name: view.statement for view in VIEWS},
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def with_column(name: str, **changes: Any) -> FoundWarehouse:
    """The same, with one column of page_views another one; without it where nothing is given."""
    columns = [found_as(column) for column in PAGE_VIEWS.columns]
    others = [c._replace(**changes) if c.name == name else c for c in columns if changes or c.name != name]
    found = as_it_should_be()
    return msgspec.structs.replace(found, tables={**found.tables, "page_views": tuple(others)})


def plan(found: FoundWarehouse) -> SchemaPlan:
    return plan_schema(found, VIEWS)


def column(name: str) -> Column:
    return next(column for column in PAGE_VIEWS.columns if column.name == name)


# --- what is missing


def test_a_warehouse_that_is_the_catalogues_needs_nothing() -> None:
    assert plan(as_it_should_be()) == SchemaPlan()


def test_an_empty_database_gets_schema_log_tables_and_views_in_this_order() -> None:
    steps = plan(FoundWarehouse(has_schema=False)).steps
    tables = [SCHEMA_LOG, *(table for table in TABLES if table is not SCHEMA_LOG)]
    assert [step.statement for step in steps] == [
        schema.CREATE_SCHEMA, *map(schema.create_table, tables), *(view.statement for view in VIEWS),
    ]  # fmt: skip
    assert not any(step.alone for step in steps)


def test_a_schema_that_is_empty_is_not_made_again() -> None:
    assert plan(FoundWarehouse()).steps[0].statement == schema.create_table(SCHEMA_LOG)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_that_is_missing_is_made(table: Table) -> None:
    reason = f"analytics.{table.name} is missing: {table.about}"
    found = as_it_should_be([other for other in TABLES if other is not table])
    assert plan(found) == SchemaPlan((SchemaStep(schema.create_table(table), reason),))


def test_columns_that_are_missing_are_added_one_a_statement() -> None:
    found = as_it_should_be()
    for name in ("url", "joined"):
        tables = {**found.tables, "page_views": tuple(c for c in found.tables["page_views"] if c.name != name)}
        found = msgspec.structs.replace(found, tables=tables)
    assert plan(found).steps == (
        SchemaStep(f'{ALTER} ADD COLUMN "url" VARCHAR(4096)', "column analytics.page_views.url is missing"),
        SchemaStep(f'{ALTER} ADD COLUMN "joined" BOOLEAN', "column analytics.page_views.joined is missing"),
    )


def test_the_time_of_the_load_is_added_with_its_default() -> None:
    (step,) = plan(with_column("loaded_at")).steps
    assert step.statement.endswith('ADD COLUMN "loaded_at" TIMESTAMP DEFAULT GETDATE()')


def test_a_column_that_takes_no_null_is_not_added_to_rows_that_lack_it() -> None:
    assert plan(with_column("line")).refused == (
        Refusal(
            "analytics.page_views.line", "is missing and takes no NULL: rows that are there would get an empty value",
            ('ALTER TABLE "analytics"."page_views" ADD COLUMN "line" INTEGER DEFAULT 0 NOT NULL',),
        ),
    )  # fmt: skip


def test_what_the_catalogue_does_not_know_is_left_alone_and_named() -> None:
    found = as_it_should_be()
    tables = dict(found.tables)
    tables |= {"mine": (FoundColumn("x", LONG),), "replays": (FoundColumn("note", TEXT, 9), *tables["replays"])}
    found = msgspec.structs.replace(found, tables=tables, views=found.views | {"theirs"})
    assert plan(found) == SchemaPlan(left_alone=("analytics.replays.note",))


def test_the_order_of_columns_is_of_no_matter() -> None:
    found = as_it_should_be()
    tables = {name: tuple(reversed(columns)) for name, columns in found.tables.items()}
    assert plan(msgspec.structs.replace(found, tables=tables)) == SchemaPlan()


# --- views


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"views": frozenset({"two"})}, "view analytics.one is missing"),
        (
            {"view_statements": {"two": VIEWS[1].statement}},
            "analytics.schema_log does not say which text view analytics.one has",
        ),
        (
            {"view_statements": {"one": f"{MAKE}.one AS SELECT 0", "two": VIEWS[1].statement}},
            "view analytics.one has another text",
        ),
    ],
)
def test_a_view_is_made_where_it_is_missing_or_another(changes: dict[str, Any], reason: str) -> None:
    assert plan(as_it_should_be(**changes)) == SchemaPlan((SchemaStep(VIEWS[0].statement, reason),))


def test_views_come_behind_the_columns_that_they_may_read() -> None:
    found = msgspec.structs.replace(with_column("url"), view_statements={})
    assert [step.statement.split()[0] for step in plan(found).steps] == ["ALTER", "CREATE", "CREATE"]


def test_a_view_where_a_table_belongs_is_refused() -> None:
    found = as_it_should_be([table for table in TABLES if table is not REPLAYS])
    found = msgspec.structs.replace(found, views=found.views | {"replays"})
    rename = 'ALTER TABLE "analytics"."replays" RENAME TO "replays_view"'
    assert plan(found) == SchemaPlan(refused=(Refusal("analytics.replays", "is a view where a table belongs", (rename,)),))


# --- what differs

TYPE = "a type cannot be altered"
REFUSED = [
    ("line", {"type": LONG}, f"is BIGINT, the catalogue says INTEGER: {TYPE}", "replace"),
    ("line", {"type": TEXT, "max_bytes": 9}, f"is CHARACTER VARYING, the catalogue says INTEGER: {TYPE}", "replace"),
    ("url", {"type": "text", "max_bytes": None}, f"is TEXT, the catalogue says VARCHAR(4096): {TYPE}", "replace"),
    ("joined", {"type": "integer"}, f"is INTEGER, the catalogue says BOOLEAN: {TYPE}", "replace"),
    ("received_at", {"type": "date"}, f"is DATE, the catalogue says TIMESTAMP: {TYPE}", "replace"),
    ("line", {"nullable": True}, "takes NULL, in the catalogue it takes no NULL: that cannot be altered", "replace"),
    ("url", {"nullable": False}, "takes no NULL, in the catalogue it takes NULL: that cannot be altered", "replace"),
    (
        "url", {"max_bytes": 4097},
        "is VARCHAR(4097), the catalogue says VARCHAR(4096): longer values would not fit", "resize",
    ),
    ("url", {"max_bytes": None}, "is VARCHAR, the catalogue says VARCHAR(4096): longer values would not fit", "resize"),
    (
        "url", {"max_bytes": 9, "has_default": True},
        "is VARCHAR(9), the catalogue says VARCHAR(4096): Redshift does not resize a column with a default", "replace",
    ),
    (
        "page_view_id", {"max_bytes": 9},
        "is VARCHAR(9), the catalogue says VARCHAR(64): Redshift does not resize a column of a key", "resize",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "reason", "remedy"), REFUSED)
def test_what_could_lose_data_or_cannot_be_altered_is_refused(
    name: str, changes: dict[str, Any], reason: str, remedy: str
) -> None:
    changed = column(name)
    how = {"replace": schema.replace_column, "resize": lambda *a: (schema.resize_column(*a),)}[remedy](PAGE_VIEWS, changed)
    expected = Refusal(f"analytics.page_views.{name}", reason, schema.without_keys(PAGE_VIEWS, changed, how))
    assert plan(with_column(name, **changes)) == SchemaPlan(refused=(expected,))


def test_a_refusal_of_a_key_names_what_takes_it_away_and_gives_it_back() -> None:
    (refusal,) = plan(with_column("page_view_id", max_bytes=9)).refused
    assert refusal.statements == (
        'ALTER TABLE "analytics"."page_views" ALTER DISTSTYLE EVEN',
        'ALTER TABLE "analytics"."page_views" ALTER COLUMN "page_view_id" TYPE VARCHAR(64)',
        'ALTER TABLE "analytics"."page_views" ALTER DISTKEY "page_view_id"',
    )


def test_a_varchar_that_is_too_short_is_widened_outside_of_transactions() -> None:
    assert plan(with_column("url", max_bytes=9)) == SchemaPlan((
        SchemaStep(
            'ALTER TABLE "analytics"."page_views" ALTER COLUMN "url" TYPE VARCHAR(4096)',
            "analytics.page_views.url is VARCHAR(9), the catalogue says VARCHAR(4096)", alone=True,
        ),
    ))  # fmt: skip


def test_a_column_that_views_read_is_not_widened_but_the_views_named() -> None:
    readers = {("page_views", "url"): ('"analytics"."one"', '"public"."mine"'), ("redirects", "url"): ('"public"."other"',)}
    found = msgspec.structs.replace(with_column("url", max_bytes=9), readers=readers)
    assert plan(found).refused == (
        Refusal(
            "analytics.page_views.url",
            "is VARCHAR(9), the catalogue says VARCHAR(4096): Redshift does not resize a column that a view reads: "
            '"analytics"."one", "public"."mine"',
            (
                'DROP VIEW "analytics"."one"', 'DROP VIEW "public"."mine"',
                'ALTER TABLE "analytics"."page_views" ALTER COLUMN "url" TYPE VARCHAR(4096)',
            ),
        ),
    )  # fmt: skip


def test_the_primary_key_of_the_log_is_not_widened() -> None:
    found = as_it_should_be()
    first, *others = found.tables["delivery_log"]
    tables = {**found.tables, "delivery_log": (first._replace(max_bytes=9), *others)}
    (refusal,) = plan(msgspec.structs.replace(found, tables=tables)).refused
    assert refusal.place == f"analytics.delivery_log.{DELIVERY_LOG.primary_key[0]}"


def test_the_log_of_changes_is_not_widened_under_its_own_lock() -> None:
    found = as_it_should_be()
    columns = [c._replace(max_bytes=9) if c.name == "reason" else c for c in found.tables["schema_log"]]
    (refusal,) = plan(msgspec.structs.replace(found, tables={**found.tables, "schema_log": columns})).refused
    assert refusal.statements == ('ALTER TABLE "analytics"."schema_log" ALTER COLUMN "reason" TYPE VARCHAR(1024)',)


def test_what_is_refused_hides_no_other_step() -> None:
    found = as_it_should_be([table for table in TABLES if table is not REPLAYS])
    page_views = with_column("line", type=LONG).tables["page_views"]
    planned = plan(msgspec.structs.replace(found, tables={**found.tables, "page_views": page_views}))
    assert (len(planned.steps), len(planned.refused)) == (1, 1)


# --- what a warehouse says

ROWS = [
    ("page_views", "BASE TABLE", "url", TEXT, 4096, "YES", 0),
    ("page_views", "BASE TABLE", "line", "integer", None, "NO", 0),
    ("page_views", "BASE TABLE", "loaded_at", "timestamp without time zone", None, "YES", 1),
    ("trends", "VIEW", "score", "double precision", None, "YES", 0),
]


def test_rows_of_information_schema_are_tables_and_views() -> None:
    assert tables_of(ROWS) == {"page_views": [found_as(column(name)) for name in ("url", "line", "loaded_at")]}
    assert views_in(ROWS) == {"trends"}


@pytest.mark.parametrize("kind", ColumnKind)
def test_every_kind_is_found_by_the_name_that_information_schema_has(kind: ColumnKind) -> None:
    names = {
        ColumnKind.STRING: TEXT,
        ColumnKind.INTEGER: LONG,
        ColumnKind.BOOLEAN: "boolean",
        ColumnKind.TIMESTAMP: "timestamp without time zone",
    }
    assert found_as(Column("x", kind, 5 if kind is ColumnKind.STRING else 0)).type == names[kind]


def test_another_statement_makes_no_view() -> None:
    with pytest.raises(FormatInvalid):
        view_of("CREATE VIEW analytics.one AS SELECT 1")
    assert view_of("CREATE OR REPLACE VIEW analytics.one AS SELECT 1") == View("one", VIEWS[0].statement)


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ([], None),
        (["page_views.url"], "column analytics.page_views.url"),
        (["page_views"], "table analytics.page_views"),
        (["schema_log"], None),
        (["delivery_log.detail"], "column analytics.delivery_log.detail"),
        (["replays", "page_views.url", "page_views.joined"], "column analytics.page_views.url and 2 more"),
        ([table.name for table in TABLES], f"table analytics.page_views and {len(LOADED) - 1} more"),
    ],
)
def test_what_a_load_lacks_is_named_with_the_remedy(gone: list[str], expected: str | None) -> None:
    found = {
        name: [column for column in columns if f"{name}.{column.name}" not in gone]
        for name, columns in as_it_should_be().tables.items()
        if name not in gone
    }
    told = lacking(found)
    assert told == (None if expected is None else f"the warehouse lacks {expected}: run `instream init`")
    assert len(told or "") <= 150, "/ready shows all of it"
