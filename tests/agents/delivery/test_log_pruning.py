"""Old rows of delivery_log go, and no check and no mend takes them for lost (rule D6)."""

from typing import Any

import pytest

from app.core.delivery.statements import QUARANTINED
from app.core.retention import DAY_MS
from app.errors import WarehouseError
from tests.worlds.books import SETTINGS
from tests.worlds.repair import RepairedBooks


async def aged(days: int = 15) -> RepairedBooks:
    """Books whose every transaction but the last is `days` old, with RETENTION_LOG_DAYS = 14."""
    world = RepairedBooks()
    world.settings = SETTINGS.model_copy(update={"retention_log_days": 14})
    await world.settled()
    world.at_ms += days * DAY_MS
    await world.batch()
    await world.through()
    world.pass_s(30)
    await world.through()
    return world


def numbers(world: RepairedBooks) -> list[int]:
    return [row.number for row in world.warehouse.log]


async def test_old_rows_go_and_the_books_stay_whole() -> None:
    world = await aged()
    before = await world.records()
    assert numbers(world) == [5, 6]
    assert (await world.audit()).differences == []
    batch_id = next(iter(world.registry._items))
    (proof,) = await world.prove(batch_id)
    assert proof.verdict == "PROVEN"
    await world.deliver()
    assert [record.number for record in before] == [1, 2, 3, 4, 5, 6]
    assert len(await world.records()) == 6, "nothing is loaded again"


async def test_younger_rows_stay() -> None:
    assert numbers(await aged(days=13)) == [1, 2, 3, 4, 5, 6]


async def test_zero_keeps_all() -> None:
    world = await aged(days=13)
    world.settings = SETTINGS.model_copy(update={"retention_log_days": 0})
    world.at_ms += 1000 * DAY_MS
    await world.deliver()
    assert numbers(world) == [1, 2, 3, 4, 5, 6]


async def test_quarantined_rows_and_the_last_one_stay() -> None:
    world = await aged(days=13)
    world.change_log(lambda rows: [row._replace(status=QUARANTINED) if row.number == 2 else row for row in rows])
    world.at_ms += 30 * DAY_MS
    await world.deliver()
    assert numbers(world) == [2, 6]


async def test_a_young_row_that_is_missing_is_lost() -> None:
    world = await aged()
    world.change_log(lambda rows: [row for row in rows if row.number != 5])
    assert [(one.kind, one.number) for one in (await world.audit()).differences] == [("log_lost", 5)]


async def test_rows_of_a_transaction_without_its_row_in_the_log_are_mended() -> None:
    world = await aged()
    there = world.warehouse.rows("redirects")
    world.change_rows("redirects", lambda rows: rows[1:])
    assert (await world.repair(apply=True)).is_mended
    assert sorted(row["event_id"] for row in world.warehouse.rows("redirects")) == sorted(r["event_id"] for r in there)
    assert numbers(world) == [5, 6]


@pytest.mark.parametrize("call", ["lock", "prune_log", "commit"])
async def test_loads_never_wait_for_it(call: str) -> None:
    world = await aged(days=13)
    world.at_ms += 30 * DAY_MS

    async def refuse(name: str, _: Any) -> None:
        if name == call:
            raise WarehouseError("57014", "cancelled")

    world.warehouse.before = refuse
    await world.deliver()
    assert numbers(world) == [1, 2, 3, 4, 5, 6]
    world.warehouse.before = None
    await world.deliver()
    assert numbers(world) == [6]
