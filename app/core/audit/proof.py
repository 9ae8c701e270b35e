"""The proof of a batch: each link from the registry to the rows in the warehouse holds, is waited for, or is broken.

A link is broken only by damage. What is only late is waited for.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from pyroaring import BitMap

from app.core.audit.differences import Difference, DifferenceKind
from app.core.audit.stages import BatchStage, BlockStage, Stage
from app.core.formats.flows import LEDGER
from app.core.whole_table import whole_table


class Verdict(StrEnum):
    """The verdict on a batch or on an hour."""

    PROVEN = "PROVEN"
    WAITING = "WAITING"
    """Lines are on their way."""
    BROKEN = "BROKEN"
    """Something is damaged: waiting does not help."""


class LinkName(StrEnum):
    """The links of the chain, in its order."""

    REGISTRY = "registry"
    RAW = "raw"
    BLOCKS = "blocks"
    OFFSETS = "offsets"
    TRANSACTIONS = "transactions"
    FILES = "files"
    LOAD = "load"
    ROWS = "rows"


class Link(msgspec.Struct, frozen=True):
    """One link."""

    name: LinkName
    ok: bool
    detail: str
    waits: bool = False
    """Whether it does not hold yet and will."""


class BrokenLink(NamedTuple):
    """A link that does not hold."""

    link: LinkName
    detail: str
    lines: BitMap
    is_late: bool = False
    stops: bool = False
    """Whether the lines did not come further than here: no later link can hold for them."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one batch."""

    batch_id: str
    verdict: Verdict
    waits_for: str = ""
    """WAITING: the stage that has its lines, and what is known about it."""
    until_ms: int | None = None
    """WAITING for the join: the moment at which the last line leaves the window, by stream time."""
    lines: int = 0
    """Lines that the registry says."""
    outcomes: Mapping[str, int] = {}
    """Outcome -> lines, by the warehouse's ledger."""
    links: list[Link]
    lines_broken: list[int] = []


_LINK_OF: Final[Mapping[DifferenceKind, LinkName]] = whole_table(DifferenceKind, {
    DifferenceKind.REGISTRY_LOST: LinkName.REGISTRY, DifferenceKind.REGISTRY_CHANGED: LinkName.REGISTRY,
    DifferenceKind.RAW_LOST: LinkName.RAW, DifferenceKind.RAW_CHANGED: LinkName.RAW,
    DifferenceKind.RECORD_LOST: LinkName.TRANSACTIONS, DifferenceKind.RECORD_CHANGED: LinkName.TRANSACTIONS,
    DifferenceKind.FILE_LOST: LinkName.FILES, DifferenceKind.FILE_CHANGED: LinkName.FILES,
    DifferenceKind.MANIFEST_LOST: LinkName.FILES, DifferenceKind.MANIFEST_CHANGED: LinkName.FILES,
    DifferenceKind.READY_LOST: LinkName.FILES, DifferenceKind.READY_CHANGED: LinkName.FILES,
    DifferenceKind.LOG_LOST: LinkName.LOAD, DifferenceKind.LOG_CHANGED: LinkName.LOAD,
    DifferenceKind.ROWS_LOST: LinkName.ROWS, DifferenceKind.ROWS_DOUBLED: LinkName.ROWS,
    DifferenceKind.ROWS_CHANGED: LinkName.ROWS, DifferenceKind.ROWS_FOREIGN: LinkName.ROWS,
    DifferenceKind.LINES_LOST: LinkName.TRANSACTIONS, DifferenceKind.LINES_DOUBLED: LinkName.LOAD,
    DifferenceKind.QUARANTINED: LinkName.LOAD, DifferenceKind.DEAD_LETTER: LinkName.OFFSETS,
    DifferenceKind.STEP_DAMAGED: LinkName.TRANSACTIONS,
})  # fmt: skip


def fault_of(difference: Difference) -> BrokenLink:
    """A difference of the batch as a broken link; rows of the ledger are part of the load."""
    link = LinkName.LOAD if difference.flow == LEDGER.name and _is_rows(difference) else _LINK_OF[difference.kind]
    words = [difference.kind.value, difference.flow, difference.txn_id]
    return BrokenLink(link, f"{' '.join(word for word in words if word)}: {difference.detail}", BitMap(difference.lines))


def _is_rows(difference: Difference) -> bool:
    return _LINK_OF[difference.kind] is LinkName.ROWS


_WAITS_AT: Final[Mapping[Stage, LinkName]] = whole_table(Stage, {
    Stage.LOST: LinkName.TRANSACTIONS, Stage.QUARANTINED: LinkName.LOAD, Stage.DEAD_LETTER: LinkName.OFFSETS,
    Stage.KINESIS: LinkName.OFFSETS, Stage.ETL: LinkName.TRANSACTIONS, Stage.SINK: LinkName.TRANSACTIONS,
    Stage.DELIVERY: LinkName.LOAD, Stage.JOIN: LinkName.TRANSACTIONS, Stage.LOADED: LinkName.ROWS,
})  # fmt: skip
"""The first link that does not hold for a line in a stage."""
_WORDS: Final[Mapping[Stage, str]] = whole_table(Stage, {
    Stage.LOST: "the audit: it sends the batch again, or proves that the lines are lost",
    Stage.QUARANTINED: "an operator: delivery has set the transaction aside",
    Stage.DEAD_LETTER: "the audit: it sends the batch again, because a block could not be read",
    Stage.KINESIS: "kinesis: a block is not in topic blocks yet",
    Stage.ETL: "etl",
    Stage.SINK: "sink",
    Stage.DELIVERY: "delivery",
    Stage.JOIN: "join",
    Stage.LOADED: "",
})  # fmt: skip


def faults_of_stages(found: BatchStage, lost: BitMap) -> list[BrokenLink]:
    """The links that do not hold because lines are not in the warehouse's ledger.

    Args:
        found: where the lines stand.
        lost: the lines that are lost for certain; other lines without a place wait for the audit.
    """
    faults = []
    for block in found.blocks:
        for stage, lines in block.lines.items():
            if stage is Stage.LOADED:
                continue
            gone = lines & lost
            if gone:
                detail = f"block {block.block}: {len(gone)} lines are in no ledger, and nothing on its way can bring them"
                faults.append(BrokenLink(_WAITS_AT[Stage.LOST], detail, gone, stops=True))
            if waiting := lines - lost:
                is_late = stage is not Stage.QUARANTINED
                faults.append(BrokenLink(_WAITS_AT[stage], _words(block, stage, len(waiting)), waiting, is_late, stops=True))
    return faults


def waits_for(found: BatchStage) -> str:
    """The stage that holds a batch, in words."""
    holder = found.holder
    return f"{_WORDS[holder.stage]}{f' ({holder.detail})' if holder.detail else ''}"


def _words(block: BlockStage, stage: Stage, count: int) -> str:
    ids = f" in {', '.join(block.txn_ids[stage])}" if stage in block.txn_ids else ""
    detail = f" ({block.detail})" if block.detail and stage is block.stage and not ids else ""
    return f"block {block.block}: {count} lines wait for {_WORDS[stage]}{ids}{detail}"


def conclude(
    batch_id: str, holds: Mapping[LinkName, str], faults: Iterable[BrokenLink], stage: BatchStage | None = None
) -> Proof:
    """The proof, from what is known of each link.

    Args:
        batch_id: the batch.
        holds: link -> its detail if it holds. A link that is absent could not be looked at: an earlier one is broken.
        faults: the links that do not hold.
        stage: where the lines stand that are not loaded; None if all are.
    """
    by_link: dict[LinkName, list[BrokenLink]] = {}
    for fault in faults:
        by_link.setdefault(fault.link, []).append(fault)
    links = []
    stopped: list[BrokenLink] = []
    for name in LinkName:
        found = by_link.get(name, [])
        before, stopped = stopped, stopped + [fault for fault in found if fault.stops]
        if found:
            details = dict.fromkeys(fault.detail for fault in found)
            links.append(Link(name, False, "; ".join(details), waits=all(fault.is_late for fault in found)))
        elif name in holds and before:
            links.append(Link(name, False, holds[name], waits=all(fault.is_late for fault in before)))
        elif name in holds:
            links.append(Link(name, True, holds[name]))
        else:
            links.append(Link(name, False, "not looked at: a link before it is broken"))
    broken = [fault for some in by_link.values() for fault in some if not fault.is_late]
    verdict = Verdict.BROKEN if broken else Verdict.WAITING if by_link else Verdict.PROVEN
    is_waiting = verdict is Verdict.WAITING and stage is not None
    return Proof(
        batch_id=batch_id, verdict=verdict, links=links,
        waits_for=waits_for(stage) if is_waiting and stage is not None else _late(by_link) if by_link and not broken else "",
        until_ms=stage.until_ms if is_waiting and stage is not None else None,
        lines_broken=list(BitMap.union(BitMap(), *(fault.lines for fault in broken))),
    )  # fmt: skip


def _late(by_link: Mapping[LinkName, Sequence[BrokenLink]]) -> str:
    return next(fault.detail for name in LinkName for fault in by_link.get(name, ()))


def verdict_of(proofs: Iterable[Verdict]) -> Verdict:
    """The verdict on several batches: the worst."""
    found = set(proofs)
    return next((each for each in (Verdict.BROKEN, Verdict.WAITING) if each in found), Verdict.PROVEN)
