"""The mends of damage: differences of the deep audit become actions, in the order in which they are done (rules R1, R2).

A difference says what two places tell differently. Each copy has a source, which is never changed to fit the copy: raw
files for the registry, the log for records and files, records for manifests and delivery_log, files for the warehouse. So a
mend makes the copy from its source again, and the sources are mended first.

Doing a plan twice is harmless: an action looks at the damage again before it changes anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from app.core.audit.differences import Difference, DifferenceKind
from app.core.whole_table import whole_table


class Action(StrEnum):
    """Every kind of mend, in the order in which mends are done."""

    RESTORE_RAW = "restore_raw"
    REGISTER = "register"
    REPLACE_STEP = "replace_step"
    RESTORE_RECORD = "restore_record"
    RESTORE_FILE = "restore_file"
    WRITE_MANIFESTS = "write_manifests"
    WRITE_LOG = "write_log"
    RELOAD = "reload"
    RELEASE = "release"
    RESTORE_LINES = "restore_lines"
    SETTLE_LINES = "settle_lines"
    REPLAY = "replay"


MEANINGS: Final[Mapping[Action, str]] = whole_table(Action, {
    Action.RESTORE_RAW: "put the raw file together again, from the blocks in topic blocks",
    Action.REGISTER: "make the registry item again, from the raw file",
    Action.REPLACE_STEP: "decide the damaged step again, as `instream repair-log` does",
    Action.RESTORE_RECORD: "make the commit record again, from ready.json and topic rows",
    Action.RESTORE_FILE: "write the data file again, from topic rows, or from raw files and the ledger",
    Action.WRITE_MANIFESTS: "write manifests and ready.json again, from the commit record",
    Action.WRITE_LOG: "write the transaction's row of delivery_log again, under the lock",
    Action.RELOAD: "delete the transaction's rows of the flow and load its file again, in one warehouse transaction",
    Action.RELEASE: "load the quarantined transaction",
    Action.RESTORE_LINES: "decide the lines again from raw files, and commit them as a transaction of their own",
    Action.SETTLE_LINES: "nothing by itself: what doubled the lines is mended by its own action",
    Action.REPLAY: "send the batch again from its raw file",
})  # fmt: skip

ACTIONS: Final[Mapping[DifferenceKind, Action]] = whole_table(DifferenceKind, {
    DifferenceKind.REGISTRY_LOST: Action.REGISTER,
    DifferenceKind.REGISTRY_CHANGED: Action.REGISTER,
    DifferenceKind.RAW_LOST: Action.RESTORE_RAW,
    DifferenceKind.RAW_CHANGED: Action.RESTORE_RAW,
    DifferenceKind.RECORD_LOST: Action.RESTORE_RECORD,
    DifferenceKind.RECORD_CHANGED: Action.RESTORE_RECORD,
    DifferenceKind.FILE_LOST: Action.RESTORE_FILE,
    DifferenceKind.FILE_CHANGED: Action.RESTORE_FILE,
    DifferenceKind.MANIFEST_LOST: Action.WRITE_MANIFESTS,
    DifferenceKind.MANIFEST_CHANGED: Action.WRITE_MANIFESTS,
    DifferenceKind.READY_LOST: Action.WRITE_MANIFESTS,
    DifferenceKind.READY_CHANGED: Action.WRITE_MANIFESTS,
    DifferenceKind.LOG_LOST: Action.WRITE_LOG,
    DifferenceKind.LOG_CHANGED: Action.WRITE_LOG,
    DifferenceKind.ROWS_LOST: Action.RELOAD,
    DifferenceKind.ROWS_DOUBLED: Action.RELOAD,
    DifferenceKind.ROWS_CHANGED: Action.RELOAD,
    DifferenceKind.ROWS_FOREIGN: Action.RELOAD,
    DifferenceKind.LINES_LOST: Action.RESTORE_LINES,
    DifferenceKind.LINES_DOUBLED: Action.SETTLE_LINES,
    DifferenceKind.QUARANTINED: Action.RELEASE,
    DifferenceKind.DEAD_LETTER: Action.REPLAY,
    DifferenceKind.STEP_DAMAGED: Action.REPLACE_STEP,
})  # fmt: skip

_OF_BATCH: Final = frozenset({
    Action.RESTORE_RAW, Action.REGISTER, Action.SETTLE_LINES, Action.REPLAY,
})  # fmt: skip
_ORDER: Final = {action: n for n, action in enumerate(Action)}


class Mend(msgspec.Struct, frozen=True, kw_only=True):
    """One action on one thing, for all differences that it mends."""

    action: Action
    batch_id: str = ""
    """Of an action on a batch; else empty."""
    txn_id: str = ""
    """Of an action on a transaction or its rows."""
    partition: int | None = None
    number: int | None = None
    """Of a transaction whose number is known."""
    flows: tuple[str, ...] = ()
    """The outputs that are damaged, where the action is about outputs."""
    batch_ids: tuple[str, ...] = ()
    """Of an action on the lost lines of all batches: a lost first event takes a lost second event of another batch."""
    differences: tuple[int, ...]
    """Positions of the differences that it mends."""


def plan_mends(differences: Sequence[Difference]) -> list[Mend]:
    """The mends of all differences, in the order in which they are done.

    Guarantees: each difference has exactly one mend; one mend touches each thing once.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for n, each in enumerate(differences):
        groups.setdefault(_thing(each), []).append(n)
    mends = [_mend([differences[n] for n in places], tuple(places)) for places in groups.values()]
    return sorted(mends, key=lambda mend: (_ORDER[mend.action], *_by_place(mend)))


def _thing(each: Difference) -> tuple[object, ...]:
    """What the difference's mend touches: differences with the same thing are mended together."""
    action = ACTIONS[each.kind]
    if action is Action.RESTORE_LINES:
        return (action,)
    if action in _OF_BATCH:
        return action, each.batch_id
    if action is Action.REPLACE_STEP:
        return action, each.partition
    if action is Action.RESTORE_RECORD or (not each.txn_id and each.number is not None):
        return action, each.partition, each.number
    return action, each.txn_id


def _mend(some: Sequence[Difference], places: tuple[int, ...]) -> Mend:
    action = ACTIONS[some[0].kind]
    if action is Action.RESTORE_LINES:
        return Mend(action=action, batch_ids=tuple(sorted({each.batch_id for each in some})), differences=places)
    if action in _OF_BATCH:
        return Mend(action=action, batch_id=some[0].batch_id, differences=places)
    return Mend(
        action=action, txn_id=_first(each.txn_id for each in some), partition=some[0].partition, number=some[0].number,
        flows=tuple(sorted({each.flow for each in some if each.flow})), differences=places,
    )  # fmt: skip


def _first(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")


def _by_place(mend: Mend) -> tuple[int, int, str, str]:
    """Chains are mended from their beginning."""
    partition = -1 if mend.partition is None else mend.partition
    return partition, -1 if mend.number is None else mend.number, mend.txn_id, mend.batch_id
