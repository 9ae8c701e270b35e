"""Every format that is stored or sent: how its sample is written today, how any version is read, and what it may raise."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
import polars as pl
from pyroaring import BitMap

from app.core.audit.certificate import CERTIFICATE_VERSION, decode_certificate, encode_certificate
from app.core.delivery.load_plan import Failure, FailureClass, log_row, output_loads
from app.core.delivery.statements import LogRow
from app.core.etl.flow_rows import PENDING_COLUMNS, PENDING_SCHEMA, SECONDS_COLUMNS, SECONDS_SCHEMA
from app.core.etl.meta import META_VERSION, decode_meta, encode_meta
from app.core.events.parse import parse_line
from app.core.events.read_stored import read_stored_line
from app.core.formats.batch import cut_again, seal
from app.core.formats.block import (
    BLOCK_VERSION,
    CONTROL_VERSION,
    decode_control,
    decode_header,
    decode_refused,
    encode_block,
    encode_control,
    encode_refused,
    frame_of,
    open_frame,
)
from app.core.formats.checkpoint import MESSAGE_VERSION, decode, encode
from app.core.formats.columns import pack_frame
from app.core.formats.dead_letter import LETTER_VERSION, decode_letter, encode_letter
from app.core.formats.decoding import read, read_bitmap, reading
from app.core.formats.erasure import ERASURE_VERSION, decode_erasure, encode_erasure
from app.core.formats.flow_files import concat_rows, encode_output, refuse_unknown_rows
from app.core.formats.flows import BY_NAME, ENGAGEMENTS, FLOWS, OUTPUTS, PAGE_VIEWS
from app.core.formats.id_index import INDEX_VERSION, IdsOfBatch, build, decode_segment, encode_segment
from app.core.formats.read_files import decode_output
from app.core.formats.registry_item import ITEM_VERSION, BlockPlace, RegistryItem, decode_item, encode_item
from app.core.formats.step_message import MAGIC, STEP_VERSION, decode_followed, decode_step, digest_of, encode_step
from app.core.formats.stored_line import StoredLine
from app.core.formats.transaction_record import READY_VERSION, RECORD_VERSION, read_ready, ready_of
from app.core.join.join_order import FIRST, SECOND, id_in, join_key_of, joining_key_in, time_in
from app.core.join.window_state import read_frame
from app.core.sink.chain import ChainId, decode_record, effects_of, encode_record, manifest_of
from app.core.state.encoding import digest_of as digest_of_id
from app.core.state.encoding import pack_time, unpack_time
from app.core.state.tables import refuse_unknown_tables
from app.errors import ChainBroken, EnvelopeInvalid, FormatInvalid, FrameInvalid, NewerFormat, StepMessageInvalid
from app.local.redshift.files import Manifest
from tables.dimensions import read_attributes
from tables.store.position import decode_position, encode_position
from tests.corpus import values
from tests.corpus.values import BATCH, NOW_MS

Read = Callable[[bytes], Any]


class Format(NamedTuple):
    """One format."""

    name: str
    version: int
    """What its writer writes today."""
    read: Callable[..., Any]
    """The value in a sample of any version, or an error; see `value_in`."""
    write: Callable[[], bytes] | None
    """Today's sample of the fixed values; None where others write it."""
    errors: tuple[type[Exception], ...] = (FormatInvalid, NewerFormat)
    """All that `read` may raise, whatever the bytes."""
    told: Read = bytes
    """What of the bytes a version promises; all of them, but for what a library compresses."""
    names_no_version: bool = False
    """Whether the bytes do not name their version, so that the reader is told (of a file its transaction's record says)."""

    def value_in(self, data: bytes, version: int) -> Any:
        """The value in bytes of this version."""
        return self.read(data, version) if self.names_no_version else self.read(data)


# --- raw files and topic `blocks`


def _line(_: bytes = b"") -> bytes:
    return parse_line(values.EVENT, "browser", NOW_MS, "203.0.113.9", "Firefox").data


def _read_line(line: bytes) -> dict[str, Any]:
    return {name: value for name, value in read_stored_line(line).items() if value is not None}


def _raw() -> bytes:
    return seal(BATCH, 1, 1, [StoredLine(line, b"k", True, None, NOW_MS) for line in values.LINES.splitlines()]).raw


def _read_raw(raw: bytes) -> Any:
    """The raw file's only block, cut as the audit cuts it."""
    lines = open_frame(raw).count(b"\n")
    item = msgspec.structs.replace(
        values.ITEM, line_count=lines, byte_count=len(raw), sha256=hashlib.sha256(raw).hexdigest(),
        blocks=[BlockPlace(0, 0, lines, 0, len(raw))],
    )  # fmt: skip
    return [_read_block(block) for block in cut_again(raw, item, 1)]


def _read_block(message: bytes) -> Any:
    return decode_header(message), open_frame(frame_of(message))


def _read_item(text: bytes) -> RegistryItem:
    """The item with these attributes; DynamoDB always answers with a map, whatever is in it."""
    return decode_item(read(msgspec.json.Decoder(dict[str, Any]), text, "attributes"))


def _read_index(data: bytes) -> Any:
    """The batches and the entries of a segment."""
    segment = decode_segment(data)
    return segment.batch_ids, list(segment.events), list(segment.views)


OF_BLOCKS = (
    Format("stored_line", 2, _read_line, _line),
    Format("raw_file", ITEM_VERSION, _read_raw, _raw, told=open_frame),
    Format(
        "block", BLOCK_VERSION, _read_block, lambda: encode_block(values.HEADER, _raw()),
        (EnvelopeInvalid, FrameInvalid, NewerFormat), lambda message: (message[:53], open_frame(message[53:])),
    ),
    Format(
        "watermark_message", CONTROL_VERSION - 128, decode_control, lambda: encode_control(values.TICK),
        (EnvelopeInvalid, NewerFormat),
    ),
    Format("end", CONTROL_VERSION - 128, decode_control, lambda: encode_control(values.END), (EnvelopeInvalid, NewerFormat)),
    Format("refused_record", 1, decode_refused, lambda: encode_refused(values.REFUSED, b"no block"), ()),
    Format("checkpoint", MESSAGE_VERSION, decode, lambda: encode(values.CHECKPOINT)),
    Format("barrier", MESSAGE_VERSION, decode, lambda: encode(values.BARRIER)),
    Format("dead_letter", LETTER_VERSION, decode_letter, lambda: encode_letter(values.LETTER, values.LETTER_BODY)),
    Format("registry_item", ITEM_VERSION, _read_item, lambda: _json(encode_item(values.ITEM))),
    Format("index_segment", INDEX_VERSION, _read_index, lambda: encode_segment(build([IdsOfBatch(BATCH, *values.IDS)]))),
    Format("article", 1, read_attributes, None),
    Format("campaign", 1, read_attributes, None),
)  # fmt: skip


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


# --- topic `rows` and the state


def _step() -> bytes:
    """A step with rows of their first version: rows have versions of their own."""
    names = [name for name in BY_NAME["ad_clicks"].at(1).names if name != "txn_id"]
    return encode_step(values.step({"ad_clicks": pack_frame(values.rows_of("ad_clicks", of_file=False)[names])}))


def _rows(flow: str) -> bytes:
    return pack_frame(values.rows_of(flow, of_file=False))


def _read_rows(flow: str, packed: bytes) -> pl.DataFrame:
    refuse_unknown_rows({flow: packed})
    return concat_rows(flow, [packed], "txn")


def _read_step(message: bytes) -> Any:
    step = decode_step(message)
    assert decode_followed(message).changes == step.changes
    refuse_unknown_tables(step.changes)
    changes = [(change.table, list(change.puts()), list(change.deleted())) for change in step.changes]
    rows = {flow: _read_rows(flow, packed) for flow, packed in step.rows.items() if flow in BY_NAME}
    return msgspec.structs.asdict(step) | {"changes": changes, "rows": rows, "digest": digest_of(message)}


def _told_of_step(message: bytes) -> Any:
    fields = msgspec.msgpack.decode(message[len(MAGIC) :])
    fields[8] = {flow: _told_of_frame(packed) for flow, packed in fields[8].items()}
    return message[: len(MAGIC)], fields


def _told_of_frame(packed: bytes) -> Any:
    frame = pl.read_ipc_stream(packed)
    return dict(frame.schema), frame.to_dict(as_series=False)


def _window(schema: dict[str, pl.DataType], columns: frozenset[str]) -> bytes:
    events = values.window_events(schema, "e1", "e2")
    assert set(events.columns) == set(columns)
    return pack_frame(events)


def _view() -> bytes:
    return pack_time(NOW_MS) + join_key_of(NOW_MS - 1, "e1")


def _read_view(value: bytes) -> Any:
    with reading("value of table views"):
        join_key = joining_key_in(value)
        return unpack_time(value), time_in(join_key), id_in(join_key)


def _read_time(value: bytes) -> int:
    with reading("stored time"):
        return unpack_time(value)


OF_ROWS = (
    Format("step_message", STEP_VERSION, _read_step, _step, (StepMessageInvalid, FormatInvalid, NewerFormat), _told_of_step),
    *(
        Format(f"rows.{f.name}", f.version, partial(_read_rows, f.name), partial(_rows, f.name), told=_told_of_frame)
        for f in FLOWS
    ),
    Format("etl_meta", META_VERSION, decode_meta, lambda: encode_meta(values.META), (StepMessageInvalid, NewerFormat)),
    Format("store_position", 1, decode_position, lambda: encode_position(values.POSITION)),
    Format(
        "pending", PAGE_VIEWS.version, partial(read_frame, FIRST), lambda: _window(PENDING_SCHEMA, PENDING_COLUMNS),
        told=_told_of_frame,
    ),
    Format(
        "seconds", ENGAGEMENTS.version, partial(read_frame, SECOND), lambda: _window(SECONDS_SCHEMA, SECONDS_COLUMNS),
        told=_told_of_frame,
    ),
    Format("seconds_mask", 1, lambda value: read_bitmap(value, "mask"), lambda: BitMap([0, 5, 70000]).serialize()),
    Format("stored_time", 1, _read_time, lambda: pack_time(NOW_MS)),
    Format("view", 1, _read_view, _view),
    Format("digest", 1, bytes, lambda: digest_of_id("e1")),
    Format("block_key", 1, bytes, lambda: values.HEADER.key),
)  # fmt: skip


# --- transactions, and what the warehouse reads


def _manifest() -> bytes:
    (load,) = [load for load in output_loads([ready_of(values.record())], "load", "lake") if load.flow.name == "ledger"]
    return load.manifest


def _log_row() -> bytes:
    return _json(log_row(ready_of(values.record()), "0001750000000-00", Failure(FailureClass.DATA, "data", values.TEXT)))


def _read_log_row(text: bytes) -> LogRow:
    return read(msgspec.json.Decoder(LogRow), text, "row of delivery_log")


def _read_manifest(text: bytes) -> Manifest:
    return read(msgspec.json.Decoder(Manifest), text, "manifest")


def _file(output: str) -> bytes:
    return encode_output(output, values.rows_of(output, of_file=True))


def _read_file(output: str, body: bytes, version: int | None = None) -> pl.DataFrame:
    return decode_output(output, body, version)


def _told(output: str, body: bytes) -> Any:
    return decode_output(output, body).to_dict(as_series=False)


OF_TRANSACTIONS = (
    Format(
        "transaction_record", RECORD_VERSION, lambda body: decode_record(body, ChainId(3, 5), 42),
        lambda: encode_record(values.record("engineer: rows 90-99 expired")), (ChainBroken, NewerFormat),
    ),
    Format("ready", READY_VERSION, read_ready, lambda: effects_of(values.record(), "lake").ready.body),
    Format("manifest", 1, _read_manifest, lambda: manifest_of("lake", values.record().outputs)),
    Format("load_manifest", 1, _read_manifest, _manifest),
    Format("delivery_log", 1, _read_log_row, _log_row),
    Format("erasure", ERASURE_VERSION, decode_erasure, lambda: encode_erasure(values.ERASURE)),
    Format("certificate", CERTIFICATE_VERSION, decode_certificate, lambda: encode_certificate(values.CERTIFICATE)),
    *(
        Format(
            f"file.{f.name}", f.version, partial(_read_file, f.name), partial(_file, f.name), told=partial(_told, f.name),
            names_no_version=True,
        )
        for f in OUTPUTS
    ),
)  # fmt: skip

FORMATS = {made.name: made for made in (*OF_BLOCKS, *OF_ROWS, *OF_TRANSACTIONS)}
