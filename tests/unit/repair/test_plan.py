"""The order of mends, and what each one touches."""

from typing import Any

from app.core.audit.differences import Difference, DifferenceKind
from app.core.repair.plan import Action, plan_mends

K = DifferenceKind


def found(kind: DifferenceKind, number: int | None = None, **fields: Any) -> Difference:
    txn_id = {} if number is None else {"txn_id": f"1-0-{number}-aa", "partition": 0, "number": number}
    return Difference(kind=kind, **{**txn_id, **fields})


def test_sources_are_mended_before_their_copies() -> None:
    kinds = [K.ROWS_LOST, K.LOG_LOST, K.READY_LOST, K.FILE_LOST, K.RECORD_LOST, K.RAW_LOST, K.REGISTRY_LOST]
    mends = plan_mends([found(kind, 1, batch_id="b") for kind in kinds])
    assert [mend.action for mend in mends] == [
        Action.RESTORE_RAW, Action.REGISTER, Action.RESTORE_RECORD, Action.RESTORE_FILE, Action.WRITE_MANIFESTS,
        Action.WRITE_LOG, Action.RELOAD,
    ]  # fmt: skip


def test_the_outputs_of_a_transaction_are_mended_together() -> None:
    (mend,) = plan_mends([
        found(K.ROWS_LOST, 3, flow="page_views", batch_id="b1"), found(K.ROWS_DOUBLED, 3, flow="ledger", batch_id="b2"),
        found(K.ROWS_CHANGED, 3, flow="page_views", batch_id="b2"),
    ])  # fmt: skip
    assert (mend.action, mend.txn_id, mend.partition, mend.number) == (Action.RELOAD, "1-0-3-aa", 0, 3)
    assert mend.flows == ("ledger", "page_views")
    assert mend.differences == (0, 1, 2)


def test_chains_are_mended_from_their_beginning() -> None:
    mends = plan_mends([found(K.RECORD_LOST, number, txn_id="") for number in (7, 2, 11)])
    assert [mend.number for mend in mends] == [2, 7, 11]


def test_a_record_that_cannot_be_read_names_no_transaction_and_is_mended_once() -> None:
    mends = plan_mends([found(K.RECORD_CHANGED, 2), found(K.RECORD_CHANGED, 2, txn_id="")])
    assert [(mend.number, mend.txn_id) for mend in mends] == [(2, "1-0-2-aa")]


def test_lost_lines_of_all_batches_are_one_mend() -> None:
    """A first event in one batch takes a second event of another one."""
    (mend,) = plan_mends([found(K.LINES_LOST, batch_id=batch_id) for batch_id in ("b2", "b1", "b2")])
    assert (mend.action, mend.batch_ids) == (Action.RESTORE_LINES, ("b1", "b2"))


def test_damaged_steps_of_a_partition_are_one_mend() -> None:
    mends = plan_mends([found(K.STEP_DAMAGED, partition=partition, offset=n) for n, partition in enumerate((1, 0, 1))])
    assert [(mend.partition, mend.differences) for mend in mends] == [(0, (1,)), (1, (0, 2))]


def test_nothing_is_planned_for_nothing() -> None:
    assert plan_mends([]) == []
