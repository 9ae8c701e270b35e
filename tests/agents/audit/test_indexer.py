"""The indexer: every raw line is found by its ids, whatever it did before, whoever else works, and wherever it stopped."""

import pytest

from agents.audit.trace.hours import indexed_hours, unsettled_hours
from agents.audit.trace.id_search import IdKind, IdSearch, IdsFound, LinePlace, WantedId
from app.core.formats.object_keys import hour_of, segment_place
from app.core.formats.registry_item import RegistryItem
from app.errors import ServiceUnavailable
from tests.worlds.traced import Traced

HOUR_S = 3600
ALL_AT = 16 * 60 + HOUR_S
"""Seconds after which every hour so far is over."""


async def batches(world: Traced, count: int, first: int = 0) -> list[RegistryItem]:
    """Batches of two events each, `e0` and `e1` of page view `v0`, then `e2` ..."""
    event = world.pipeline.event
    return [
        await world.collect(event(f"e{2 * n}", "page_view", f"v{n}"), event(f"e{2 * n + 1}", "ad_click", f"v{n}"))
        for n in range(first, first + count)
    ]


async def found_of(world: Traced, event_id: str) -> IdsFound:
    return await IdSearch(world.store).find([WantedId(IdKind.EVENT, event_id)])


async def check(world: Traced, items: list[RegistryItem], *, scanned: int = 0) -> None:
    """Every event of these batches is found, in the index but for so many raw files."""
    for n, item in enumerate(items):
        for event_id in (f"e{2 * n}", f"e{2 * n + 1}"):
            found = await found_of(world, event_id)
            assert {place.batch_id for place in found.lines[WantedId(IdKind.EVENT, event_id)]} == {item.batch_id}
            assert (found.scanned, found.faults) == (scanned, [])
        view = WantedId(IdKind.PAGE_VIEW, f"v{n}")
        found = await IdSearch(world.store).find([view])
        assert found.lines[view] == {LinePlace(item.batch_id, 0), LinePlace(item.batch_id, 1)}


async def test_what_is_not_indexed_yet_is_found_in_the_raw_files() -> None:
    world = Traced()
    items = await batches(world, 3)
    await check(world, items, scanned=3)
    report = await world.indexer.round()
    assert (report.batches, report.lines, report.segments, report.settled) == (3, 6, 1, 0)
    await check(world, items)
    items += await batches(world, 2, first=3)
    await check(world, items, scanned=2)


async def test_rounds_merge_small_segments_and_settle_an_hour_that_is_over() -> None:
    world, items = Traced(), list[RegistryItem]()
    for n in range(20):
        items += await batches(world, 1, first=n)
        world.pass_s(10)
        await world.indexer.round()
    assert len(await world.index_keys()) < 8
    await check(world, items)
    world.pass_s(ALL_AT)
    report = await world.indexer.round()
    assert (report.settled, report.unreadable) == (1, [])
    segment, settled = await world.index_keys()
    assert segment_place(segment) is not None
    assert settled.endswith("/settled")
    await check(world, items)
    assert (await world.indexer.round()).hours == 0


async def test_a_new_indexer_goes_on_from_the_listing_and_does_nothing_twice() -> None:
    world = Traced()
    items = await batches(world, 3)
    await world.indexer.round()
    before = await world.index_keys()
    assert (await world.new_indexer().round()).batches == 0
    assert await world.index_keys() == before
    world.pass_s(5 * HOUR_S)
    items += await batches(world, 2, first=3)
    report = await world.new_indexer().round()
    assert (report.batches, report.settled) == (2, 1)
    await check(world, items)


async def test_a_batch_in_two_segments_is_found_once() -> None:
    """Two audits may work for a while, after a rebalance that one of them did not see."""
    world, other = Traced(), None
    items = await batches(world, 2)
    other = world.new_indexer()
    await other.round()
    keys = await world.index_keys()
    first = await world.store.get(keys[0])
    await world.store.delete(keys)
    items += await batches(world, 1, first=2)
    await world.indexer.round()
    await world.store.put(keys[0], first)
    await check(world, items)
    world.pass_s(ALL_AT)
    await world.indexer.round()
    await check(world, items)


@pytest.mark.parametrize("call", ["put", "delete", "get", "get_range", "list"])
async def test_wherever_a_round_stops_the_next_one_completes_the_index(call: str) -> None:
    world, items = Traced(), list[RegistryItem]()

    async def fail(name: str, key: str) -> None:
        nonlocal calls
        if name == call and (key.startswith("index/") or name in {"list", "get"}):
            calls += 1
            if calls == stop_at:
                raise ServiceUnavailable("S3 does not answer")

    for stop_at in range(1, 12):
        calls, indexer = 0, world.new_indexer()
        items += await batches(world, 1, first=len(items))
        world.pass_s(10)
        world.store.before, world.store.after = (None, fail) if stop_at % 2 else (fail, None)
        await indexer.round()
        world.store.before = world.store.after = None
        await check(world, items, scanned=(await found_of(world, "e0")).scanned)
    world.pass_s(ALL_AT)
    calls, stop_at = 0, 1
    world.store.before = fail
    await world.indexer.round()
    world.store.before = None
    await world.indexer.round()
    indexed = await indexed_hours(world.store)
    assert [hour.is_settled for hour in indexed.values()] == [True]
    await check(world, items)


async def test_a_damaged_segment_is_as_none_until_it_is_made_again() -> None:
    world = Traced()
    items = await batches(world, 3)
    world.pass_s(ALL_AT)
    await world.indexer.round()
    [key] = [key for key in await world.index_keys() if segment_place(key)]
    body = await world.store.get(key)
    await world.store.put(key, body[:-5])
    await check(world, items, scanned=3)
    await world.store.put(key, body[:-5] + b"12345")  # of the right size: only who reads all of it sees that
    report = await world.new_indexer().index_all()
    assert (report.damaged, report.batches, report.settled) == (1, 3, 1)
    await check(world, items)
    assert await world.store.get(key) == body
    assert (await world.new_indexer().index_all()).batches == 0


async def test_a_raw_file_that_cannot_be_read_keeps_its_hour_unsettled() -> None:
    world = Traced()
    items = await batches(world, 2)
    body = await world.store.get(items[1].raw_key)
    await world.store.put(items[1].raw_key, b"damaged")
    world.pass_s(ALL_AT)
    report = await world.indexer.round()
    assert (report.batches, report.settled, len(report.unreadable)) == (1, 0, 1)
    found = await found_of(world, "e2")
    assert found.faults[0].startswith(f"raw file {items[1].raw_key} is damaged")
    await world.store.put(items[1].raw_key, body)
    assert (await world.indexer.round()).settled == 1
    await check(world, items)


async def test_only_the_hours_that_may_lack_an_index_are_listed() -> None:
    world = Traced()
    hours = []
    for n, pause in enumerate([1] * 20 + [30, 1]):
        [item] = await batches(world, 1, first=n)
        hours.append(hour_of(item.raw_key))
        world.pass_s(pause * HOUR_S)
    world.pass_s(ALL_AT)
    assert await unsettled_hours(world.store, await indexed_hours(world.store)) == hours
    await world.indexer.round()
    indexed = await indexed_hours(world.store)
    assert list(indexed) == hours
    assert await unsettled_hours(world.store, indexed) == []
    listed = 0

    async def count(name: str, key: str) -> None:
        nonlocal listed
        listed += name == "list"

    world.store.before = count
    assert await unsettled_hours(world.store, indexed) == []
    assert listed <= 7  # the gap of a day, and both ends
    without = {hour: index for hour, index in indexed.items() if hour != hours[1]}
    assert await unsettled_hours(world.store, without) == [hours[1]]
    assert await unsettled_hours(world.store, {}, hours[2], hours[3]) == hours[2:4]
