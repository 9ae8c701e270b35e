"""`instream init` on the real stand-in: an older warehouse becomes today's, and delivery goes on."""

import asyncio
import importlib.metadata
import json

import pytest

from app.adapters.warehouse import connect
from app.adapters.warehouse_schema import migrate, read_plan
from app.core.delivery.schema_plan import SchemaPlan
from app.core.formats.flows import OUTPUTS
from app.errors import WarehouseError
from tests.worlds.warehouse import Warehouse, put_transaction
from tests.worlds.warehouse_delivery import deliver, deliverer_of, frames, lines_loaded, log_of
from tests.worlds.warehouse_schema import empty_warehouse, everything, execute, older_warehouse, run_init

LOG = "SELECT version, statement, reason FROM analytics.schema_log ORDER BY applied_at"


@pytest.fixture
async def old(warehouse: Warehouse) -> Warehouse:
    """A warehouse of version 1 that lacks two columns and a table."""
    return await older_warehouse(warehouse)


# --- an older warehouse


async def test_an_older_warehouse_is_planned_changed_logged_and_then_idle(old: Warehouse) -> None:
    before = await everything(old)

    planned = await run_init(old, "--plan")

    assert planned.exit_code == 0, planned.output
    assert "-- column analytics.page_views.engagement_id is missing\n" in planned.stdout
    assert 'ALTER TABLE "analytics"."page_views" ADD COLUMN "engagement_id" VARCHAR(64);\n' in planned.stdout
    assert 'ALTER TABLE "analytics"."engagements" ADD COLUMN "reason" VARCHAR(16);\n' in planned.stdout
    assert 'CREATE TABLE "analytics"."dead_letters" (\n' in planned.stdout
    assert "left alone: analytics.page_views.note is not in the catalogue\n" in planned.stdout
    assert await everything(old) == before, "a plan changes nothing"

    done = await migrate(old.settings.warehouse_url)

    text = json.loads((await run_init(old, "--plan", "--json")).stdout)
    assert text == {"steps": [], "refused": [], "left_alone": ["analytics.page_views.note"]}
    assert f"-- {done[0].reason}\n{done[0].statement};\n" in planned.stdout
    assert all(step.statement in planned.stdout for step in done)
    assert await old.query("SELECT line, url, note, engagement_id FROM analytics.page_views") == [
        (7, "https://x", "mine", None)
    ]
    version = importlib.metadata.version("instream")
    assert await old.query(LOG) == [(version, step.statement, step.reason) for step in done]
    assert await migrate(old.settings.warehouse_url) == []
    assert "nothing is to be done" in (await run_init(old, "--plan")).stdout


async def test_an_empty_database_gets_everything_and_each_is_logged(warehouse: Warehouse) -> None:
    empty = await empty_warehouse(warehouse)
    told: list[str] = []

    done = await migrate(empty.settings.warehouse_url, lambda step: told.append(step.statement))

    assert done[0].statement == 'CREATE SCHEMA "analytics"'
    assert told == [step.statement for step in done] == [statement for _, statement, _ in await empty.query(LOG)]
    assert (await everything(empty))[0] == (await everything(warehouse))[0]
    assert await read_plan(empty.settings.warehouse_url) == SchemaPlan()


async def test_a_view_is_made_anew_when_its_text_is_another_and_only_then(warehouse: Warehouse) -> None:
    url = warehouse.settings.warehouse_url
    await execute(
        url,
        "INSERT INTO analytics.schema_log (applied_at, version, statement, reason) SELECT '2099-01-01', '0', "
        "statement || ' ', reason FROM analytics.schema_log WHERE statement LIKE '%analytics.trends%'",
    )

    (step,) = (await read_plan(url)).steps
    assert step.reason == "view analytics.trends has another text"
    await execute(url, "DELETE FROM analytics.schema_log WHERE version = '0'", "DROP VIEW analytics.popular_authors")
    (step,) = await migrate(url)

    assert step.reason == "view analytics.popular_authors is missing"
    assert await warehouse.query("SELECT * FROM analytics.popular_authors") == []


# --- two at once, and trouble on the way


async def test_two_at_once_do_each_step_once(warehouse: Warehouse, old: Warehouse) -> None:
    for place in (await empty_warehouse(warehouse), old):
        url = place.settings.warehouse_url

        done = await asyncio.gather(*(migrate(url) for _ in range(3)))

        logged = [statement for _, statement, _ in await place.query(LOG)]
        assert sorted(step.statement for steps in done for step in steps) == sorted(logged)
        assert len(set(logged)) == len(logged)
        assert await migrate(url) == []


async def test_whoever_changes_the_schema_waits_for_the_lock_and_plans_behind_it(old: Warehouse) -> None:
    url = old.settings.warehouse_url
    first = await migrate(url)
    assert first
    await execute(url, "ALTER TABLE analytics.page_views DROP COLUMN engagement_id")
    async with await connect(url) as other:
        await other.execute("LOCK TABLE analytics.schema_log")
        waiting = asyncio.ensure_future(migrate(url))
        async with asyncio.timeout(30):
            while not await old.query("SELECT 1 FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.02)
        await other.execute("ALTER TABLE analytics.page_views ADD COLUMN engagement_id VARCHAR(64)")
        await other.commit()
    assert await waiting == [], "what somebody else has done meanwhile is not done again"


async def test_a_run_that_is_cut_short_is_continued(old: Warehouse) -> None:
    url = old.settings.warehouse_url
    await migrate(url)
    await execute(url, "ALTER TABLE analytics.page_views DROP COLUMN engagement_id", "DROP TABLE analytics.dead_letters")
    logged = len(await old.query(LOG))

    old.fail("disk_full", statement="CREATE TABLE.*dead_letters")
    with pytest.raises(WarehouseError, match=r'Disk Full.*\(in: CREATE TABLE "analytics"."dead_letters"'):
        await migrate(url)
    assert len(await old.query(LOG)) == logged + 1
    old.fail("disk_full", statement="INSERT INTO.*schema_log")
    with pytest.raises(WarehouseError):
        await migrate(url)
    assert len(await old.query(LOG)) == logged + 1, "a table without its entry in the log is rolled back"
    old.fail("serialization", statement="LOCK", times=3)
    (step,) = await migrate(url)

    assert "dead_letters" in step.statement
    assert old.faults_left() == 0
    assert await migrate(url) == []


# --- a longer VARCHAR, and delivery


async def test_a_varchar_that_is_too_short_is_widened_with_its_values(warehouse: Warehouse) -> None:
    url = warehouse.settings.warehouse_url
    await execute(
        url, "ALTER TABLE analytics.page_views ALTER COLUMN city TYPE VARCHAR(8)",
        "INSERT INTO analytics.page_views (batch_id, line, txn_id, city) VALUES ('b', 7, 't', 'Zürich')",
    )  # fmt: skip

    steps = await asyncio.gather(*(migrate(url) for _ in range(2)))

    ((step,),) = [done for done in steps if done]
    assert step.statement == 'ALTER TABLE "analytics"."page_views" ALTER COLUMN "city" TYPE VARCHAR(128)'
    assert step.reason == "analytics.page_views.city is VARCHAR(8), the catalogue says VARCHAR(128)"
    assert await warehouse.query("SELECT city FROM analytics.page_views") == [("Zürich",)]
    assert (await warehouse.query(LOG))[-1][1] == step.statement
    await execute(url, f"UPDATE analytics.page_views SET city = '{'é' * 64}'")
    with pytest.raises(Exception, match="value too long for column 'city'"):
        await execute(url, f"UPDATE analytics.page_views SET city = '{'é' * 65}'")


async def test_delivery_that_met_a_missing_column_goes_on_once_init_has_run(old: Warehouse) -> None:
    await put_transaction(old, 1, frames(0, 3))
    deliverer = deliverer_of(old)

    report = await deliverer.round([0, 1])
    assert report.deferred is not None
    later = sum(column.since > 1 for output in OUTPUTS for column in output.columns)
    assert report.deferred.detail == (
        f"the warehouse lacks column analytics.page_views.engagement_id and {2 + later} more: run `instream init`"
    )
    await migrate(old.settings.warehouse_url)
    report = await deliverer.round([0, 1])
    await deliverer.close()

    assert (report.deferred, report.quarantined, len(report.loaded)) == (None, (), 1)
    assert await lines_loaded(old) == [0, 1, 2, 7]
    assert await log_of(old) == [(0, 1, "loaded")]
    assert (await deliver(old)).loaded == ()
