"""A rebuild of batches in memory: its margins, what it leaves out, and its slices on disk."""

import asyncio
from pathlib import Path

import polars as pl
import pytest
from pyroaring import BitMap

from agents.audit.rebuild.load import Parts
from agents.audit.rebuild.offline import Made
from agents.audit.rebuild.raw_blocks import EpochPartition
from agents.audit.rebuild.report import RebuildComparison
from agents.audit.rebuild.row_files import RowFiles, slices_of
from app.adapters.rebuilt_schema import check_schema
from app.core.formats.batch import batch_time_ms
from app.core.formats.read_files import decode_output
from app.core.formats.step_message import LedgerEntry
from app.core.rebuild.span import MADE_WITHIN_MS, BatchSpan
from app.errors import ConfigurationError
from tests.builders.source_log import at_ms, etl_rules, event, second
from tests.worlds.rebuild import RawWorld, live_rows

ALL = BatchSpan(at_ms(-10_000), at_ms(10_000))


def test_rows_of_a_span_are_whole_although_their_second_events_lie_outside(tmp_path: Path) -> None:
    world = RawWorld()
    first = world.add(event("first", view="v1", at_s=0), event("alone", view="v2", at_s=0))
    last = world.add(second("second", view="v1", at_s=119))
    steps = world.live([0, 1])
    made_ms = batch_time_ms(first.batch_id)
    rebuilt = world.rebuilt(tmp_path, BatchSpan(made_ms, made_ms + 1))
    assert rebuilt.rows() == live_rows(steps)
    assert rebuilt.ledger() == {(first.batch_id, 0): "page_views", (first.batch_id, 1): "page_views"}
    assert "'joined', True" in str(rebuilt.rows())
    assert rebuilt.batches.lines == {first.batch_id: 2, last.batch_id: 1}


def test_raw_files_beyond_the_margins_are_not_read(tmp_path: Path) -> None:
    world = RawWorld()
    far_s = (world.rules.join.settle_ms + MADE_WITHIN_MS) / 1000
    batches = [
        world.add(event(f"e{n}", "ad_click", view=f"v{n}", at_s=at_s)) for n, at_s in enumerate((0, far_s, far_s + 1))
    ]
    made_ms = batch_time_ms(batches[0].batch_id)
    assert list(world.rebuilt(tmp_path, BatchSpan(made_ms, made_ms + 1)).batches.lines) == [
        batch.batch_id for batch in batches[:2]
    ]
    (tmp_path / "later").mkdir()
    rebuilt = world.rebuilt(tmp_path / "later", BatchSpan(batch_time_ms(batches[2].batch_id), at_ms(99_999)))
    assert sorted(rebuilt.batches.lines) == sorted(b.batch_id for b in batches[1:])


def test_a_copy_of_an_event_before_the_margins_is_a_duplicate_if_the_ledger_says_so(tmp_path: Path) -> None:
    world = RawWorld()
    world.add(event("e1", "ad_click", at_s=0))
    copy = world.add(event("e1", "ad_click", at_s=5000))
    steps = world.live([0, 1])
    made_ms = batch_time_ms(copy.batch_id)
    rebuilt = world.rebuilt(tmp_path, BatchSpan(made_ms, made_ms + 1), steps)
    assert rebuilt.ledger() == {(copy.batch_id, 0): "duplicate"}
    assert rebuilt.rows() == []


def test_raw_files_without_a_promise_or_with_other_bytes_are_left_out_and_named(tmp_path: Path) -> None:
    world = RawWorld()
    good = world.add(event("e1", "ad_click"))
    never = world.add(event("e2", "ad_click"), register=False)
    damaged = world.add(event("e3", "ad_click"))
    asyncio.run(world.store.put(damaged.item.raw_key, damaged.raw[:-1]))
    asyncio.run(world.store.put("raw/dt=2025-06-15/hour=15/notes.txt", b"none of ours"))
    rebuilt = world.rebuilt(tmp_path, ALL)
    assert rebuilt.batches.unregistered == [never.item.raw_key]
    assert rebuilt.batches.damaged == [damaged.item.raw_key]
    assert rebuilt.ledger() == {(good.batch_id, 0): "ad_clicks"}


def test_every_epoch_and_partition_goes_by_itself(tmp_path: Path) -> None:
    world = RawWorld(etl_rules(partitions=4))
    world.add(*(event(f"e{n}", "ad_click", view=f"v{n}") for n in range(40)))
    rebuilt = world.rebuilt(tmp_path, ALL)
    assert rebuilt.partitions == [EpochPartition(1, n) for n in range(4)]
    assert len(rebuilt.ledger()) == len(rebuilt.rows()) == 40


def test_a_step_that_fails_is_taken_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.core.etl.step import PartitionEtl

    decide, calls = PartitionEtl.decide, []

    def failing(self, messages, number, predecessor, *, careful=False):  # type: ignore[no-untyped-def]
        calls.append(careful)
        if not careful:
            raise ValueError("a line that no columnar reader takes")
        return decide(self, messages, number, predecessor, careful=careful)

    monkeypatch.setattr(PartitionEtl, "decide", failing)
    world = RawWorld()
    world.add(event("e1", "ad_click"))
    assert len(world.rebuilt(tmp_path, ALL).rows()) == 1
    assert calls == [False, True] * 2  # the first step only learns the time


def entry(batch_id: str, *lines: int, outcome: str = "ad_clicks") -> LedgerEntry:
    return LedgerEntry(batch_id, outcome, len(lines), BitMap(lines).serialize())


def rows(*places: tuple[str, int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"batch_id": [b for b, _ in places], "line": [n for _, n in places], "event_id": ["e"] * len(places)}
    )


def test_slices_have_whole_batches_in_the_order_of_their_ids() -> None:
    found = slices_of({"c": 3, "a": 5, "b": 4, "d": 99, "e": 1}, "z", most_lines=9)
    assert [(each.number, each.batch_ids, each.end_id) for each in found] == [
        (0, ["a", "b"], "c"), (1, ["c"], "d"), (2, ["d"], "e"), (3, ["e"], "z"),
    ]  # fmt: skip
    assert slices_of({}, "z") == []


def test_what_goes_into_slices_comes_out_of_them(tmp_path: Path) -> None:
    files = RowFiles(tmp_path, slices_of({"a": 2, "b": 2}, "z", most_lines=2))
    files.add(Made({"ad_clicks": rows(("a", 0), ("b", 1))}, [entry("a", 0), entry("b", 1)]))
    files.add(Made({"ad_clicks": rows(("a", 1))}, [entry("a", 1), entry("b", 0, outcome="joined")]))
    assert files.rows(0, "ad_clicks").select("batch_id", "line").rows() == [("a", 0), ("a", 1)]
    assert files.rows(0, "redirects").rows() == []
    assert files.outcomes(0) == {"a": {"ad_clicks": BitMap([0, 1])}}
    assert files.outcomes(1) == {"b": {"ad_clicks": BitMap([1]), "joined": BitMap([0])}}
    files.drop(0)
    assert files.rows(0, "ad_clicks").rows() == []
    assert files.rows(1, "ad_clicks").height == 1


def test_parts_have_the_files_that_delivery_would_copy() -> None:
    parts = Parts("0001795000000000-00ff")
    parts.take(Made({"ad_clicks": rows(("a", 0), ("a", 1))}, [entry("a", 0, 1)]))
    stored = dict(parts.close(EpochPartition(1, 3)))
    assert list(parts.close(EpochPartition(1, 3))) == []
    (ready,) = parts.ready
    assert {(out.output, out.rows) for out in ready.outputs} == {("ad_clicks", 2), ("ledger", 1)}
    assert {out.data_key for out in ready.outputs} == set(stored)
    (clicks,) = [out for out in ready.outputs if out.output == "ad_clicks"]
    frame = decode_output("ad_clicks", stored[clicks.data_key or ""], clicks.columns_version)
    assert set(frame["txn_id"].to_list()) == {"1-3-1-00ff"} == {ready.txn_id}


@pytest.mark.parametrize("name", ["analytics", "public", "information_schema", "pg_temp", "Again", "a-b", 'x"y', ""])
def test_a_rebuild_writes_into_no_schema_of_another_use(name: str) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        check_schema(name)


def test_lines_of_another_outcome_add_up_over_batches() -> None:
    found = RebuildComparison(most=2)
    for batch_id in ("a", "b"):
        found.add_moved(batch_id, {("page_views", "rejected"): BitMap([1, 5])})
    (moved,) = found.moved
    assert (moved.lines, moved.first) == (4, [("a", 1), ("a", 5)])
    assert not found.is_equal
