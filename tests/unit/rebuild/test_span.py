"""The batches of a span, and its margins."""

from app.core.formats.batch import new_batch_id
from app.core.rebuild.span import HOUR_MS, MADE_WITHIN_MS, BatchSpan, lowest_id
from app.core.rules import JoinRules

AT_MS = 1_795_000_000_000
JOIN = JoinRules(90_000, 30_000, 10_000)


def test_ids_of_a_span_lie_between_its_bounds_as_texts() -> None:
    span = BatchSpan(AT_MS, AT_MS + 10)
    inside = [new_batch_id(AT_MS + ms, bytes(10)) for ms in (0, 9)]
    outside = [new_batch_id(AT_MS - 1, b"\xff" * 10), new_batch_id(AT_MS + 10, bytes(10))]
    assert all(span.first_id <= batch_id < span.end_id and span.has(batch_id) for batch_id in inside)
    assert not any(span.first_id <= batch_id < span.end_id or span.has(batch_id) for batch_id in outside)
    assert lowest_id(AT_MS) < inside[0]


def test_the_margins_hold_a_join_and_the_look_back() -> None:
    span = BatchSpan(AT_MS, AT_MS + 1)
    assert span.widened(JOIN, 0) == (AT_MS - 130_000 - MADE_WITHIN_MS, AT_MS + 1 + 130_000 + MADE_WITHIN_MS)
    assert span.widened(JOIN, HOUR_MS).since_ms == AT_MS - HOUR_MS


def test_the_hours_of_a_span_are_those_that_it_touches() -> None:
    hour = 1_795_002_000_000 // HOUR_MS * HOUR_MS
    assert len(list(BatchSpan(hour, hour + HOUR_MS).hours())) == 1
    assert len(list(BatchSpan(hour - 1, hour + HOUR_MS + 1).hours())) == 3
    assert list(BatchSpan(0, 1).hours()) == ["dt=1970-01-01/hour=00"]
