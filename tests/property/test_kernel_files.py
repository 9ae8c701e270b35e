"""Kernels write the files of the plain writers, byte for byte, however the rows are cut into steps."""

import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.formats.columns import pack_frame
from app.core.formats.flow_files import concat_rows, encode_output
from app.core.formats.flows import FLOWS, Flow
from app.core.formats.kernel_files import encode_streams
from tests.property.test_writers_round_trip import frames

TXN = '1-0-12-"ab'
ROWS = pl.DataFrame({"event_id": ["a", None], "received_at": [1, None]})
LONG = st.sampled_from(["x" * 40_000, "é" * 9000, '"' * 700, "\\" * 70])


def streams_of(data: st.DataObject, frame: pl.DataFrame) -> list[bytes]:
    """The rows in steps; a step leaves out some of the columns that hold nothing in it."""
    cuts = sorted(data.draw(st.lists(st.integers(0, frame.height), max_size=3)))
    steps = [frame[start:end] for start, end in zip([0, *cuts], [*cuts, frame.height], strict=True)]
    return [
        pack_frame(step.select(column for column in step if column.null_count() < step.height))
        for step in steps
        if step.height
    ]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_same_bytes(flow: Flow, data: st.DataObject) -> None:
    frame = data.draw(frames(flow)).drop("txn_id")
    if frame.height and data.draw(st.booleans()):
        frame = frame.with_columns(pl.Series("batch_id", [data.draw(LONG)] * frame.height))
    streams = streams_of(data, frame)
    made = encode_streams(flow.name, streams, TXN)
    assert made is not None
    plain = concat_rows(flow.name, streams, TXN)
    assert made.rows == plain.height
    assert made.body == encode_output(flow.name, plain)
    received = [pl.read_ipc_stream(io.BytesIO(stream)) for stream in streams]
    assert [each.tolist() for each in made.received_ms] == [
        step["received_at"].drop_nulls().to_list() if "received_at" in step.columns else [] for step in received
    ]


@pytest.mark.parametrize(
    "rows",
    [
        pl.DataFrame({"event_id": ["x" * (1 << 20)]}), pl.DataFrame({"received_at": [253_402_300_800_000]}),
        pl.DataFrame(height=2),
    ],
    ids=["a long text", "a far time", "nothing"],
)  # fmt: skip
def test_what_kernels_do_not_take_is_left_to_the_plain_writer(rows: pl.DataFrame) -> None:
    assert encode_streams("page_views", [pack_frame(ROWS), pack_frame(rows)], TXN) is None


def test_more_rows_than_are_written_at_a_time() -> None:
    rows = pl.DataFrame({"event_id": [f"e{n}" if n % 7 else None for n in range(1500)], "payload": ["p" * 4000] * 1500})
    streams = [pack_frame(rows), pack_frame(rows[3:515]), pack_frame(rows[:1])]
    made = encode_streams("rejected", streams, TXN)
    assert made is not None
    assert made.body == encode_output("rejected", concat_rows("rejected", streams, TXN))
