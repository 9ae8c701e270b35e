"""What the files of each format look like, byte for byte where a warehouse depends on it."""

import base64
import bz2
import gzip
import io
import json
import subprocess
import sys

import fastavro
import polars as pl
import pytest
import zstandard
from pyroaring import BitMap

from app.core.formats.flow_files import (
    concat_rows,
    encode_output,
    frame_schema,
    ledger_frame,
    refuse_unknown_rows,
    replays_frame,
)
from app.core.formats.flows import BY_NAME, OUTPUTS, Format
from app.core.formats.read_files import decode_output
from app.core.formats.step_message import LedgerEntry, Replay
from app.errors import FormatInvalid, NewerFormat

DECOMPRESS = {
    Format.TSV_ZSTD: lambda body: zstandard.ZstdDecompressor().decompress(body),
    Format.TSV_GZIP: gzip.decompress,
    Format.TSV_BZIP2: bz2.decompress,
}


def frame_of(output: str, *rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(frame_schema(output)), **row} for row in rows], schema=frame_schema(output))


def stream_of(frame: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.write_ipc_stream(sink, compression="lz4")
    return sink.getvalue()


def fields_of(output: str, **values: object) -> dict[str, bytes]:
    """The raw bytes of each field of a one-row TSV file whose values hold no tab."""
    text = DECOMPRESS[BY_NAME[output].format](encode_output(output, frame_of(output, values)))
    assert text.endswith(b"\n")
    return dict(zip(BY_NAME[output].names, text[:-1].split(b"\t"), strict=True))


@pytest.mark.parametrize(
    ("column", "value", "written"),
    [
        ("url", None, b""),
        ("url", "", b'""'),
        ("url", "plain", b"plain"),
        ("url", 'say "x"', b'"say ""x"""'),
        ("url", "a\nb", b'"a\nb"'),
        ("url", "a\rb", b'"a\rb"'),
        ("url", "NULL", b"NULL"),
        ("url", "\\N", b"\\N"),
        ("url", " x ", b" x "),
        ("url", "\U0001f600\ufffd", "\U0001f600\ufffd".encode()),
        ("joined", True, b"true"),
        ("joined", False, b"false"),
        ("joined", None, b""),
        ("occurred_at", 1_700_000_000_123, b"2023-11-14 22:13:20.123000"),
        ("occurred_at", 946_684_800_000, b"2000-01-01 00:00:00.000000"),
        ("occurred_at", -1, b"1969-12-31 23:59:59.999000"),
        ("dwell_ms", 2**63 - 1, b"9223372036854775807"),
        ("dwell_ms", -(2**63), b"-9223372036854775808"),
        ("dwell_ms", None, b""),
    ],
)
def test_a_tsv_field(column: str, value: object, written: bytes) -> None:
    assert fields_of("page_views", **{column: value})[column] == written


def test_a_tab_is_quoted() -> None:
    frame = frame_of("replays", {"txn_id": "a\tb", "batch_id": "c", "block": 0, "attempt": 1})
    assert zstandard.ZstdDecompressor().decompress(encode_output("replays", frame)) == b'"a\tb"\tc\t0\t1\n'


@pytest.mark.parametrize("flow", OUTPUTS, ids=lambda flow: flow.name)
def test_a_file_without_rows_is_valid(flow) -> None:
    empty = pl.DataFrame(schema=frame_schema(flow.name))
    assert decode_output(flow.name, encode_output(flow.name, empty)).equals(empty)


@pytest.mark.parametrize("flow", OUTPUTS, ids=lambda flow: flow.name)
def test_the_same_rows_give_the_same_bytes_however_they_are_chunked(flow) -> None:
    row = {
        column.name: {"string": "x", "timestamp": 5, "integer": 7, "boolean": True}[column.kind] for column in flow.columns
    }
    whole = frame_of(flow.name, row, dict.fromkeys(row), row)
    chunks = pl.concat([whole[:1], whole[1:]], rechunk=False)
    assert encode_output(flow.name, whole) == encode_output(flow.name, chunks)
    assert encode_output(flow.name, whole) != encode_output(flow.name, whole[:2])


def test_gzip_carries_no_time() -> None:
    body = encode_output("ad_impressions", frame_of("ad_impressions", {"event_id": "e"}))
    assert body[4:8] == bytes(4)


def test_codecs_are_those_of_the_catalogue() -> None:
    for name, codec in (("ad_clicks", "deflate"), ("redirects", "deflate"), ("rejected", "null")):
        reader = fastavro.reader(io.BytesIO(encode_output(name, frame_of(name, {"event_id": "e"}))))
        assert reader.metadata["avro.codec"] == codec
        assert "logicalType" not in json.dumps(reader.writer_schema)


def test_avro_timestamps_are_milliseconds() -> None:
    body = encode_output("ad_clicks", frame_of("ad_clicks", {"event_id": "e", "occurred_at": 1_700_000_000_123}))
    assert next(fastavro.reader(io.BytesIO(body)))["occurred_at"] == 1_700_000_000_123


@pytest.mark.parametrize("moment_ms", [2**63 - 1, -(2**63), 253_402_300_800_000])
def test_a_time_that_no_warehouse_reads_is_refused(moment_ms: int) -> None:
    with pytest.raises(FormatInvalid, match="occurred_at"):
        encode_output("page_views", frame_of("page_views", {"occurred_at": moment_ms}))


def test_another_frame_is_refused() -> None:
    with pytest.raises(FormatInvalid):
        encode_output("replays", pl.DataFrame({"txn_id": ["t"]}))
    with pytest.raises(FormatInvalid):
        encode_output("replays", frame_of("replays").select(reversed(BY_NAME["replays"].names)))


@pytest.mark.parametrize("output", [flow.name for flow in OUTPUTS])
def test_other_bytes_are_refused(output: str) -> None:
    for body in (b"", b"neither", encode_output(output, frame_of(output, {"txn_id": "t"}))[:-9]):
        with pytest.raises(FormatInvalid):
            decode_output(output, body)


def test_rows_are_joined_in_order_and_get_their_transaction() -> None:
    one = frame_of("rejected", {"event_id": "a"}, {"event_id": "b"}).drop("txn_id")
    two = frame_of("rejected", {"event_id": "c"}).drop("txn_id")
    rows = concat_rows("rejected", [stream_of(one), stream_of(two)], "1-0-1-ff")
    assert rows.schema == frame_schema("rejected")
    assert rows["event_id"].to_list() == ["a", "b", "c"]
    assert rows["txn_id"].unique().to_list() == ["1-0-1-ff"]
    assert concat_rows("rejected", [], "1-0-1-ff").height == 0


def test_a_step_from_before_a_column_was_added_has_nulls_there() -> None:
    old = frame_of("rejected", {"event_id": "a", "ip": "i"}).drop("txn_id", "ip")
    new = frame_of("rejected", {"event_id": "b", "ip": "i"}).drop("txn_id")
    assert concat_rows("rejected", [stream_of(old), stream_of(new)], "t")["ip"].to_list() == [None, "i"]
    assert concat_rows("rejected", [stream_of(old)], "t")["ip"].to_list() == [None]


def test_a_column_that_the_flow_does_not_have_yet_is_passed_over_while_it_has_no_value() -> None:
    known = frame_of("rejected", {"event_id": "a"}, {"event_id": "b"}).drop("txn_id")
    stream = stream_of(known.with_columns(pl.lit(None, pl.Int64).alias("unknown")))
    refuse_unknown_rows({"rejected": stream})
    assert concat_rows("rejected", [stream], "t").equals(concat_rows("rejected", [stream_of(known)], "t"))
    half = stream_of(known.with_columns(pl.Series("unknown", [None, 1])))
    with pytest.raises(NewerFormat, match="column 'unknown'"):
        refuse_unknown_rows({"rejected": half})


def test_a_value_in_a_column_that_the_flow_does_not_have_yet_is_a_newer_step_s() -> None:
    stream = stream_of(pl.DataFrame({"event_id": ["e"], "unknown": [1]}))
    for take in (lambda: concat_rows("rejected", [stream], "t"), lambda: refuse_unknown_rows({"rejected": stream})):
        with pytest.raises(NewerFormat, match=r"rejected .*column 'unknown'"):
            take()
    with pytest.raises(NewerFormat, match="flow 'refunds'"):
        refuse_unknown_rows({"refunds": stream})


@pytest.mark.parametrize("stream", [b"nothing", stream_of(pl.DataFrame({"event_id": [1]}))])
def test_rows_that_are_not_the_flows_are_refused(stream: bytes) -> None:
    with pytest.raises(FormatInvalid):
        concat_rows("rejected", [stream], "t")


def test_ledger_and_replays() -> None:
    lines = BitMap([3, 4, 6]).serialize()
    ledger = ledger_frame([LedgerEntry("b", "joined", 3, lines), LedgerEntry("b", "joined", 2, b"\x00\xff")], "t")
    common = {"txn_id": "t", "batch_id": "b", "outcome": "joined"}
    damaged = dict.fromkeys(("first_line", "last_line", "line_bits"))
    assert ledger.to_dicts() == [
        common
        | {"lines": 3, "line_set": base64.b64encode(lines).decode(), "first_line": 3, "last_line": 6, "line_bits": "1101"},
        common | {"lines": 2, "line_set": base64.b64encode(b"\x00\xff").decode()} | damaged,
    ]
    replays = replays_frame([Replay("b", 3, 1)], "t")
    assert replays.to_dicts() == [{"txn_id": "t", "batch_id": "b", "block": 3, "attempt": 1}]
    assert ledger_frame([], "t").schema == frame_schema("ledger")
    assert replays_frame([], "t").schema == frame_schema("replays")


def test_every_process_writes_the_same_bytes() -> None:
    """Python's hashes differ from process to process, and with them the order of what comes out of a set."""
    script = (
        "import sys; from app.core.formats.flow_files import encode_output, frame_schema; import polars as pl; "
        "[sys.stdout.buffer.write(encode_output(name, pl.DataFrame(schema=frame_schema(name)))) for name in sys.argv[1:]]"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", script, "ad_clicks", "rejected"], env={"PYTHONHASHSEED": seed}, capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(made) == 1
