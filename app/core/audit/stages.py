"""The stage that holds a batch: where its lines stand that the warehouse's ledger does not have yet.

A line goes one way: Kinesis, topic `blocks`, the etl and perhaps its window, topic `rows`, a committed transaction, the
warehouse. The evidence is read from the end of that way to its beginning, and each read begins where the one before it
ended. So a line that moves meanwhile is found at its old place or at its new one, and never nowhere.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from pyroaring import BitMap

from app.core.audit.reconcile import LedgerLines, coverage
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.core.rules import JoinRules

NO_STEP: Final = -1
"""`EtlPosition.source_last` before the first step."""


class Stage(StrEnum):
    """Where a line stands. The order is that of urgency: a batch's stage is the first one that has some of its lines."""

    LOST = "lost"
    """The etl has passed the line and every bound of the join, and no step, transaction or ledger has it. The audit proves
    a loss (rule A2)."""
    QUARANTINED = "quarantined"
    """In a transaction that the warehouse refused (rule D2)."""
    DEAD_LETTER = "dead_letter"
    """The etl could not read its block (rule E8)."""
    KINESIS = "kinesis"
    """Registered, and its block is not in topic `blocks`: the collector, Kinesis or the bridge has it."""
    ETL = "etl"
    """In topic `blocks`, and no step has taken it."""
    SINK = "sink"
    """A step on topic `rows` has it, and no transaction."""
    DELIVERY = "delivery"
    """In a committed transaction that is not loaded."""
    JOIN = "join"
    """In the etl's window: it waits for the other event of its page view."""
    LOADED = "loaded"
    """The warehouse's ledger has it."""


class BlockCopy(NamedTuple):
    """A copy of a block in topic `blocks`."""

    offset: int
    attempt: int
    """0 for the collector's own; n for the audit's n-th replay."""
    received_at_ms: int
    appended_at_ms: int
    """The broker's append time."""


class EtlPosition(NamedTuple):
    """How far the steps of a partition go."""

    source_last: int
    """The last offset of `blocks` that a step took; `NO_STEP` before the first."""
    stream_time_ms: int
    """Everything due before this moment has left the window."""
    unread_steps: int = 0
    """Messages of `rows` that no transaction covers and that were not read, because there are too many."""
    unread_transactions: int = 0
    """Committed transactions, not loaded, that were not read, because there are too many."""
    loaded_time_ms: int = -1
    """Stream time of the last transaction that delivery has loaded or set aside."""


class BlockSearchResult(msgspec.Struct, frozen=True):
    """The result of the search for one block in topic `blocks`."""

    copies: tuple[BlockCopy, ...] = ()
    """In the order of their offsets."""
    is_whole: bool = True
    """Whether the search reached the end of the log, or found a copy."""
    is_expired: bool = False
    """Retention has deleted the messages of the time at which the batch was received."""


class StageEvidence(NamedTuple):
    """Everything read about one batch."""

    entries: list[LedgerLines]
    """Its ledger in the warehouse."""
    quarantined: Mapping[str, BitMap] = {}
    """Quarantined transaction -> the batch's lines in it."""
    committed: Mapping[str, BitMap] = {}
    """Committed transaction that is not loaded -> the batch's lines in it."""
    steps: Mapping[int, BitMap] = {}
    """Offset of a step on `rows` that no transaction covers -> the batch's lines in its ledger. The offset is one of the
    partition of the lines' block."""
    dead_letters: Mapping[int, str] = {}
    """Block -> the reason why a copy of it could not be read."""
    searches: Mapping[int, BlockSearchResult] = {}
    """Block -> its place in topic `blocks`; only of blocks with lines that are found nowhere behind the etl."""


class StageRules(NamedTuple):
    """Times in milliseconds."""

    join: JoinRules
    linger_ms: int
    """A batch gathers lines for so long; its `received_at_ms` is that of the first."""


class BlockStage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the lines of one block stand."""

    block: int
    partition: int
    lines: Mapping[Stage, BitMap]
    """Every line of the block is in one stage; a stage without lines is absent."""
    offset: int | None = None
    """Its offset in topic `blocks`, of the first copy; None if it was not looked for, or not found."""
    txn_ids: Mapping[Stage, tuple[str, ...]] = {}
    """QUARANTINED and DELIVERY: the transactions that have the lines."""
    step_offsets: tuple[int, ...] = ()
    """SINK: offsets on `rows` of the steps that have the lines."""
    until_ms: int | None = None
    """JOIN: the moment at which the last line leaves the window, by stream time."""
    detail: str = ""
    """What is known about the stage, in a sentence; empty if all lines are loaded."""

    @property
    def stage(self) -> Stage:
        """The most urgent stage of its lines."""
        return _first(self.lines)

    def stage_of(self, line: int) -> Stage:
        """The stage of one of its lines."""
        return next(stage for stage, lines in self.lines.items() if line in lines)


class BatchStage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch stands."""

    batch_id: str
    received_at_ms: int
    blocks: list[BlockStage]
    excess: tuple[str, ...] = ()
    """Faults in words: the ledger has more than the batch."""

    @property
    def stage(self) -> Stage:
        """The most urgent stage of its blocks."""
        return _first(block.stage for block in self.blocks)

    @property
    def holder(self) -> BlockStage:
        """The first block in the most urgent stage."""
        stage = self.stage
        return next(block for block in self.blocks if block.stage is stage)

    @property
    def until_ms(self) -> int | None:
        """JOIN: the moment at which the last line leaves the window, by stream time; None in another stage."""
        moments = [block.until_ms for block in self.blocks if block.until_ms is not None]
        return max(moments, default=None) if self.stage is Stage.JOIN else None

    @property
    def detail(self) -> str:
        """What is known about the stage, in a sentence."""
        return self.holder.detail

    @property
    def offsets(self) -> dict[int, int]:
        """Block -> its offset in topic `blocks`, of the blocks that were looked for and found."""
        return {block.block: block.offset for block in self.blocks if block.offset is not None}

    @property
    def counts(self) -> dict[Stage, int]:
        """Stage -> the number of the batch's lines there, in the order of `Stage`."""
        sums: dict[Stage, int] = {}
        for block in self.blocks:
            for stage, lines in block.lines.items():
                sums[stage] = sums.get(stage, 0) + len(lines)
        return {stage: sums[stage] for stage in Stage if stage in sums}

    def stage_of(self, line: int) -> Stage:
        """The stage of one of the batch's lines."""
        return self.block_of(line).stage_of(line)

    def block_of(self, line: int) -> BlockStage:
        """The block that has a line."""
        return next(block for block in self.blocks if any(line in lines for lines in block.lines.values()))


def _first(stages: Iterable[Stage]) -> Stage:
    found = set(stages)
    return next(stage for stage in Stage if stage in found)


def unplaced_blocks(item: RegistryItem, evidence: StageEvidence) -> dict[int, BlockPlace]:
    """Block number -> its place, of the blocks with lines that are found nowhere behind the etl.

    They must be looked for in topic `blocks`.
    """
    missing = coverage(item.line_count, evidence.entries).missing
    for lines in (*evidence.quarantined.values(), *evidence.committed.values(), *evidence.steps.values()):
        missing = missing - lines
    return {n: place for n, place in enumerate(item.blocks) if missing & _lines_of(place)}


def stage_batch(
    item: RegistryItem, evidence: StageEvidence, positions: Mapping[int, EtlPosition], rules: StageRules
) -> BatchStage:
    """Decide where the lines of a batch stand.

    Args:
        item: the batch.
        evidence: read from the warehouse back to topic `blocks`, in this order.
        positions: partition -> how far its steps go, for each partition of `evidence.searches`.
        rules: the bounds of the join.
    """
    found = coverage(item.line_count, evidence.entries)
    blocks = []
    for number, place in enumerate(item.blocks):
        known = _Known(
            place, evidence.searches.get(number, BlockSearchResult()), evidence.dead_letters.get(number),
            positions.get(place.partition) or EtlPosition(NO_STEP, 0), rules,
        )  # fmt: skip
        blocks.append(_stage_block(number, known, found.missing, evidence))
    return BatchStage(
        batch_id=item.batch_id, received_at_ms=item.received_at_ms, blocks=blocks, excess=found.excess
    )  # fmt: skip


class _Known(NamedTuple):
    """What is known of one block besides the lines that were found."""

    place: BlockPlace
    search: BlockSearchResult
    dead_letter: str | None
    position: EtlPosition
    rules: StageRules


class _Rest(NamedTuple):
    """The stage of the lines that nothing behind the etl has."""

    stage: Stage
    detail: str
    until_ms: int | None = None


def _stage_block(number: int, known: _Known, missing: BitMap, evidence: StageEvidence) -> BlockStage:
    own = _lines_of(known.place)
    left = own & missing
    lines: dict[Stage, BitMap] = {Stage.LOADED: own - left}
    txn_ids: dict[Stage, tuple[str, ...]] = {}
    for stage, transactions in ((Stage.QUARANTINED, evidence.quarantined), (Stage.DELIVERY, evidence.committed)):
        having = {txn_id: taken for txn_id, there in transactions.items() if (taken := there & left)}
        if having:
            lines[stage] = BitMap.union(*having.values())
            txn_ids[stage] = tuple(sorted(having))
            left = left - lines[stage]
    steps = {offset: taken for offset, there in evidence.steps.items() if (taken := there & left)}
    if steps:
        lines[Stage.SINK] = BitMap.union(*steps.values())
        left = left - lines[Stage.SINK]
    rest = _rest(known, some_are_placed=len(left) < len(own)) if left else None
    if rest is not None:
        lines[rest.stage] = lines.get(rest.stage, BitMap()) | left
    lines = {stage: lines[stage] for stage in Stage if lines.get(stage)}
    copies = known.search.copies
    return BlockStage(
        block=number, partition=known.place.partition, lines=lines, offset=copies[0].offset if copies else None,
        txn_ids=txn_ids, step_offsets=tuple(sorted(steps)), until_ms=None if rest is None else rest.until_ms,
        detail=_detail(_first(lines), rest, txn_ids, known.place.partition, steps),
    )  # fmt: skip


def _detail(
    stage: Stage, rest: _Rest | None, txn_ids: Mapping[Stage, tuple[str, ...]], partition: int, steps: Iterable[int]
) -> str:
    if rest is not None and rest.stage is stage:
        return rest.detail
    if ids := txn_ids.get(stage):
        return f"{'transaction' if len(ids) == 1 else 'transactions'} {', '.join(ids)}"
    return f"topic rows, partition {partition}, offset {min(steps)}" if stage is Stage.SINK else ""


def _rest(known: _Known, *, some_are_placed: bool) -> _Rest:
    """The stage of lines that are in no ledger, transaction or step that was read."""
    position = known.position
    passed = [copy for copy in known.search.copies if copy.offset <= position.source_last]
    ahead = [copy for copy in known.search.copies if copy.offset > position.source_last]
    is_unread = (
        known.dead_letter is not None and len(passed) <= 1 and not some_are_placed
    )  # a single copy is the unreadable one
    if is_unread and not ahead:
        return _Rest(Stage.DEAD_LETTER, known.dead_letter or "")
    if passed and not is_unread:
        return _behind_the_etl(passed[0], known)
    if ahead:
        return _Rest(Stage.ETL, f"topic blocks, offset {ahead[0].offset}; the etl has taken up to {position.source_last}")
    if known.search.is_expired:
        return _unread(position) or _Rest(Stage.LOST, "topic blocks no longer has the messages of that time")
    where = "is not in topic blocks" if known.search.is_whole else "was not found yet in topic blocks"
    return _Rest(Stage.KINESIS, f"its block {where}")


def _behind_the_etl(copy: BlockCopy, known: _Known) -> _Rest:
    """The stage of lines that the etl has taken."""
    position, rules = known.position, known.rules
    settled_ms = copy.received_at_ms + rules.join.settle_ms + rules.linger_ms
    if position.stream_time_ms <= settled_ms:
        until_ms = copy.received_at_ms + rules.join.upper_ms
        return _Rest(Stage.JOIN, "it waits for the other event of its page view", until_ms)
    if (unread := _unread(position)) is not None:
        return unread
    if known.dead_letter is not None:
        return _Rest(Stage.DEAD_LETTER, known.dead_letter)
    if position.loaded_time_ms <= settled_ms:
        return _Rest(Stage.DELIVERY, "transactions of its partition wait for their load")
    return _Rest(Stage.LOST, f"the etl has taken it at offset {copy.offset}, and no step and no ledger has its lines")


def _unread(position: EtlPosition) -> _Rest | None:
    """The stage of a line that the etl has emitted into something that was not read; None if everything was read."""
    if position.unread_transactions:
        return _Rest(Stage.DELIVERY, f"{position.unread_transactions} more transactions wait for their load")
    if position.unread_steps:
        return _Rest(Stage.SINK, f"{position.unread_steps} more messages of topic rows wait for the sink")
    return None


def _lines_of(place: BlockPlace) -> BitMap:
    return BitMap(range(place.first_line, place.first_line + place.lines))
