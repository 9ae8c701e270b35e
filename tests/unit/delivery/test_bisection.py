"""The search for the transactions to blame (rule D2)."""

import random
from collections.abc import Sequence

import pytest

from app.core.delivery.bisection import ALIKE_ENOUGH, Bisection
from app.core.delivery.load_plan import Failure, FailureClass
from app.core.formats.transaction_record import Ready
from tests.builders.ready import txn

Search = tuple[Bisection, int]
"""A search that has ended, and the number of its tries."""


def search(
    transactions: list[Ready], bad: set[str], kind: FailureClass = FailureClass.UNCLEAR, *, named: Ready | None = None,
    names: bool = False,
) -> Search:  # fmt: skip
    """Search as a warehouse would let one in which the `bad` transactions' page_views fail.

    It names no file; or with `names` that of the first bad one in the part; or always that of `named`.
    """

    def failure_of(part: Sequence[Ready]) -> Failure:
        blamed = named or next(t for t in part if t.txn_id in bad)
        file = f"s3://bucket/{blamed.outputs[0].data_key}" if named or names else ""
        return Failure(kind, "x", "x", "page_views", file)

    found, tries = Bisection(transactions, failure_of(transactions)), 0
    while (part := found.next()) is not None:
        tries += 1
        if any(t.txn_id in bad for t in part):
            found.failed(failure_of(part))
        else:
            found.passed()
    return found, tries


@pytest.mark.parametrize("count", [2, 3, 8, 100])
def test_the_search_finds_exactly_the_bad_one(count: int) -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(count)]
    for place in {0, count // 2, count - 1}:
        found, tries = search(transactions, {transactions[place].txn_id})
        assert set(found.verdict()) == {transactions[place].txn_id}
        assert tries <= 2 * count.bit_length()


def test_several_bad_ones_are_all_found() -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(16)]
    bad = {transactions[n].txn_id for n in (2, 7, 15)}
    assert set(search(transactions, bad)[0].verdict()) == bad


def test_all_failing_alike_are_not_blamed_and_the_search_gives_up_early() -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(64)]
    for kind in (FailureClass.UNCLEAR, FailureClass.DATA):
        found, tries = search(transactions, {t.txn_id for t in transactions}, kind)
        assert found.verdict() == {}
        assert len(found.suspects) == ALIKE_ENOUGH
        assert tries < 20


def test_another_output_that_loads_is_no_witness() -> None:
    transactions = [txn(0, 1, page_views=1), txn(0, 2, ledger=1)]
    assert search(transactions, {transactions[0].txn_id})[0].verdict() == {}
    assert set(search(transactions, {transactions[0].txn_id}, FailureClass.DATA)[0].verdict()) == {transactions[0].txn_id}


def test_a_single_one_is_blamed_only_where_the_warehouse_names_its_file() -> None:
    only = txn(0, 1, page_views=1)
    assert search([only], {only.txn_id})[0].verdict() == {}
    assert set(search([only], {only.txn_id}, FailureClass.DATA)[0].verdict()) == {only.txn_id}


def test_what_the_search_gave_up_on_waits_and_the_rest_goes_on() -> None:
    bad = [txn(p, 1, page_views=1) for p in range(5)]
    other = txn(9, 1, ledger=1)
    found, _ = search([*bad, other], {t.txn_id for t in bad})
    assert found.verdict() == {}
    assert set(found.waiting()) == {t.txn_id for t in bad}


def test_a_suspect_that_loads_after_all_is_neither_bad_nor_waits() -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(4)]
    found, _ = search(transactions, {transactions[1].txn_id})
    found.acquit(transactions[1].txn_id)
    assert (found.verdict(), found.waiting()) == ({}, {})


@pytest.mark.parametrize("count", [1, 2, 3, 256])
def test_a_named_file_is_tried_alone_and_then_all_others_together(count: int) -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(count)]
    bad = transactions[count // 2].txn_id
    found, tries = search(transactions, {bad}, FailureClass.DATA, names=True)
    assert (set(found.verdict()), found.waiting()) == ({bad}, {})
    assert tries == min(count, 2)


def test_every_named_file_costs_two_tries() -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(100)]
    bad = {transactions[n].txn_id for n in (2, 71)}
    found, tries = search(transactions, bad, FailureClass.DATA, names=True)
    assert (set(found.verdict()), tries) == (bad, 4)


def test_where_most_are_bad_and_named_a_search_in_some_order_meets_one_that_loads() -> None:
    transactions = [txn(n, 1, page_views=1) for n in range(6)]
    bad = {one.txn_id for one in transactions[:4]}
    orders = [random.Random(seed).sample(transactions, 6) for seed in range(20)]
    verdicts = [set(search(order, bad, FailureClass.DATA, names=True)[0].verdict()) for order in orders]
    assert bad in verdicts
    assert all(found in (set(), bad) for found in verdicts)


def test_a_name_is_no_proof() -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(64)]
    bad, innocent = transactions[40].txn_id, transactions[3]
    found, tries = search(transactions, {bad}, FailureClass.DATA, named=innocent)
    assert set(found.verdict()) == {bad}
    assert tries <= 2 * len(transactions).bit_length()


def test_an_interrupted_search_goes_on_where_it_was() -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(8)]
    found = Bisection(transactions, Failure(FailureClass.UNCLEAR, "x", "x", "page_views"))
    first = found.next()
    assert found.next() == first == tuple(transactions[:4])
    found.passed()
    assert found.next() == tuple(transactions[4:])
