"""Each invariant check fires on the thing that it is for, and is silent where all is well."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard
from pyroaring import BitMap

from app.core.audit.reconcile import LedgerLines
from app.core.formats import object_keys
from app.core.formats.flows import OUTPUTS, PAGE_VIEWS
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.core.formats.transaction_record import OutputObject, TransactionRecord, ready_of
from app.core.sink.chain import ChainId, encode_record, manifest_of
from app.local.traffic.expect import ExpectedArrival
from tests.rig.invariants.arrivals import Seen, arrivals
from tests.rig.invariants.batches import judge_ledger, judge_raw
from tests.rig.invariants.replays import judge_digests
from tests.rig.invariants.transactions import (
    Logged,
    judge_chain,
    judge_files,
    judge_loads,
    judge_manifests,
    judge_owners,
)
from tests.rig.invariants.violation import Violation

NOW_MS = 1_800_000_000_000
BATCH = "0190c8a0-0000-7000-8000-000000000001"


def texts(violations: list[Violation]) -> str:
    return "\n".join(str(violation) for violation in violations)


# --- I2, I3


def entry(outcome: str, *lines: int) -> LedgerLines:
    return LedgerLines(outcome, len(lines), base64.b64encode(BitMap(lines).serialize()).decode())


def item(body: bytes = b"raw", lines: int = 4) -> RegistryItem:
    return RegistryItem(
        batch_id=BATCH, epoch=1, line_count=lines, byte_count=len(body), sha256=hashlib.sha256(body).hexdigest(),
        raw_key="raw/x", blocks=[BlockPlace(0, 0, lines, 0, len(body))], received_at_ms=NOW_MS,
    )  # fmt: skip


GOOD_ENTRIES = [entry("page_views", 0, 1), entry("joined", 2), entry("duplicate", 3)]
GOOD_LINES = {"page_views": {BATCH: [1, 0]}}


def test_a_ledger_that_covers_each_line_once_is_no_violation():
    assert not list(judge_ledger({BATCH: item()}, {BATCH: GOOD_ENTRIES}, GOOD_LINES))


@pytest.mark.parametrize(
    ("entries", "lines", "expected"),
    [
        ({BATCH: GOOD_ENTRIES[:2]}, GOOD_LINES, "1 of 4 lines have no entry, the first is 3"),
        ({}, {}, "4 of 4 lines have no entry"),
        ({BATCH: [*GOOD_ENTRIES, entry("joined", 2)]}, GOOD_LINES, "more than once, the first is 2"),
        ({BATCH: [*GOOD_ENTRIES, entry("joined", 9)]}, GOOD_LINES, "none of the batch's 4"),
        ({BATCH: GOOD_ENTRIES, "other": [entry("joined", 1)]}, GOOD_LINES, "batches that the registry does not: 1 (other)"),
        ({BATCH: GOOD_ENTRIES}, {"page_views": {BATCH: [0, 1, 1]}}, "page_views has lines of batch"),
        ({BATCH: GOOD_ENTRIES}, {"page_views": {BATCH: [0]}}, "page_views lacks lines of batch"),
        ({BATCH: GOOD_ENTRIES}, {"page_views": {BATCH: [0, 1, 2]}}, "that the ledger does not say: 1 (2)"),
        ({BATCH: GOOD_ENTRIES}, GOOD_LINES | {"rejected": {"other": [0]}}, "rejected has lines of batch other"),
    ],
)
def test_what_a_ledger_lacks_or_has_too_much_of_is_found(entries, lines, expected):
    assert expected in texts(list(judge_ledger({BATCH: item()}, entries, lines)))


@pytest.mark.parametrize(
    ("raw", "acknowledged", "expected"),
    [
        ({"raw/x": b"raw"}, [BATCH], ""),
        ({}, [BATCH], "raw/x is missing"),
        ({"raw/x": b"war"}, [BATCH], "is not what was registered"),
        ({"raw/x": b"raw"}, [BATCH, "unknown"], "registry does not have: 1 (unknown)"),
    ],
)
def test_raw_files_and_registry_keep_what_was_acknowledged(raw, acknowledged, expected):
    found = texts(list(judge_raw({BATCH: item()}, raw, acknowledged)))
    assert expected in found
    assert bool(found) == bool(expected)


# --- I4

PLACE = ChainId(1, 0)


def record(number: int, **changes: Any) -> TransactionRecord:
    txn = object_keys.txn_id(1, 0, number, f"{number:08x}")
    outputs = [OutputObject(output=flow.name, rows=0) for flow in OUTPUTS]
    body = data_of(number)
    outputs[0] = OutputObject(
        output="page_views", rows=3, bytes=len(body), sha256=hashlib.sha256(body).hexdigest(),
        staged_key=object_keys.staged_key(txn, "page_views"), data_key=object_keys.data_key("page_views", txn, NOW_MS),
        manifest_key=object_keys.manifest_key("page_views", txn, NOW_MS), version=PAGE_VIEWS.version,
    )  # fmt: skip
    made = TransactionRecord(
        txn_id=txn, epoch=1, partition=0, number=number, first_offset=10 * (number - 1), last_offset=10 * number - 1,
        step_number=number, step_offset=10 * number - 1, step_digest="00", stream_time_ms=NOW_MS, committed_at_ms=NOW_MS,
        outputs=outputs, ready_key=object_keys.ready_key(txn, NOW_MS),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def data_of(number: int) -> bytes:
    return b"rows" * number


def chain(*records: TransactionRecord) -> dict[str, bytes]:
    return {object_keys.record_key(1, 0, one.number): encode_record(one) for one in records}


def test_a_chain_without_fault_is_read_in_order():
    records, violations = judge_chain(PLACE, chain(record(2), record(1), record(3)))
    assert ([one.number for one in records], violations) == ([1, 2, 3], [])


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [
        (chain(record(1), record(3)), "lies where record 2"),
        (chain(record(1), record(2, first_offset=12)), "answers for offsets from 12, not from 10"),
        (chain(record(1), record(2, first_offset=9)), "answers for offsets from 9, not from 10"),
        (chain(record(1, step_number=7), record(2)), "before its predecessor's"),
        (chain(record(1)) | {object_keys.record_key(1, 0, 2): b"{"}, "cannot be read"),
        (chain(record(1, outputs=[])), "does not name all outputs"),
    ],
)
def test_a_gap_or_fault_of_a_chain_is_found(bodies, expected):
    assert expected in texts(judge_chain(PLACE, bodies)[1])


def test_a_record_of_an_older_version_lacks_only_what_it_did_not_know():
    outputs = record(1).outputs
    older = chain(record(1, outputs=outputs[:-1]))
    assert judge_chain(PLACE, older, {outputs[-1].output})[1] == []
    assert "does not name all outputs" in texts(judge_chain(PLACE, older, {outputs[0].output})[1])
    assert judge_chain(PLACE, chain(record(1)), {outputs[-1].output})[1] == []


class Bucket:
    """What two finished transactions leave in S3."""

    def __init__(self) -> None:
        self.records = [record(1), record(2)]
        self.data: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        for one in self.records:
            out = one.outputs[0]
            assert out.data_key
            assert out.manifest_key
            self.data[out.data_key] = data_of(one.number)
            self.manifests[out.manifest_key] = manifest_of("b", [out])
            self.manifests[one.ready_key] = msgspec.json.encode(ready_of(one))

    def judged(self) -> str:
        copies = {key: body for key, body in self.manifests.items() if key.endswith(".manifest")}
        found = [*judge_manifests("b", copies, self.data), *judge_files("b", self.records, self.manifests, self.data)]
        return texts([*found, *judge_owners(self.records, self.manifests, self.data, log_of(*self.records))])


def log_of(*records: TransactionRecord, status: str = "loaded") -> list[Logged]:
    return [Logged(one.txn_id, one.partition, one.number, status, 3) for one in records]


def first_key(objects: dict[str, bytes], end: str = "") -> str:
    return next(key for key in objects if key.endswith(end))


def damage(change: Callable[[Bucket], Any]) -> str:
    bucket = Bucket()
    change(bucket)
    return bucket.judged()


def test_files_as_recorded_are_no_violation():
    assert damage(lambda _: None) == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda b: b.data.pop(first_key(b.data)), "names data/page_views"),
        (lambda b: b.data.pop(first_key(b.data)), "is missing"),
        (lambda b: b.data.update({first_key(b.data): b"rows!"}), "says 4 bytes of"),
        (lambda b: b.data.update({first_key(b.data): b"swor"}), "is not the file that its record names"),
        (lambda b: b.manifests.pop(first_key(b.manifests, "ready.json")), "ready.json is missing or not"),
        (lambda b: b.manifests.update({first_key(b.manifests, "ready.json"): b"{}"}), "ready.json is missing or not"),
        (lambda b: b.manifests.pop(first_key(b.manifests, ".manifest")), "page_views.manifest is missing or not"),
        (lambda b: b.manifests.update({first_key(b.manifests, ".manifest"): b"{}"}), "is no manifest"),
        (lambda b: b.records.pop(), "of transactions that were never committed: 3"),
        (
            lambda b: b.manifests.update(
                {k: v.replace(b"true", b"false") for k, v in b.manifests.items() if k.endswith(".manifest")}
            ),
            "does not say that its files are mandatory",
        ),
    ],
)
def test_a_missing_or_other_file_is_found(change, expected):
    assert expected in damage(change)


def test_a_log_of_what_was_never_committed_is_found():
    assert "delivery_log has transactions that were never committed" in texts(
        list(judge_owners([record(1)], {}, {}, log_of(record(1), record(2))))
    )


GOOD_ROWS = {"page_views": {record(1).txn_id: 3, record(2).txn_id: 3}}


@pytest.mark.parametrize(
    ("log", "rows", "aside", "expected"),
    [
        (log_of(record(1), record(2)), GOOD_ROWS, (), ""),
        (log_of(record(1)), GOOD_ROWS, (), "0 times in delivery_log"),
        (log_of(record(1), record(2), record(2)), GOOD_ROWS, (), "2 times in delivery_log"),
        (log_of(record(1), record(2), record(2)), GOOD_ROWS, (), "numbers of partition 0 more than once: 1 (2)"),
        (log_of(record(2)), GOOD_ROWS, (), "skips numbers of partition 0: 1 (1)"),
        (log_of(record(1), record(2)), {"page_views": {record(1).txn_id: 3}}, (), "has 0 rows of 1-0-2"),
        (
            log_of(record(1), record(2)),
            {"page_views": {record(1).txn_id: 3, record(2).txn_id: 6}},
            (),
            "has 6 rows of 1-0-2",
        ),
        (log_of(record(1), record(2)), GOOD_ROWS | {"rejected": {record(2).txn_id: 1}}, (), "rejected has 1 rows of 1-0-2"),
        (
            log_of(record(1), record(2)),
            GOOD_ROWS | {"rejected": {"1-0-9-aa": 1}},
            (),
            "transactions that delivery_log does not",
        ),
        (log_of(record(1), record(2), status="quarantined"), {}, (), "is quarantined"),
        (log_of(record(1), record(2), status="quarantined"), {}, (record(1).txn_id, record(2).txn_id), ""),
        (log_of(record(1), record(2), status="quarantined"), GOOD_ROWS, (record(1).txn_id,), "must have 0"),
    ],
)
def test_six_flows_or_none(log, rows, aside, expected):
    found = texts(list(judge_loads([record(1), record(2)], log, rows, aside)))
    assert expected in found
    assert bool(found) == bool(expected)


# --- I5


def test_a_changed_table_is_found():
    assert not judge_digests({"ledger": (3, 17)}, {"ledger": (3, 17)})
    assert texts(judge_digests({"ledger": (3, 17)}, {"ledger": (3, 18)})).startswith("I5: ledger")


# --- when events came


def frame(*events: tuple[str | None, int]) -> bytes:
    lines = [msgspec.json.encode({"event_id": event_id, "received_at": at_ms}) for event_id, at_ms in events]
    return zstandard.ZstdCompressor().compress(b"".join(line + b"\n" for line in lines))


def test_arrivals_are_those_of_the_copies_that_count():
    body = frame(("a", NOW_MS), (None, NOW_MS), ("b", NOW_MS + 5))
    of = item(body, lines=3)
    assert arrivals([of], {"raw/x": body}, {}, Seen({(BATCH, 0): NOW_MS + 900}, 1000)) == {
        "a": ExpectedArrival(NOW_MS, NOW_MS, is_late=False), "b": ExpectedArrival(NOW_MS + 5, NOW_MS + 5, is_late=False),
    }  # fmt: skip
    duplicates = {BATCH: [entry("duplicate", 0)]}
    assert arrivals([of], {"raw/x": body}, duplicates, Seen({(BATCH, 0): NOW_MS + 1002}, 1000)) == {
        "b": ExpectedArrival(NOW_MS + 5, NOW_MS + 5, is_late=False)
    }


@pytest.mark.parametrize("reached", [{(BATCH, 0): NOW_MS + 1001}, {}])
def test_a_block_after_the_slack_or_never_seen_is_late(reached):
    body = frame(("a", NOW_MS))
    assert arrivals([item(body, lines=1)], {"raw/x": body}, {}, Seen(reached, 1000))["a"].is_late
