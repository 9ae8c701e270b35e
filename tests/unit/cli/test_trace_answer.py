"""The answers of `instream trace`: the fields that programs read, and the words that people read."""

from app.cli.trace import as_answer, words_of
from tests.worlds.traced import Traced

CONTRACT = {
    "id", "found", "fate", "reason", "batch_id", "line", "raw_key", "txn_id", "row_visible_at", "joined_into",
}  # fmt: skip


async def joined() -> Traced:
    """A page view that took a second event, a copy of it, and an ad; all in the warehouse."""
    world = Traced()
    event = world.pipeline.event
    await world.collect(event("pv", "page_view"), event("ad", "ad_click"))
    world.pass_s(30)
    await world.collect(event("en", "engagement"), event("pv", "page_view"))
    world.pipeline.bridge()
    world.pipeline.etl()
    world.pass_s(200)
    await world.pipeline.drain()
    return world


async def test_an_answer_has_the_fields_of_the_contract() -> None:
    world = await joined()
    second, unknown = await world.tracer.events(["en", "x"])
    found = as_answer(second, is_whole=True)
    assert found.keys() >= CONTRACT
    assert (found["id"], found["found"], found["fate"], found["joined_into"]) == ("en", True, "joined", "pv")
    assert found["lines"][0].items() <= found.items()
    missing = as_answer(unknown, is_whole=True)
    assert {name for name in CONTRACT if missing[name] is not None} == {"id", "found", "fate", "reason"}
    assert (missing["found"], missing["fate"], missing["lines"]) == (False, "unknown", [])
    view = as_answer(await world.tracer.page_view("v1"), is_whole=False)
    assert (view["fate"], [line["fate"] for line in view["lines"]]) == (
        None,
        ["page_view", "ad_clicks", "joined", "duplicate"],
    )


async def test_words_lead_from_the_raw_file_to_the_row() -> None:
    world = await joined()
    [trace] = await world.tracer.events(["pv"])
    first, event, raw, registry, data, warehouse, copy = words_of(trace, is_whole=True)
    assert first == "pv  page_view: row in page_views, with second event en"
    assert event == f"  event      page_view of page view v1, received {trace.answer.received_at}"
    assert raw == f"  raw file   {trace.answer.raw_key} line {trace.answer.line}"
    assert registry.endswith(f"open; block 0 on partition {trace.answer.partition}, offset 0 of topic blocks")
    assert data.startswith(f"  data       transaction {trace.answer.txn_id}, file data/page_views/")
    assert warehouse == f"  warehouse  visible since {trace.answer.row_visible_at}"
    assert copy.endswith(f": duplicate of batch {trace.answer.batch_id} line {trace.answer.line}")
    assert all(line.raw is None for line in trace.lines), "personal data is shown only when it is asked for"
