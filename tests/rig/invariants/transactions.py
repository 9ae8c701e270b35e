"""I4: chains without a gap, every file as its record says, and every transaction in the warehouse whole or not at all."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from app.core.delivery.statements import LOADED, QUARANTINED
from app.core.formats.flows import OUTPUTS
from app.core.formats.transaction_record import Ready, TransactionRecord, ready_of
from app.core.sink.chain import ChainId, decode_record, manifest_of, numbers_behind
from app.errors import ChainBroken
from tests.rig.invariants.violation import Violation, listed

_NAMES: Final = [flow.name for flow in OUTPUTS]


class Logged(msgspec.Struct, frozen=True):
    """A row of delivery_log."""

    txn_id: str
    partition: int
    number: int
    status: str
    rows: int


def judge_chain(
    place: ChainId, bodies: Mapping[str, bytes], may_lack: Collection[str] = ()
) -> tuple[list[TransactionRecord], list[Violation]]:
    """The records of a chain in order, as far as they can be followed; and the faults of the chain.

    Args:
        place: the chain.
        bodies: key -> content of everything below its prefix.
        may_lack: outputs that a sink of an older version did not know, so that a record need not name them.
    """
    records: list[TransactionRecord] = []
    violations: list[Violation] = []
    for key in sorted(bodies):
        before = records[-1] if records else None
        try:
            (number,) = numbers_behind(place, len(records), [key])
            record = decode_record(bodies[key], place, number)
        except ChainBroken as exc:
            violations.append(Violation("I4", f"chain of {place}: {exc}"))
            break
        named = [output.output for output in record.outputs]
        if named != [name for name in _NAMES if name in named or name not in may_lack]:
            violations.append(Violation("I4", f"{record.txn_id} does not name all outputs"))
        expected = before.last_offset + 1 if before else 0
        if record.first_offset != expected and record.accepted_gap is None:
            violations.append(
                Violation("I4", f"{record.txn_id} answers for offsets from {record.first_offset}, not from {expected}")
            )
        if before and record.step_number < before.step_number:
            violations.append(
                Violation("I4", f"{record.txn_id} ends at step {record.step_number}, before its predecessor's")
            )
        records.append(record)
    return records, violations


def judge_manifests(bucket: str, manifests: Mapping[str, bytes], data: Mapping[str, bytes]) -> Iterator[Violation]:
    """Every COPY manifest, of a transaction or of a load, names existing files with the right length."""
    for key, body in manifests.items():
        try:
            entries: Sequence[Any] = msgspec.json.decode(body)["entries"]
            files = [(entry["url"].removeprefix(f"s3://{bucket}/"), entry["meta"]["content_length"]) for entry in entries]
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as exc:
            yield Violation("I4", f"{key} is no manifest: {exc!r}")
            continue
        if not all(entry.get("mandatory") is True for entry in entries):
            yield Violation("I4", f"{key} does not say that its files are mandatory")
        for file, length in files:
            if file not in data:
                yield Violation("I4", f"{key} names {file}, which is missing")
            elif len(data[file]) != length:
                yield Violation("I4", f"{key} says {length} bytes of {file}, which has {len(data[file])}")


def judge_files(
    bucket: str, records: Sequence[TransactionRecord], manifests: Mapping[str, bytes], data: Mapping[str, bytes]
) -> Iterator[Violation]:
    """Every committed transaction has its files, manifests and ready.json as recorded.

    Args:
        bucket: the bucket.
        records: transactions that must be finished.
        manifests: key -> content of everything below manifests/.
        data: key -> content of everything below data/.
    """
    for record in records:
        try:
            ready = msgspec.json.decode(manifests.get(record.ready_key, b""), type=Ready)
        except msgspec.DecodeError:
            ready = None
        if ready != ready_of(record):
            yield Violation("I4", f"{record.ready_key} is missing or not what its record says")
        for out in record.outputs:
            if out.rows == 0:
                continue
            body = data.get(out.data_key or "")
            if body is None:
                yield Violation("I4", f"{out.data_key} of {record.txn_id} is missing")
            elif (len(body), hashlib.sha256(body).hexdigest()) != (out.bytes, out.sha256):
                yield Violation("I4", f"{out.data_key} is not the file that its record names")
            if manifests.get(out.manifest_key or "") != manifest_of(bucket, [out]):
                yield Violation("I4", f"{out.manifest_key} is missing or not what its record says")


def judge_owners(
    records: Sequence[TransactionRecord], manifests: Collection[str], data: Collection[str], log: Sequence[Logged]
) -> Iterator[Violation]:
    """Nothing final, and nothing in delivery_log, belongs to a transaction that was never committed: six flows or none.

    Args:
        records: all committed transactions, read last.
        manifests: keys below manifests/.
        data: keys below data/.
        log: delivery_log.
    """
    final = {key for record in records for out in record.outputs for key in (out.data_key, out.manifest_key) if key}
    final |= {record.ready_key for record in records}
    if strays := sorted({*manifests, *data} - final):
        yield Violation("I4", f"final objects of transactions that were never committed: {listed(strays)}")
    if unknown := sorted({row.txn_id for row in log} - {record.txn_id for record in records}):
        yield Violation("I4", f"delivery_log has transactions that were never committed: {listed(unknown)}")


def judge_loads(
    records: Sequence[TransactionRecord], log: Sequence[Logged], rows: Mapping[str, Mapping[str, int]],
    may_be_aside: Collection[str] = (),
) -> Iterator[Violation]:  # fmt: skip
    """A transaction is in delivery_log once. If it is loaded, the tables have all its rows; if it is set aside, none.

    Args:
        records: transactions that delivery must have decided about.
        log: delivery_log.
        rows: output -> txn_id -> rows in its table.
        may_be_aside: transactions that may be quarantined.
    """
    by_txn: dict[str, list[Logged]] = defaultdict(list)
    for row in log:
        by_txn[row.txn_id].append(row)
    for record in records:
        found = by_txn.pop(record.txn_id, [])
        if len(found) != 1:
            yield Violation("I4", f"{record.txn_id} is {len(found)} times in delivery_log")
            continue
        if (found[0].partition, found[0].number) != (record.partition, record.number):
            yield Violation("I4", f"{record.txn_id} is in delivery_log as number {found[0].number} of {found[0].partition}")
        yield from _judge_rows(record, found[0], rows, may_be_aside)
    known = {record.txn_id for record in records} | by_txn.keys()
    for output, counts in rows.items():
        if strangers := sorted(counts.keys() - known):
            yield Violation("I4", f"{output} has rows of transactions that delivery_log does not: {listed(strangers)}")
    yield from _judge_log(log)


def _judge_rows(
    record: TransactionRecord, logged: Logged, rows: Mapping[str, Mapping[str, int]], may_be_aside: Collection[str]
) -> Iterator[Violation]:
    is_loaded = logged.status == LOADED
    if not is_loaded and (logged.status != QUARANTINED or record.txn_id not in may_be_aside):
        yield Violation("I4", f"{record.txn_id} is {logged.status}")
    if is_loaded and logged.rows != sum(out.rows for out in record.outputs):
        yield Violation("I4", f"delivery_log says {logged.rows} rows of {record.txn_id}")
    for out in record.outputs:
        expected, found = out.rows if is_loaded else 0, rows.get(out.output, {}).get(record.txn_id, 0)
        if found != expected:
            yield Violation(
                "I4", f"{out.output} has {found} rows of {record.txn_id} ({logged.status}), must have {expected}"
            )


def _judge_log(log: Sequence[Logged]) -> Iterator[Violation]:
    numbers: dict[int, list[int]] = defaultdict(list)
    for row in log:
        numbers[row.partition].append(row.number)
    for partition, found in sorted(numbers.items()):
        if doubled := sorted(number for number, count in Counter(found).items() if count > 1):
            yield Violation("I4", f"delivery_log has numbers of partition {partition} more than once: {listed(doubled)}")
        if missing := sorted(set(range(1, max(found) + 1)) - set(found)):
            yield Violation("I4", f"delivery_log skips numbers of partition {partition}: {listed(missing)}")
