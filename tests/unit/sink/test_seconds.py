"""How many rows were received in which second, and how long page views waited."""

import io

import polars as pl

from app.core.sink.seconds import MOST_SECONDS, emitted_parts, join_waits, received_seconds


def frame(*received_ms: int | None) -> pl.DataFrame:
    return pl.DataFrame({"received_at": list(received_ms)}, schema={"received_at": pl.Int64})


def stream(*received_ms: int) -> bytes:
    out = io.BytesIO()
    frame(*received_ms).with_columns(other=pl.lit("x")).write_ipc_stream(out, compression="lz4")
    return out.getvalue()


def test_rows_are_counted_by_the_second_in_which_they_were_received() -> None:
    assert received_seconds(frame(1_999, 1_000, 7_500, None)) == ((1, 2), (7, 1))
    assert received_seconds(pl.DataFrame({"txn_id": ["t"]})) == ()


def test_rows_of_many_seconds_are_counted_by_minutes() -> None:
    found = received_seconds(frame(*(second * 1000 for second in range(600))))
    assert found == tuple((minute * 60 + 30, 60) for minute in range(10))
    assert len(received_seconds(frame(*(second * 1000 for second in range(MOST_SECONDS))))) == MOST_SECONDS


def test_a_page_view_waits_until_the_stream_time_that_closes_it() -> None:
    parts = emitted_parts([stream(1_000, 1_400), stream(5_000)], [121_000, 4_000])
    assert join_waits(parts) == {120: 1, 119: 1, 0: 1}
