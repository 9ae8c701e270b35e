"""What `instream init` refuses on the real stand-in, and that the statements which it names then are the way."""

import json

import pytest

from app.adapters.warehouse_schema import migrate, read_plan
from app.core.delivery.schema_plan import SchemaPlan
from app.errors import SchemaRefused
from tests.worlds.warehouse import Warehouse
from tests.worlds.warehouse_schema import everything, execute, older_warehouse, run_init

VIEWS = "ALTER TABLE analytics.page_views"
TYPE_CHANGE = (f"{VIEWS} DROP COLUMN line", f"{VIEWS} ADD COLUMN line VARCHAR(9)")
NARROWER = (f"{VIEWS} DROP COLUMN url", f"{VIEWS} ADD COLUMN url VARCHAR(5000)")


@pytest.mark.parametrize(
    ("changes", "expected", "statements"),
    [
        (
            TYPE_CHANGE,
            "analytics.page_views.line is CHARACTER VARYING, the catalogue says INTEGER: a type cannot be altered",
            [
                'ALTER TABLE "analytics"."page_views" ADD COLUMN "line_new" INTEGER DEFAULT 0 NOT NULL',
                'UPDATE "analytics"."page_views" SET "line_new" = CAST("line" AS INTEGER) WHERE "line" IS NOT NULL',
                'ALTER TABLE "analytics"."page_views" DROP COLUMN "line"',
                'ALTER TABLE "analytics"."page_views" RENAME COLUMN "line_new" TO "line"',
            ],
        ),
        (
            NARROWER,
            "analytics.page_views.url is VARCHAR(5000), the catalogue says VARCHAR(4096): longer values would not fit",
            ['ALTER TABLE "analytics"."page_views" ALTER COLUMN "url" TYPE VARCHAR(4096)'],
        ),
    ],
    ids=["type", "narrower"],
)
async def test_what_could_lose_data_is_refused_and_nothing_at_all_is_changed(
    warehouse: Warehouse, changes: tuple[str, ...], expected: str, statements: list[str]
) -> None:
    old = await older_warehouse(warehouse)
    await execute(old.settings.warehouse_url, *changes)
    before = await everything(old)

    plain, planned = await run_init(old), await run_init(old, "--plan", "--json")
    with pytest.raises(SchemaRefused, match=r"init --plan"):
        await migrate(old.settings.warehouse_url)

    assert (plain.exit_code, planned.exit_code) == (1, 1)
    told = [f"refused: {expected}. At your own risk, one by one:", *(f"    {statement};" for statement in statements)]
    assert plain.stdout.splitlines()[: len(told)] == told
    (refusal,) = json.loads(planned.stdout)["refused"]
    assert f"{refusal['place']} {refusal['reason']}" == expected
    assert refusal["statements"] == statements
    assert await everything(old) == before, "not even a log of changes is made"


OTHER_THAN_CATALOGUE = {
    "type": (*TYPE_CHANGE, "UPDATE analytics.page_views SET line = '7'"),
    "type of the sort key": (
        "ALTER TABLE analytics.page_views ALTER SORTKEY NONE",
        "ALTER TABLE analytics.page_views DROP COLUMN received_at CASCADE",
        "ALTER TABLE analytics.page_views ADD COLUMN received_at VARCHAR(40) DEFAULT '2026-01-02 03:04:05'",
        "ALTER TABLE analytics.page_views ALTER SORTKEY (received_at)",
    ),
    "narrower": NARROWER,
    "takes NULL": (
        "ALTER TABLE analytics.page_views DROP COLUMN txn_id",
        "ALTER TABLE analytics.page_views ADD COLUMN txn_id VARCHAR(64)",
    ),
    "takes no NULL": (
        "ALTER TABLE analytics.page_views DROP COLUMN city",
        "ALTER TABLE analytics.page_views ADD COLUMN city VARCHAR(128) DEFAULT 'Bern' NOT NULL",
    ),
    "too short, read by views": (
        "DROP VIEW analytics.popular_articles", "DROP VIEW analytics.trends",
        "ALTER TABLE analytics.page_views DROP COLUMN article_title",
        "ALTER TABLE analytics.page_views ADD COLUMN article_title VARCHAR(10)",
        "CREATE VIEW public.titles AS SELECT article_title FROM analytics.page_views",
    ),
    "too short, distribution key": (
        "ALTER TABLE analytics.replays ALTER DISTSTYLE EVEN", "ALTER TABLE analytics.replays ALTER SORTKEY NONE",
        "ALTER TABLE analytics.replays DROP COLUMN batch_id",
        "ALTER TABLE analytics.replays ADD COLUMN batch_id VARCHAR(10) DEFAULT '' NOT NULL",
    ),
    "too short, primary key": (
        "ALTER TABLE analytics.delivery_log DROP CONSTRAINT delivery_log_pkey",
        "ALTER TABLE analytics.delivery_log ALTER COLUMN txn_id TYPE VARCHAR(20)",
        "ALTER TABLE analytics.delivery_log ADD PRIMARY KEY (txn_id)",
    ),
    "too short, has a default": (
        "ALTER TABLE analytics.page_views DROP COLUMN city",
        "ALTER TABLE analytics.page_views ADD COLUMN city VARCHAR(8) DEFAULT 'Bern'",
    ),
    "a required column is missing": ("ALTER TABLE analytics.rejected DROP COLUMN kind",),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_THAN_CATALOGUE)
async def test_the_statements_that_a_refusal_names_leave_nothing_to_be_refused(warehouse: Warehouse, case: str) -> None:
    url = warehouse.settings.warehouse_url
    await execute(
        url, "INSERT INTO analytics.page_views (batch_id, line, txn_id, url) VALUES ('b', 7, 't', 'https://x')",
        *OTHER_THAN_CATALOGUE[case],
    )  # fmt: skip
    (refusal,) = (await read_plan(url)).refused

    await execute(url, *refusal.statements)
    await migrate(url)

    assert await read_plan(url) == SchemaPlan()
    expected = [("b", 7, "" if case == "takes NULL" else "t", None if case == "narrower" else "https://x")]
    assert await warehouse.query("SELECT batch_id, line, txn_id, url FROM analytics.page_views") == expected
