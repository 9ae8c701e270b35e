"""I2 and I3: every batch is kept, and its ledger accounts for each of its lines once."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pyroaring import BitMap

from app.core.audit.reconcile import LedgerLines, coverage, read_lines
from app.core.formats.flows import FLOWS
from app.core.formats.registry_item import RegistryItem
from tests.rig.invariants.violation import Violation, listed

FlowLines = Mapping[str, Mapping[str, Sequence[int]]]
"""Flow -> batch -> the line of each of its rows."""


def judge_raw(
    items: Mapping[str, RegistryItem], raw: Mapping[str, bytes], acknowledged: Iterable[str]
) -> Iterator[Violation]:
    """I3: every acknowledged batch is registered; the raw file of every registered batch is in S3, with the registered
    digest.

    Args:
        items: batch id -> the batch in the registry.
        raw: key -> content of every raw file that the registry names and S3 has.
        acknowledged: the batches in answers to clients.
    """
    if unknown := sorted(set(acknowledged) - items.keys()):
        yield Violation("I3", f"acknowledged batches that the registry does not have: {listed(unknown)}")
    for item in items.values():
        body = raw.get(item.raw_key)
        if body is None:
            yield Violation("I3", f"batch {item.batch_id}: {item.raw_key} is missing")
        elif (len(body), hashlib.sha256(body).hexdigest()) != (item.byte_count, item.sha256):
            yield Violation("I3", f"batch {item.batch_id}: {item.raw_key} ({len(body)} bytes) is not what was registered")


def judge_ledger(
    items: Mapping[str, RegistryItem], entries: Mapping[str, Sequence[LedgerLines]], lines: FlowLines
) -> Iterator[Violation]:
    """I2: the entries of a batch are its lines, each once, and each flow's table has exactly the lines of the entries.

    Args:
        items: batch id -> the batch in the registry.
        entries: batch id -> its entries in the warehouse.
        lines: the lines in the tables.
    """
    if strangers := sorted(entries.keys() - items.keys()):
        yield Violation("I2", f"the ledger has batches that the registry does not: {listed(strangers)}")
    for batch_id, item in items.items():
        found = coverage(item.line_count, entries.get(batch_id, []))
        if found.missing:
            yield Violation(
                "I2", f"batch {batch_id}: {len(found.missing)} of {item.line_count} lines have no entry, the first is "
                f"{found.missing.min()} (attempts {item.attempts})"
            )  # fmt: skip
        for fault in found.excess:
            yield Violation("I2", f"batch {batch_id}: {fault}")
    for flow in FLOWS:
        yield from _judge_flow(flow.name, entries, lines.get(flow.name, {}))


def _judge_flow(
    flow: str, entries: Mapping[str, Sequence[LedgerLines]], lines: Mapping[str, Sequence[int]]
) -> Iterator[Violation]:
    for batch_id in sorted(entries.keys() | lines.keys()):
        said = BitMap()
        for entry in entries.get(batch_id, []):
            if entry.outcome == flow:
                said |= read_lines(entry.line_set) or BitMap()
        rows = Counter(lines.get(batch_id, ()))
        doubled = sorted(line for line, count in rows.items() if count > 1)
        there = BitMap(rows)
        if doubled:
            yield Violation("I2", f"{flow} has lines of batch {batch_id} more than once: {listed(doubled)}")
        if absent := said - there:
            yield Violation("I2", f"{flow} lacks lines of batch {batch_id} that the ledger says it has: {listed(absent)}")
        if surplus := there - said:
            yield Violation("I2", f"{flow} has lines of batch {batch_id} that the ledger does not say: {listed(surplus)}")
