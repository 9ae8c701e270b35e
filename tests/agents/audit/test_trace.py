"""The fate of every kind of line at every stage, over the whole pipeline in memory."""

import pytest

from app.core.audit.trace.fate import LineFate, LinePlace, moment
from app.core.formats.flows import FLOWS
from tests.worlds.traced import Traced, since_minutes

AFTER_ALL_S = 200


async def one(world: Traced, event_id: str) -> LineFate:
    """The fate of an event that must be found."""
    [trace] = await world.tracer.events([event_id])
    assert trace.found, trace.answer.reason
    assert (trace.id, trace.faults, trace.answer) == (event_id, [], trace.lines[0])
    assert trace.answer.event_id == event_id
    return trace.answer


def line_of(fate: LineFate) -> tuple[str, int]:
    return fate.batch_id, fate.line


@pytest.mark.parametrize("is_indexed", [False, True])
async def test_the_fate_of_each_kind_of_line(is_indexed: bool) -> None:
    world = Traced()
    event = world.pipeline.event
    item = await world.collect(
        event("pv", "page_view"), event("ad", "ad_impression"), event("lone", "engagement", view="v9"),
        event("alone", "page_view", view="v8"), {"event_id": "bad", "event_type": "page_view"}, "{oops",
        event("bot", "ad_click", webdriver=True),
    )  # fmt: skip
    world.pass_s(30)
    await world.pipeline.drain()
    second = await world.collect(event("en", "engagement"), event("en1", "engagement"), event("pv", "page_view"))
    world.pass_s(AFTER_ALL_S)
    await world.pipeline.drain()
    if is_indexed:
        await world.indexer.round()

    first = await one(world, "pv")
    assert (first.fate, first.event_type, first.page_view_id) == ("page_view", "page_view", "v1")
    assert first.joined_with in {"en", "en1"}
    assert (first.raw_key, first.batch_state, first.is_registered) == (item.raw_key, "open", True)
    assert first.block is not None
    assert item.blocks[first.block].partition == first.partition
    assert first.offset is not None
    assert f"/{first.txn_id}." in (first.file or "")
    assert first.row_visible_at == moment(world.pipeline.clock.now_ms())

    assert (await one(world, "ad")).fate == "ad_impressions"
    lone = await one(world, "lone")
    assert (lone.fate, lone.reason) == ("engagement", "no_first")
    assert ((await one(world, "alone")).fate, (await one(world, "alone")).joined_with) == ("page_view", None)
    bad, bot = await one(world, "bad"), await one(world, "bot")
    assert (bad.fate, bad.kind, bad.reason) == ("rejected", "malformed", "page_view_id: required")
    assert (bot.fate, bot.kind, bot.reason) == ("rejected", "bot", "webdriver")

    taken, extra = first.joined_with, {"en", "en1"} - {first.joined_with}
    joined = await one(world, taken or "")
    assert (joined.fate, joined.joined_into, joined.reason) == ("joined", "pv", "joined into pv")
    assert joined.row_visible_at == first.row_visible_at
    assert joined.file == first.file
    other = await one(world, extra.pop() or "")
    assert (other.fate, other.reason) == ("engagement", "extra")

    [trace] = await world.tracer.events(["pv"])
    copy = trace.lines[1]
    assert (copy.fate, copy.batch_id) == ("duplicate", second.batch_id)
    assert copy.duplicate_of == LinePlace(*line_of(first))

    view = await world.tracer.page_view("v1")
    assert {(line.event_id, line.fate) for line in view.lines} == {
        ("pv", "page_view"), ("pv", "duplicate"), ("ad", "ad_impressions"), ("bot", "rejected"),
        ("en", "joined" if taken == "en" else "engagement"), ("en1", "joined" if taken == "en1" else "engagement"),
    }  # fmt: skip
    assert [line.received_at for line in view.lines] == sorted(line.received_at or "" for line in view.lines)

    # every line is found by its batch and number, and what it became is what the ledger says
    counts = dict.fromkeys([flow.name for flow in FLOWS], 0)
    for number in range(item.line_count):
        [found] = (await world.tracer.line(item.batch_id, number)).lines
        counts[{"page_view": "page_views", "engagement": "engagements"}.get(found.fate, found.fate)] += 1
    assert {flow: count for flow, count in counts.items() if count} == {
        "page_views": 2, "ad_impressions": 1, "engagements": 1, "rejected": 3,
    }  # fmt: skip


async def test_where_a_page_view_stands_until_its_row_is_visible() -> None:
    world = Traced()
    received_ms = world.pipeline.clock.now_ms()
    await world.collect(world.pipeline.event("pv", "page_view"))
    reasons = [(await one(world, "pv")).reason]
    world.pipeline.bridge()
    reasons.append((await one(world, "pv")).reason)
    world.pipeline.etl()
    waiting = await one(world, "pv")
    assert (waiting.fate, waiting.waits_until) == ("waiting", moment(received_ms + 120_000))
    assert waiting.reason == f"waits for its second event until {moment(received_ms + 120_000)}"
    world.pass_s(AFTER_ALL_S)
    world.pipeline.bridge()
    world.pipeline.etl()
    reasons.append((await one(world, "pv")).reason)
    await world.pipeline.sink()
    stands = await one(world, "pv")
    assert (stands.fate, stands.stage, stands.row_visible_at) == ("in_flight", "delivery", None)
    assert stands.txn_id is not None
    reasons.append(stands.reason)
    await world.pipeline.deliver()
    assert (await one(world, "pv")).fate == "page_view"
    assert [reason.split(":")[0] for reason in reasons] == [
        f"not yet past stage {stage}" for stage in ("kinesis", "etl", "sink", "delivery")
    ]


async def test_a_second_event_waits_for_its_page_view_and_an_ad_never_waits() -> None:
    world = Traced()
    await world.collect(world.pipeline.event("en", "engagement"), world.pipeline.event("ad", "ad_click"))
    world.pipeline.bridge()
    world.pipeline.etl()
    waiting, ad = await one(world, "en"), await one(world, "ad")
    assert (waiting.fate, ad.fate, ad.stage) == ("waiting", "in_flight", "sink")
    assert waiting.waits_until is not None


async def test_an_id_that_never_came() -> None:
    world = Traced()
    assert (await world.tracer.events(["x"]))[0].answer.reason.endswith("what was refused is not kept")
    await world.collect(world.pipeline.event("pv", "page_view"))
    for _ in range(2):
        known, unknown = await world.tracer.events(["pv", "pvx"])
        assert (known.found, unknown.found, unknown.answer.fate) == (True, False, "unknown")
        assert unknown.since == "2023-11-14T22:00:00.000Z"
        assert f"between {unknown.since} and {unknown.until}" in unknown.answer.reason
        await world.indexer.round()
    assert not (await world.tracer.page_view("pv")).found  # an event's id, and no page view's


async def test_a_loaded_event_is_traced_without_kafka_and_another_one_says_that_it_does_not_answer() -> None:
    world = Traced()
    await world.collect(world.pipeline.event("ad", "ad_click"))
    await world.pipeline.drain()
    await world.collect(world.pipeline.event("ad2", "ad_click"))
    world.is_kafka_up = False
    assert ((await one(world, "ad")).fate, (await one(world, "ad")).offset) == ("ad_clicks", None)
    new = await one(world, "ad2")
    assert (new.fate, new.stage) == ("in_flight", None)
    assert "Kafka does not answer" in new.reason


async def test_a_batch_that_the_registry_lost_is_told_by_the_ledger() -> None:
    world = Traced()
    item = await world.collect(world.pipeline.event("ad", "ad_click"))
    await world.pipeline.drain()
    world.pipeline.registry.forget(item.batch_id)
    found = await one(world, "ad")
    assert (found.fate, found.is_registered, found.block) == ("ad_clicks", False, None)
    item = await world.collect(world.pipeline.event("ad2", "ad_click"))
    world.pipeline.registry.forget(item.batch_id)
    world.pipeline.kinesis.clear()
    assert (await one(world, "ad2")).fate == "unacknowledged"


async def test_a_raw_file_that_is_gone_or_damaged_is_named() -> None:
    world = Traced()
    item = await world.collect(world.pipeline.event("ad", "ad_click"))
    await world.store.put(item.raw_key, b"damaged")
    [trace] = await world.tracer.events(["ad"])
    assert not trace.found
    assert trace.answer.reason.endswith("1 raw files could not be read")
    assert trace.faults[0].startswith(f"raw file {item.raw_key} is damaged")


async def test_a_malformed_line_is_found_by_its_text() -> None:
    world = Traced()
    await world.collect('{"event_id": "q", "note": "a \\"quoted\\" wörd"', "{oops", world.pipeline.event("ad", "ad_click"))
    await world.pipeline.drain()
    for text in ('"event_id": "q"', "wörd", 'a \\"quoted'):
        trace = await world.tracer.text(text, since_minutes(world, 5))
        assert [(line.fate, line.kind) for line in trace.lines] == [("rejected", "malformed")], text
    assert len((await world.tracer.text("o", since_minutes(world, 5))).lines) == 3
    assert not (await world.tracer.text("oops", since_minutes(world, -5))).found
