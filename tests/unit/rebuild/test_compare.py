"""Rows of the warehouse against rows of a rebuild."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
from pyroaring import BitMap

from app.core.formats.flows import AD_CLICKS
from app.core.rebuild.compare import comparable, compare_rows, found_rows, moved_lines

AT_MS = 1_795_000_000_123


def made(*lines: int, **columns: Any) -> pl.DataFrame:
    """Rows of a rebuild: a step leaves out columns without values."""
    rows = {"batch_id": ["b"] * len(lines), "line": list(lines), "received_at": [AT_MS] * len(lines), "country": ""}
    return comparable(AD_CLICKS, pl.DataFrame({**rows, "browser": "Firefox", **columns}))


def there(*lines: int, **columns: Any) -> pl.DataFrame:
    """The same rows as the warehouse gives them."""
    received = datetime.fromtimestamp(AT_MS / 1000, UTC).replace(tzinfo=None)
    given: dict[str, Any] = {"received_at": received, "browser": "Firefox", "batch_id": "b", "txn_id": "1-0-1-ff", **columns}
    rows = [[line if name == "line" else given.get(name) for name in AD_CLICKS.names] for line in lines]
    return found_rows(AD_CLICKS, rows)


def test_equal_rows_do_not_differ_whatever_their_transaction_and_order() -> None:
    assert compare_rows(AD_CLICKS, there(3, 1, 2), made(1, 2, 3)).is_empty
    assert compare_rows(AD_CLICKS, there(), made()).is_empty


def test_lines_that_one_side_lacks_are_named() -> None:
    found = compare_rows(AD_CLICKS, there(1, 2), made(2, 3))
    assert (found.missing, found.extra, found.doubled, found.rows_changed) == ([("b", 3)], [("b", 1)], [], 0)


def test_a_doubled_row_is_named_once_and_is_no_other_difference() -> None:
    found = compare_rows(AD_CLICKS, there(1, 2, 2, 2), made(1, 2))
    assert (found.missing, found.extra, found.doubled, found.rows_changed) == ([], [], [("b", 2)], 0)


def test_a_changed_value_is_shown_with_its_column_and_null_is_a_value() -> None:
    found = compare_rows(AD_CLICKS, there(1, 2, browser="Chrome", country="DE"), made(1, 2), most=1)
    assert found.changed == {"country": 2, "browser": 2}
    assert found.rows_changed == 2
    (first,) = found.first_changed
    assert first == ("b", 1, {"country": ("DE", None), "browser": ("Chrome", "Firefox")})


def test_a_time_differs_by_a_microsecond() -> None:
    moved = datetime.fromtimestamp(AT_MS / 1000, UTC).replace(tzinfo=None, microsecond=123_001)
    assert compare_rows(AD_CLICKS, there(1, received_at=moved), made(1)).changed == {"received_at": 1}


def test_columns_that_are_left_out_are_not_compared() -> None:
    assert compare_rows(AD_CLICKS, there(1, browser="Chrome"), made(1), left_out={"browser"}).is_empty


def test_lines_of_another_outcome_are_paired() -> None:
    found = {"page_views": BitMap([0, 1, 2]), "joined": BitMap([3])}
    rebuilt = {"page_views": BitMap([0]), "rejected": BitMap([1]), "joined": BitMap([3, 4])}
    assert moved_lines(found, rebuilt) == {
        ("page_views", "rejected"): BitMap([1]), ("page_views", "none"): BitMap([2]), ("none", "joined"): BitMap([4]),
    }  # fmt: skip
    assert moved_lines(found, found) == {}
    assert moved_lines({}, {}) == {}
