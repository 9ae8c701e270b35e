"""A batch in the registry against its raw file, and against its ledger (rule A3)."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pyroaring import BitMap

from app.core.audit.differences import Difference, DifferenceKind
from app.core.audit.reconcile import AuditRules, Evidence, LedgerLines, VerdictKind, coverage, judge_batch, read_lines
from app.core.formats.batch import batch_time_ms, cut_again
from app.core.formats.block import open_frame
from app.core.formats.decoding import reading
from app.core.formats.object_keys import raw_key
from app.core.formats.registry_item import BatchState, RegistryItem
from app.errors import FormatInvalid


class BatchLedgerRow(NamedTuple):
    """A ledger row of one batch, with its transaction."""

    txn_id: str
    outcome: str
    lines: int
    line_set: str


def judge_raw(item: RegistryItem, raw: bytes | None, at_own_key: bytes | None = None) -> Difference | None:
    """The difference of a batch's raw file from its registry item.

    Args:
        item: the batch.
        raw: the object at the item's raw_key; None if it is missing.
        at_own_key: if it is missing, or is not the file: the object at the key that the batch's id gives, where that is
            another key.

    Which of the two is damaged: a frame of zstd has a checksum, so a damaged raw file shows at its frames. If every frame
    is whole where the item says it lies, the item's sha256 was changed.
    """
    own_key = raw_key(item.batch_id, batch_time_ms(item.batch_id))
    if item.raw_key != own_key and at_own_key is not None and _is_file(item, at_own_key):
        return _of_item(item, f"raw_key is {item.raw_key}, and the file lies at {own_key}")
    if raw is None:
        return _of_raw(item, DifferenceKind.RAW_LOST, range(item.line_count), f"{item.raw_key} is missing")
    if not _is_file(item, raw):
        found = f"{item.raw_key} has {len(raw)} bytes and sha256 {hashlib.sha256(raw).hexdigest()}"
        detail = f"{found}, the registry says {item.byte_count} and {item.sha256}"
        broken = broken_lines(item, raw)
        if broken or len(raw) != item.byte_count:
            return _of_raw(item, DifferenceKind.RAW_CHANGED, broken or range(item.line_count), detail)
        return _of_item(item, f"{detail}; every frame of the file is whole")
    try:
        cut_again(raw, item, 0)
    except FormatInvalid as exc:
        return _of_item(item, str(exc))
    return None


def broken_lines(item: RegistryItem, raw: bytes) -> BitMap:
    """The lines of the blocks whose frames are not whole where the item says that they lie."""
    broken = BitMap()
    for number, place in enumerate(item.blocks):
        try:
            with reading(f"block {number}"):
                whole = open_frame(raw[place.byte_start : place.byte_start + place.byte_len]).count(b"\n") == place.lines
        except FormatInvalid:
            whole = False
        if not whole:
            broken.add_range(place.first_line, place.first_line + place.lines)
    return broken


def doubled_lines(item: RegistryItem, entries: Sequence[BatchLedgerRow]) -> list[Difference]:
    """A difference for each outcome that has lines of the batch a second time, or lines that are none of the batch's."""
    covered, differences = BitMap(), []
    for entry in sorted(entries):
        lines = read_lines(entry.line_set)
        if lines is None or len(lines) != entry.lines:
            detail = f"an entry of {entry.txn_id} says {entry.lines} lines and its set does not"
            differences.append(_of_ledger(item, entry, (), detail))
            continue
        if again := covered & lines:
            differences.append(_of_ledger(item, entry, again, "another ledger row has them, too"))
        if beyond := BitMap(line for line in lines if line >= item.line_count):
            differences.append(_of_ledger(item, entry, beyond, f"the batch has {item.line_count} lines"))
        covered |= lines
    return differences


class LossEvidence(NamedTuple):
    """What decides whether missing lines are lost or late."""

    entries: Sequence[LedgerLines]
    """The batch's ledger in the warehouse."""
    elsewhere: BitMap
    """Missing lines that are somewhere on their way, or that are named as damage of another kind."""
    replayed_blocks: frozenset[int]
    stream_times_ms: Mapping[int, int]
    """Partition -> stream time of the last transaction that delivery has decided about."""


def lost_lines(item: RegistryItem, found: LossEvidence, rules: AuditRules, now_ms: int) -> BitMap:
    """The lines of a batch that no ledger has and that nothing on its way can bring; empty if they are only late.

    A complete batch was covered once. Of an open one the audit must be able to prove the loss (rule A2).
    """
    missing = coverage(item.line_count, found.entries).missing - found.elsewhere
    if not missing or item.state is BatchState.COMPLETE:
        return missing
    placed = base64.b64encode(found.elsewhere.serialize()).decode()
    entries = [*found.entries, LedgerLines("", len(found.elsewhere), placed)]
    evidence = Evidence(entries, found.replayed_blocks, {}, {})
    verdict = judge_batch(item, evidence, found.stream_times_ms, rules, now_ms)
    return missing if verdict.kind is VerdictKind.LOST else BitMap()


def _of_ledger(item: RegistryItem, entry: BatchLedgerRow, lines: Iterable[int], detail: str) -> Difference:
    return Difference(
        kind=DifferenceKind.LINES_DOUBLED, batch_id=item.batch_id, flow=entry.outcome, lines=list(lines), detail=detail,
        txn_id=entry.txn_id,
    )  # fmt: skip


def _is_file(item: RegistryItem, body: bytes) -> bool:
    return len(body) == item.byte_count and hashlib.sha256(body).hexdigest() == item.sha256


def _of_raw(item: RegistryItem, kind: DifferenceKind, lines: Iterable[int], detail: str) -> Difference:
    return Difference(kind=kind, batch_id=item.batch_id, lines=list(lines), detail=detail, key=item.raw_key)


def _of_item(item: RegistryItem, detail: str) -> Difference:
    return Difference(
        kind=DifferenceKind.REGISTRY_CHANGED, batch_id=item.batch_id, lines=list(range(item.line_count)), detail=detail,
        key=item.raw_key,
    )  # fmt: skip
