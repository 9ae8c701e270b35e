"""The order of blocks in a rebuild, and the time between them."""

import json

from app.core.formats.block import decode_control, is_control
from app.core.rebuild.source_log import (
    StoredBlock,
    copies_of,
    event_ids,
    messages_of,
    order_blocks,
    stream_times_ms,
)


def blocks(*received: int) -> list[StoredBlock]:
    return [StoredBlock(at, f"b{n}", 0) for n, at in enumerate(received)]


def test_blocks_go_in_the_order_of_their_receipt() -> None:
    assert order_blocks(blocks(30, 10, 20), {}) == [1, 2, 0]


def test_a_block_with_a_duplicate_waits_for_the_line_that_counted() -> None:
    assert order_blocks(blocks(10, 20, 30, 40), {0: {2}}) == [1, 2, 0, 3]


def test_a_chain_of_waits_is_followed() -> None:
    assert order_blocks(blocks(10, 20, 30), {0: {1}, 1: {2}}) == [2, 1, 0]


def test_blocks_that_wait_for_each_other_go_all_the_same_the_earliest_first() -> None:
    assert order_blocks(blocks(10, 20, 30), {0: {1}, 1: {0}}) == [2, 0, 1]


def test_a_block_does_not_wait_for_itself() -> None:
    assert order_blocks(blocks(10, 20), {0: {0}}) == [0, 1]


def test_time_stands_before_the_earliest_block_that_is_still_to_come() -> None:
    assert stream_times_ms([20, 10, 30, 25]) == [10, 10, 25, 25]


def test_time_is_said_only_where_it_moved_and_at_the_end() -> None:
    log = list(messages_of([(5, b"a"), (5, b"b"), (9, b"c")], 100))
    assert [m.offset for m in log] == list(range(6))
    told = [decode_control(m.value).watermarks["rebuild"] if is_control(m.value) else m.value for m in log]
    assert told == [5, b"a", b"b", 9, b"c", 100]


def test_ids_of_malformed_and_unreadable_lines_are_none() -> None:
    lines = [{"event_id": "e1"}, {"event_id": "e2", "malformed": "line: no"}, {"event_id": 7}]
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"{oops\n\xff\n"
    assert event_ids(text) == ["e1", None, None, None, None]


def test_a_copy_whose_first_line_came_before_the_blocks_is_named() -> None:
    found = copies_of({"here": [3, 1], "gone": [2]}, {"here": 1})
    assert found.before == {3: {1}}
    assert found.unmet == {"gone"}
