"""What the warehouse and the raw files hold of some batches, compared with the cases that were sent."""

import base64
import io
import json
import uuid
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import NamedTuple

import boto3
import psycopg
import zstandard
from pyroaring import BitMap

from tests.e2e.content_cases import COLUMNS, Case, Event, moment
from tests.e2e.content_faults import AS_RECEIVED


class Answered(NamedTuple):
    """A request's batch, and the times between which it was received."""

    batch_id: str
    sent_ms: int
    answered_ms: int
    key_kind: str


Rows = list[tuple[str, Event]]
"""(flow, row) with every column, timestamps naive, properties parsed."""


async def rows_of(warehouse_url: str, batch_ids: Sequence[str]) -> tuple[Rows, dict[str, dict[str, BitMap]]]:
    """All rows of some batches, and their ledger: batch -> outcome -> lines."""
    rows: Rows = []
    ledger: dict[str, dict[str, BitMap]] = defaultdict(dict)
    connect = psycopg.AsyncConnection.connect(warehouse_url, client_encoding="utf8", prepare_threshold=None)
    async with await connect as connection:
        for flow, columns in COLUMNS.items():
            names = (*columns, "batch_id", "line", "txn_id", "loaded_at")
            query = f"SELECT {', '.join(names)} FROM analytics.{flow} WHERE batch_id = ANY(%s)"
            async for values in await connection.execute(query, (list(batch_ids),)):
                row = dict(zip(names, values, strict=True))
                for name in {"properties", "engagement_properties"} & row.keys():
                    row[name] = None if row[name] is None else json.loads(row[name])
                rows.append((flow, row))
        query = "SELECT batch_id, outcome, lines, line_set FROM analytics.ledger WHERE batch_id = ANY(%s)"
        async for batch_id, outcome, count, line_set in await connection.execute(query, (list(batch_ids),)):
            lines = BitMap.deserialize(base64.b64decode(line_set))
            known = ledger[batch_id].setdefault(outcome, BitMap())
            assert len(lines) == count
            assert not known & lines
            known |= lines
        query = "SELECT txn_id FROM analytics.delivery_log WHERE status = 'loaded'"
        loaded = {txn_id async for (txn_id,) in await connection.execute(query)}
    assert {row["txn_id"] for _, row in rows} <= loaded
    return rows, ledger


def raw_lines(bucket: str, batch_id: str) -> list[Event]:
    """The stored lines of a batch, from where the contract says that they are."""
    day = datetime.fromtimestamp((uuid.UUID(batch_id).int >> 80) // 1000, UTC)
    key = f"raw/dt={day:%Y-%m-%d}/hour={day:%H}/{batch_id}.ndjson.zst"
    body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    text = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True).read()
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def identity(row: Event) -> str:
    """What names a row among those of the test: a malformed line's text, else its event_id."""
    return row["payload"] if row.get("kind") == "malformed" else row["event_id"]


def compare(cases: list[Case], answered: Answered, rows: Rows, ledger: dict[str, BitMap], raw: list[Event]) -> None:
    """Every row of one batch with its case, every line with its ledger entry."""
    expected = {identity(case.row): case for case in cases if case.row is not None}
    found_ids = Counter(identity(row) for _, row in rows)
    assert not found_ids - Counter(expected.keys()), "rows that must not be, or twice"
    assert not Counter(expected.keys()) - found_ids, "rows are missing"
    for flow, row in rows:
        case = expected[identity(row)]
        stored = raw[row["line"]]
        wanted = dict(case.row or {}) | {"received_at": moment(stored["received_at"]), "key_kind": answered.key_kind}
        if wanted.get("occurred_at") == AS_RECEIVED:
            wanted["occurred_at"] = wanted["received_at"]
        found = {name: row[name] for name in COLUMNS[flow]}
        assert answered.sent_ms <= stored["received_at"] <= answered.answered_ms
        assert row["loaded_at"] is not None
        assert flow == case.outcome, case
        if flow == "rejected":
            compare_texts(wanted, found, stored)
        wrong = {name: (found.get(name), value) for name, value in wanted.items() if found.get(name) != value}
        assert found == wanted, (case.sent, wrong)
        assert row["event_id"] == stored.get("event_id"), "the row names another line"
    compare_ledger(cases, rows, ledger, raw)


def compare_ledger(cases: list[Case], rows: Rows, ledger: dict[str, BitMap], raw: list[Event]) -> None:
    """The ledger of one batch with its rows, and with what has no row of its own; every line once."""
    lines_of: dict[str, set[int]] = defaultdict(set)
    for flow, row in rows:
        lines_of[flow].add(row["line"])
    assert {outcome: set(lines) for outcome, lines in ledger.items() if outcome in COLUMNS} == lines_of
    joined = {case.sent["event_id"] for case in cases if case.outcome == "joined" and isinstance(case.sent, dict)}
    assert {raw[line]["event_id"] for line in ledger.get("joined", ())} == joined
    assert {outcome: len(lines) for outcome, lines in ledger.items()} == Counter(case.outcome for case in cases)
    assert sorted(line for lines in ledger.values() for line in lines) == list(range(len(cases))) == list(range(len(raw)))


def compare_texts(wanted: Event, found: Event, stored: Event) -> None:
    """What of a rejected row is compared by its meaning; taken out of both."""
    if found["kind"] == "bot":
        del wanted["payload"]
        payload = found.pop("payload")
        assert len(payload.encode()) <= 4096
        assert payload.startswith(f'{{"event_type":"{found["event_type"]}","event_id":"{found["event_id"]}"')
        assert stored["ip"] == "127.0.0.1"
        assert stored["ip"] not in payload
    elif wanted["reason"].endswith(": "):
        assert found.pop("reason").startswith(wanted.pop("reason"))


def are_grouped(raw: list[Event], partitions: int) -> bool:
    """Whether the valid lines of each partition lie together."""
    keys = [stored.get("page_view_id") or stored["event_id"] for stored in raw if "malformed" not in stored]
    runs = [partition for partition, _ in groupby(zlib.crc32(key.encode()) % partitions for key in keys)]
    return len(runs) == len(set(runs))
