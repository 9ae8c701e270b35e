"""Which stored lines are a visitor's, and tombstones in their places (rule R7)."""

import random

import msgspec
import pytest
from pyroaring import BitMap

from app.core.erase.raw import erased_raw
from app.core.erase.visitors import Sought, is_named_in, lines_in
from app.core.formats.batch import cut_again, new_batch_id, partition_of, seal
from app.core.formats.block import decode_header, frame_of, open_frame
from app.core.formats.tombstone import tombstone
from app.core.repair.raw_file import item_of
from app.errors import FormatInvalid
from tests.builders.events import NOW_MS, event, parse, text
from tests.builders.source_log import block, enricher, etl_rules, log_of, malformed, tick
from tests.builders.source_log import event as of_log
from tests.worlds.etl_run import Run

ALICE = Sought(frozenset({"alice"}))


def found(sought: Sought, *lines: bytes) -> list[int]:
    stored = b"".join(parse(line).data + b"\n" for line in lines)
    return [each.line for each in lines_in(stored, 10, sought)]


@pytest.mark.parametrize(("line", "is_hers"), [
    (text(event(visitor_id="alice")), True),
    (text(event(visitor_id="alice2")), False),
    (text(event(visitor_id="bob", title="alice")), False),
    (text(event(visitor_id="bob", properties={"visitor_id": "alice"})), False),
    (text(event("engagement", visitor_id="alice", dwell_ms=1)), True),
    (b'{"visitor_id": "alice", "event_id', True),
    (b'{"visitor_id":alice,', True),
    (b'{"visitor_id": "ali\\u0063e"', True),
    (b'{"title": "alice"', False),
    (b'\xff{"visitor_id":"alice"}', True),
    (text({"visitor_id": "alice", "event_type": "page_view"}), True),
])  # fmt: skip
def test_lines_that_name_the_visitor_are_hers(line: bytes, is_hers: bool) -> None:
    other = text(event(visitor_id="bob"))
    assert found(ALICE, other, line, other) == ([11] if is_hers else [])


def test_a_cut_payload_names_a_visitor_only_by_its_field() -> None:
    assert is_named_in('{"visitor_id":"alice', ALICE)
    assert not is_named_in('{"visitor_id":"ali', ALICE)
    assert not is_named_in('{"page_view_id":"alice"', ALICE)
    assert is_named_in('{"page_view_id":"p1"', Sought(frozenset(), frozenset({"p1"})))


def test_ids_that_json_escapes_are_found() -> None:
    for visitor in ("ä", 'a"b', "a\\b", "\u2028", "a b"):
        assert found(Sought(frozenset({visitor})), text(event(visitor_id="x")), text(event(visitor_id=visitor))) == [11]


def test_lines_of_a_page_view_are_found_with_it() -> None:
    lines = [
        text(event(visitor_id="alice")),
        text(event("ad_click", event_id="x", ad_slot=1)),
        text(event(page_view_id="q")),
    ]
    assert found(ALICE, *lines) == [10]
    assert found(Sought(frozenset(), frozenset({"p1"})), *lines) == [10, 11]


def sealed_batch(partitions: int = 4):
    lines = [parse(text(event(event_id=f"e{n}", page_view_id=f"p{n % 5}")), received_at_ms=NOW_MS + n) for n in range(20)]
    return seal(new_batch_id(NOW_MS, random.Random(1).randbytes(10)), 1, partitions, lines)


def test_a_raw_file_keeps_blocks_numbers_times_and_partitions() -> None:
    sealed = sealed_batch()
    gone = BitMap(range(12)) | BitMap([17])  # all lines of some blocks
    raw, item = erased_raw(sealed.raw, sealed.item, gone, 4)
    assert item_of(raw, item.batch_id, 1, 4) == item
    for before, after in zip(sealed.blocks, cut_again(raw, item, 0), strict=True):
        assert decode_header(after) == decode_header(before)
        lines = [open_frame(frame_of(each)).split(b"\n")[:-1] for each in (before, after)]
        for n, (old, new) in enumerate(zip(*lines, strict=True), decode_header(before).first_line):
            assert (new == old) == (n not in gone)
            assert msgspec.json.decode(new)["received_at"] == msgspec.json.decode(old)["received_at"]
    assert erased_raw(raw, item, gone, 4) == (raw, item), "again"
    assert erased_raw(raw, sealed.item, gone, 4) == (raw, item), "by the item of the file before"
    assert erased_raw(sealed.raw, item, gone, 4) == (raw, item), "the file before, by the item behind"
    assert erased_raw(sealed.raw, sealed.item, BitMap(), 4) == (sealed.raw, sealed.item)


def test_a_file_with_other_blocks_is_refused() -> None:
    sealed = sealed_batch()
    with pytest.raises(FormatInvalid, match="other lines"):
        erased_raw(sealed.raw, msgspec.structs.replace(sealed.item, blocks=sealed.item.blocks[::-1]), BitMap([1]), 4)
    with pytest.raises(FormatInvalid, match="blocks, its item"):
        erased_raw(sealed.raw, msgspec.structs.replace(sealed.item, blocks=sealed.item.blocks[1:]), BitMap([1]), 4)


def test_a_tombstone_lies_on_the_partition_of_its_line() -> None:
    for partition in range(32):
        payload = msgspec.json.decode(tombstone(partition, 32, NOW_MS))["payload"]
        assert partition_of(payload.encode(), 32) == partition


def test_the_etl_gives_a_tombstone_the_outcome_erased_and_no_row() -> None:
    run = Run(etl_rules(), enricher())
    message = run.step(log_of([tick(s=0), block(of_log("a", "ad_click"), *[malformed("erased", "7")] * 2)]))
    outcomes = {entry.outcome: BitMap.deserialize(entry.line_set) for entry in message.ledger}
    assert outcomes == {"ad_clicks": BitMap([0]), "erased": BitMap([1, 2])}
    assert message.row_counts == {"ad_clicks": 1}
