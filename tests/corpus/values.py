"""The fixed values of which each sample was made. They may get more fields; what is there never changes."""

from typing import Any

import msgspec
import polars as pl
from pyroaring import BitMap

from app.core.audit.certificate import Certificate, SignedWith, sign
from app.core.etl.meta import EtlMeta
from app.core.etl.stream_time import ShardWatermarks
from app.core.formats.block import BlockHeader, End, RefusedRecord, WatermarkMessage
from app.core.formats.checkpoint import Barrier, Checkpoint
from app.core.formats.columns import DTYPES
from app.core.formats.dead_letter import LetterHead, Tally
from app.core.formats.flows import BY_NAME, ColumnKind
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import Changes, DeadLetter, LedgerEntry, Replay, StepMessage
from app.core.formats.transaction_record import OutputObject, TransactionRecord
from app.core.join.join_order import Due, join_key_of
from app.core.state.encoding import digest_of, pack_time
from tables.store.position import StorePosition

NOW_MS = 1_750_000_000_000
BATCH = "0190f3c0-0000-7000-8000-00000000c0de"
SHARD, CHILD = "shardId-000000000000", "shardId-000000000001"
SEQUENCE = "49590338271490256608559692538361571095921575989136588898"
TEXT = 'tab\t, quote ", LF\n, é, 読'
"""What a text column holds in a sample: all that a writer must quote or encode."""
LINES = (
    b'{"event_type":"page_view","event_id":"e1","page_view_id":"v1","occurred_at":1749999999000,"url":"https://example.com/",'
    b'"received_at":1750000000000,"ip":"203.0.113.9","user_agent":"Firefox"}\n'
    b'{"malformed":"line: not JSON","payload":"{oops","received_at":1750000000001}\n'
)
EVENT = (
    b'{"event_id":"e1","event_type":"page_view","page_view_id":"v1","occurred_at":1749999999000,"visitor_id":"u1",'
    b'"url":"https://example.com/a?b=1","referrer":"","article_id":"a1","properties":{"k":[1,"\\u00e9"]},"unknown":true,"section":17}'
)

HEADER = BlockHeader(
    epoch=3,
    batch_id=BATCH,
    block=1,
    blocks_in_batch=4,
    first_line=10,
    lines=2,
    partition=5,
    attempt=2,
    received_at_ms=NOW_MS,
)
TICK = WatermarkMessage({SHARD: NOW_MS}, {SHARD: [], CHILD: [SHARD]}, ["shardId-000000000009"])
END = End(SHARD)
REFUSED = RefusedRecord("shardId-000000000007", "49590338271490256608559692538361571095921575989136588898", "not a block")
CHECKPOINT = Checkpoint(SHARD, SEQUENCE, NOW_MS, finished=True, announced=True)
BARRIER = Barrier("0b7c9dbb8a8f4a4f9d6b8f0f2f7f8a90")
META = EtlMeta(
    stream_time_ms=NOW_MS, shards=ShardWatermarks({SHARD: NOW_MS}, {CHILD: [SHARD]}, [SHARD]),
    closed=Due(NOW_MS - 1, 1, "e1"), tally=Tally(900, 3),
)  # fmt: skip
POSITION = StorePosition(Accepted(41, 117), bytes(range(16)), 2000, NOW_MS, b"meta")
LETTER = LetterHead(
    reason="FrameInvalid: 4 bytes are not one zstd frame", epoch=3, partition=5, offset=117, appended_at_ms=NOW_MS,
    batch_id=BATCH, block=1, attempt=0, bytes=6,
)  # fmt: skip
LETTER_BODY = b"\x01\x00\n\xff{}"
_CERTIFICATE = Certificate(
    hour="2024-07-27T20", made_at_ms=NOW_MS, batches=2, lines=12,
    outcomes={"page_views": 5, "joined": 4, "duplicate": 1, "rejected": 1}, difference=1, digest="ab" * 32,
    signed_with=SignedWith.HMAC_SHA256,
)  # fmt: skip
CERTIFICATE = msgspec.structs.replace(_CERTIFICATE, signature=sign(_CERTIFICATE, "a key of the corpus"))
ITEM = RegistryItem(
    batch_id=BATCH, epoch=3, line_count=12, byte_count=345, sha256="ab" * 32,
    raw_key=f"raw/dt=2024-07-27/hour=20/{BATCH}.ndjson.zst",
    blocks=[BlockPlace(0, 0, 10, 0, 300), BlockPlace(5, 10, 2, 300, 45)], received_at_ms=NOW_MS, attempts=2,
    next_attempt_at_ms=NOW_MS + 60_000,
)  # fmt: skip


IDS = (["e1", None, "e2"], ["v1", "v1", None])
"""The ids of events and of page views in the lines of a batch."""


def rows_of(output: str, *, of_file: bool) -> pl.DataFrame:
    """Two rows of an output: one with a value in every column, one with NULL wherever that is allowed."""
    columns = [column for column in BY_NAME[output].columns if of_file or column.name != "txn_id"]
    values: dict[ColumnKind, Any] = {
        ColumnKind.STRING: TEXT, ColumnKind.TIMESTAMP: NOW_MS, ColumnKind.INTEGER: 7, ColumnKind.BOOLEAN: True,
    }  # fmt: skip
    data = {column.name: [values[column.kind], values[column.kind] if column.required else None] for column in columns}
    return pl.DataFrame(data, schema={column.name: DTYPES[column.kind] for column in columns})


def window_events(schema: dict[str, pl.DataType], *ids: str) -> pl.DataFrame:
    """Events as a frame of the window holds them."""
    rows = rows_of("page_views" if "url" in schema else "engagements", of_file=False).head(len(ids)).select(schema.keys())
    fixed = {
        "event_id": pl.Series(ids), "received_at": pl.Series([NOW_MS + n for n in range(len(ids))]),
        "digest": pl.Series([digest_of(f"v-{event_id}") for event_id in ids]), "size": pl.Series([400] * len(ids)),
    }  # fmt: skip
    return rows.with_columns(**fixed)


def step(rows: dict[str, bytes]) -> StepMessage:
    """A step with everything that a step can have."""
    return StepMessage(
        epoch=3, partition=5, number=42, predecessor=117, source_first=1990, source_last=2000, stream_time_ms=NOW_MS,
        meta=b"meta", rows=rows, row_counts=dict.fromkeys(rows, 2),
        ledger=[LedgerEntry(BATCH, "ad_clicks", 3, BitMap([0, 1, 65536]).serialize())], replays=[Replay(BATCH, 1, 2)],
        changes=[
            Changes.pack("seen", 16, [(digest_of("e1"), pack_time(NOW_MS)), (digest_of("e2"), pack_time(NOW_MS))]),
            Changes.pack("views", 16, [(digest_of("v1"), pack_time(NOW_MS) + join_key_of(NOW_MS, "e1"))]),
            Changes.pack("seconds", 9, [(bytes(8) + b"m", BitMap([1]).serialize())], [bytes(8) + b"d"]),
        ],
        alarms=["block refused"],
        dead_letters=[DeadLetter(1991, "EnvelopeInvalid: null"), DeadLetter(1992, "bad", BATCH, 2, 1)],
    )  # fmt: skip


OUTPUTS_OF_RECORD = (
    "page_views", "ad_impressions", "ad_clicks", "redirects", "engagements", "rejected", "ledger", "replays", "dead_letters",
)  # fmt: skip
"""The outputs of the sample's transaction; a later flow makes a longer record, and not another version of it."""


def record(accepted_gap: str | None = None) -> TransactionRecord:
    """A transaction with rows in two outputs."""
    txn, hour = "3-5-42-0badc0de", "dt=2025-06-15/hour=15"
    outputs = [OutputObject(output=name, rows=0) for name in OUTPUTS_OF_RECORD]
    for name in ("ad_clicks", "ledger"):
        kind = BY_NAME[name].format.value
        outputs[OUTPUTS_OF_RECORD.index(name)] = OutputObject(
            output=name, rows=2, bytes=99, sha256="cd" * 32, staged_key=f"jobdata/{txn}/{name}.{kind}",
            data_key=f"data/{name}/{hour}/{txn}.{kind}", manifest_key=f"manifests/{hour}/{txn}/{name}.manifest",
        )  # fmt: skip
    return TransactionRecord(
        txn_id=txn, epoch=3, partition=5, number=42, first_offset=100, last_offset=117, step_number=41, step_offset=116,
        step_digest="ef" * 16, stream_time_ms=NOW_MS, committed_at_ms=NOW_MS + 5, outputs=outputs,
        ready_key=f"manifests/{hour}/{txn}/ready.json", accepted_gap=accepted_gap,
    )  # fmt: skip
