"""Kernels write the files of the plain writers, byte for byte, however the rows are cut into steps."""

import io
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.formats import flow_files, kernel_files
from app.core.formats.columns import pack_frame
from app.core.formats.flow_files import MAX_TIMESTAMP_MS, FlowFile, concat_rows, encode_output
from app.core.formats.flows import FLOWS, Flow
from app.errors import FormatInvalid
from tests.property.test_writers_round_trip import frames

TXN = '1-0-12-"ab'
ROWS = pl.DataFrame({"event_id": ["a", None], "received_at": [1, None]})
LONG = st.sampled_from(["x" * 40_000, "é" * 9000, '"' * 700, "\\" * 70])


def streams_of(data: st.DataObject, frame: pl.DataFrame) -> list[bytes]:
    """The rows in steps; a step leaves out some of the columns that hold nothing in it."""
    cuts = sorted(data.draw(st.lists(st.integers(0, frame.height), max_size=3)))
    steps = [frame[start:end] for start, end in zip([0, *cuts], [*cuts, frame.height], strict=True)]
    return [
        pack_frame(step.select(column for column in step if column.name == "batch_id" or column.null_count() < step.height))
        for step in steps if step.height
    ]  # fmt: skip


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_same_bytes(flow: Flow, data: st.DataObject) -> None:
    frame = data.draw(frames(flow)).drop("txn_id")
    if frame.height and data.draw(st.booleans()):
        frame = frame.with_columns(pl.Series("batch_id", [data.draw(LONG)] * frame.height))
    streams = streams_of(data, frame)
    made = kernel_files.encode_streams(flow.name, streams, TXN)
    plain = flow_files.encode_streams(flow.name, streams, TXN)
    assert (made.rows, made.body) == (plain.rows, plain.body)
    received = [[moment for moment in step if moment is not None] for step in received_in(streams)]
    assert [each.tolist() for each in made.received_ms] == received
    assert [each.tolist() for each in plain.received_ms] == received


def received_in(streams: list[bytes]) -> list[list[int | None]]:
    steps = [pl.read_ipc_stream(io.BytesIO(stream)) for stream in streams]
    return [step["received_at"].to_list() if "received_at" in step.columns else [] for step in steps]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The outputs that were left to the plain writer."""
    names: list[str] = []
    plain = flow_files.encode_streams

    def noted(output: str, streams: Sequence[bytes], txn_id: str) -> FlowFile:
        names.append(output)
        return plain(output, streams, txn_id)

    monkeypatch.setattr(flow_files, "encode_streams", noted)
    return names


@pytest.mark.parametrize("kind", [pl.Float64(), pl.Int32(), pl.Null(), pl.String()])
def test_rows_of_another_type_are_refused(kind: pl.DataType) -> None:
    rows = pl.DataFrame({"event_id": ["e"], "occurred_at": [None]}, schema={"event_id": pl.String(), "occurred_at": kind})
    with pytest.raises(FormatInvalid, match="another type"):
        kernel_files.encode_streams("page_views", [pack_frame(rows)], TXN)


@pytest.mark.parametrize("rows", [pl.DataFrame({"event_id": ["x" * (1 << 20)]}), pl.DataFrame(height=2)])
def test_what_kernels_do_not_take_is_left_to_the_plain_writer(rows: pl.DataFrame, left: list[str]) -> None:
    streams = [pack_frame(ROWS), pack_frame(rows)]
    made = kernel_files.encode_streams("page_views", streams, TXN)
    assert left == ["page_views"]
    assert made.body == encode_output("page_views", concat_rows("page_views", streams, TXN))


def test_a_time_that_no_warehouse_reads_is_refused() -> None:
    rows = pl.DataFrame({"event_id": ["e"], "occurred_at": [MAX_TIMESTAMP_MS + 1]})
    with pytest.raises(FormatInvalid, match="occurred_at"):
        kernel_files.encode_streams("page_views", [pack_frame(rows)], TXN)


def test_more_rows_than_are_written_at_a_time(left: list[str]) -> None:
    rows = pl.DataFrame({"event_id": [f"e{n}" if n % 7 else None for n in range(1500)], "payload": ["p" * 4000] * 1500})
    streams = [pack_frame(rows), pack_frame(rows[3:515]), pack_frame(rows[:1])]
    made = kernel_files.encode_streams("rejected", streams, TXN)
    assert made.body == encode_output("rejected", concat_rows("rejected", streams, TXN))
    assert not left
