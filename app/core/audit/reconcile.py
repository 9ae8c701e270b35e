"""The audit's decisions: whether the ledger covers a batch, and what to do if it does not (rules A1, A2, D2)."""

import binascii
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from pyroaring import BitMap

from app.core.backoff import Backoff
from app.core.formats.decoding import UNREADABLE
from app.core.formats.registry_item import BlockPlace, RegistryItem

LONGEST_PAUSE_S: Final = 3_600
SHORTEST_PAUSE_MS: Final = 1_000


class LedgerLines(NamedTuple):
    """A ledger row of one batch: the outcome of some of its lines."""

    outcome: str
    lines: int
    line_set: str
    """Base64 of the Roaring bitmap of line numbers, `lines` members."""


class Coverage(msgspec.Struct, frozen=True):
    """The comparison of a batch's ledger with its lines."""

    missing: BitMap
    """Lines without an entry."""
    excess: tuple[str, ...] = ()
    """Faults in words: lines that are there twice, or are none of the batch's. Each is an alarm."""

    @property
    def is_complete(self) -> bool:
        """Whether the entries are exactly the batch's lines, each once (rule A1)."""
        return not self.missing and not self.excess


def coverage(line_count: int, entries: Iterable[LedgerLines]) -> Coverage:
    """Compare ledger entries with the lines 0 .. line_count - 1: the sum must be the count and the union all of them.

    An entry whose bitmap cannot be read, or has another size than it says, covers nothing and is excess.
    """
    covered, doubled, faults = BitMap(), BitMap(), []
    for entry in entries:
        lines = read_lines(entry.line_set)
        if lines is None or len(lines) != entry.lines:
            faults.append(f"an entry of {entry.outcome} says {entry.lines} lines and its set does not")
            continue
        if covered.intersect(lines):
            doubled |= covered & lines
        covered |= lines
    expected = BitMap(range(line_count))
    if doubled:
        faults.append(f"{len(doubled)} lines are there more than once, the first is {doubled.min()}")
    if beyond := covered - expected:
        faults.append(f"{len(beyond)} lines are none of the batch's {line_count}, the first is {beyond.min()}")
    return Coverage(expected - covered, tuple(faults))


def read_lines(line_set: str) -> BitMap | None:
    """The lines of a ledger entry; None where its text is no bitmap."""
    try:  # millions of times for an hour: each wrapper around these two calls would cost as much as they do
        return BitMap.deserialize(binascii.a2b_base64(line_set, strict_mode=True))
    except UNREADABLE:
        return None


class VerdictKind(StrEnum):
    """The audit's verdict on an open batch."""

    COMPLETE = "complete"
    WAIT = "wait"
    """It is too early to judge: a role lags, or the time of the next replay has not come."""
    HELD = "held"
    """Lines lie in quarantined transactions. An operator releases them; the audit never sends them again (rule D2)."""
    REPLAY = "replay"
    LOST = "lost"
    """Alarm: the ETL knows the block and no ledger has its lines (rule A2)."""
    EXCESS = "excess"
    """Alarm: the ledger has more than the batch."""


class BatchVerdict(msgspec.Struct, frozen=True):
    """The audit's decision on one batch."""

    kind: VerdictKind
    reason: str = ""
    lagging: frozenset[int] = frozenset()
    """WAIT: partitions whose loaded stream time is not far enough."""
    txn_ids: tuple[str, ...] = ()
    """HELD: the quarantined transactions. WAIT: committed ones that are not loaded yet."""
    attempt: int = 0
    """REPLAY: the number of this replay."""


class AuditRules(NamedTuple):
    """Times in milliseconds."""

    grace_ms: int
    """A batch is judged when it is older than this. The pause after its first replay is as long."""
    settle_ms: int
    """The longest time that a line waits in the ETL for its outcome: the join's window, grace and reorder."""


class Evidence(NamedTuple):
    """Everything known about one batch besides its registry item."""

    entries: list[LedgerLines]
    """Its ledger in the warehouse."""
    replayed_blocks: frozenset[int]
    """Blocks with a loaded report that the ETL knew them already when a replay of the audit came (attempt >= 1). A copy that
    the bridge sent is no proof: the lines of the first copy may still be in the window."""
    unloaded: Mapping[str, BitMap]
    """Committed transactions that are not loaded -> the batch's lines in their ledger files."""
    quarantined: Mapping[str, BitMap]
    """Quarantined transactions -> the batch's lines in their ledger files."""
    dead_letters: Mapping[int, str] = {}
    """Block -> the reason why a copy of it was unreadable."""


def judge_batch(
    item: RegistryItem, evidence: Evidence, stream_times_ms: Mapping[int, int], rules: AuditRules, now_ms: int
) -> BatchVerdict:
    """Decide about an open batch.

    Args:
        item: the batch.
        evidence: read after `stream_times_ms`, so that a load in between can only add to it.
        stream_times_ms: partition -> stream time of the last transaction that delivery has loaded or quarantined.
        rules: grace and settling time.
        now_ms: the audit's clock; it is compared only with the time of the next attempt.
    """
    found = coverage(item.line_count, evidence.entries)
    if not found.missing:
        return (
            BatchVerdict(VerdictKind.EXCESS, "; ".join(found.excess)) if found.excess else BatchVerdict(VerdictKind.COMPLETE)
        )
    if held := _holding(evidence.quarantined, found.missing):
        return BatchVerdict(VerdictKind.HELD, f"lines lie in quarantined {', '.join(held)}", txn_ids=held)
    lacking = lacking_blocks(item, found)
    needed_ms = settled_at(item, rules)
    partitions = {place.partition for place in lacking.values()}
    if lagging := frozenset(p for p in partitions if stream_times_ms.get(p, -1) <= needed_ms):
        return BatchVerdict(VerdictKind.WAIT, f"loaded stream time is not past {needed_ms}", lagging)
    if unloaded := _holding(evidence.unloaded, found.missing):
        return BatchVerdict(VerdictKind.WAIT, f"delivery has not loaded {', '.join(unloaded)}", txn_ids=unloaded)
    return _act(item, found, lacking.keys() <= evidence.replayed_blocks, now_ms)


def delivery_lags(partitions: frozenset[int]) -> BatchVerdict:
    """The decision on a batch whose missing lines may lie in the many transactions that are committed and not loaded."""
    return BatchVerdict(VerdictKind.WAIT, "delivery is far behind", partitions)


def _act(item: RegistryItem, found: Coverage, known_to_etl: bool, now_ms: int) -> BatchVerdict:
    """Decide about missing lines that no transaction on its way can bring."""
    count = f"{len(found.missing)} of {item.line_count} lines missing"
    if known_to_etl:
        return BatchVerdict(VerdictKind.LOST, f"{count}: the ETL knows all their blocks and no ledger has them")
    if now_ms < item.next_attempt_at_ms:
        return BatchVerdict(VerdictKind.WAIT, f"{count}: attempt {item.attempts + 1} comes at {item.next_attempt_at_ms}")
    return BatchVerdict(VerdictKind.REPLAY, count, attempt=item.attempts + 1)


def _holding(transactions: Mapping[str, BitMap], missing: BitMap) -> tuple[str, ...]:
    """The transactions that have some of the missing lines."""
    return tuple(sorted(txn_id for txn_id, lines in transactions.items() if lines & missing))


def settled_at(item: RegistryItem, rules: AuditRules) -> int:
    """The stream time (ms) past which every line of the batch that reached the ETL has an outcome.

    No line counts as missing before the grace and the join's bounds have passed. After a replay they count from its time on.
    """
    settled_ms = item.received_at_ms + max(rules.grace_ms, rules.settle_ms)
    if item.attempts == 0:
        return settled_ms
    return max(settled_ms, item.next_attempt_at_ms - pause_ms(item.attempts, rules))


def pause_ms(attempt: int, rules: AuditRules) -> int:
    """The pause (ms) between the `attempt`-th replay and the next: the grace, then doubled each time, at most an hour."""
    first_ms = max(rules.grace_ms, SHORTEST_PAUSE_MS)
    return round(1000 * Backoff(first_ms / 1000, LONGEST_PAUSE_S).pause_s(attempt))


def lacking_blocks(item: RegistryItem, found: Coverage) -> dict[int, BlockPlace]:
    """Block number -> its place, for each block that lacks lines."""
    return {
        number: place
        for number, place in enumerate(item.blocks)
        if found.missing.range_cardinality(place.first_line, place.first_line + place.lines)
    }


def unread_blocks(item: RegistryItem, evidence: Evidence) -> dict[int, str]:
    """Block number -> reason, for each block that lacks lines and of which a copy was set aside as a dead letter.

    The batch is judged like any other one, because the copy that the audit sends may be readable.
    """
    lacking = lacking_blocks(item, coverage(item.line_count, evidence.entries))
    return {number: reason for number, reason in sorted(evidence.dead_letters.items()) if number in lacking}
