"""How many rows were received in which second, and how long page views waited."""

import numpy as np

from app.core.formats.flow_files import Moments
from app.core.sink.seconds import MOST_SECONDS, join_waits, received_seconds


def moments(*received_ms: int) -> Moments:
    return np.array(received_ms, np.int64)


def test_rows_are_counted_by_the_second_in_which_they_were_received() -> None:
    assert received_seconds(moments(1_999, 1_000, 7_500, -1)) == ((-1, 1), (1, 2), (7, 1))
    assert received_seconds(moments()) == ()


def test_rows_of_many_seconds_are_counted_by_minutes() -> None:
    found = received_seconds(moments(*(second * 1000 for second in range(600))))
    assert found == tuple((minute * 60 + 30, 60) for minute in range(10))
    assert len(received_seconds(moments(*(second * 1000 for second in range(MOST_SECONDS))))) == MOST_SECONDS


def test_a_page_view_waits_until_the_stream_time_that_closes_it() -> None:
    assert join_waits([moments(1_000, 1_400), moments(5_000), moments()], [121_000, 4_000, 9]) == {120: 1, 119: 1, 0: 1}
