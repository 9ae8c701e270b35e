"""The search for the transactions to blame in a failed load, by trying parts of it (rule D2)."""

from collections.abc import Sequence
from typing import Final

from app.core.delivery.load_plan import Failure, FailureClass
from app.core.formats.transaction_record import Ready

ALIKE_ENOUGH: Final = 3
"""So many transactions whose file of one output fails, and none whose loads: it is not the transactions."""


class Bisection:
    """Finds which transactions of a failed load are to blame, by trying parts of it (and rolling each try back).

    Feed it: `next()` is what to try, then `passed()` or `failed(failure)`. It ends when `next()` is None. A search that was
    interrupted goes on where it was.

    A part that fails is halved. If the warehouse names a file, the file's transaction is tried alone first, and then all
    others of the part together: one bad file among 256 costs two tries and not sixteen. The name is no proof. If the named
    transaction loads, the others are halved. Only bad files are named, so names alone would end in `ALIKE_ENOUGH` that fail
    alike; halves may meet one that loads before that.

    Args:
        transactions: those of the failed load, in random order, another each time: where the search gave up early because
            the first few failed alike, a later search then meets one that loads.
        failure: why the load failed.
    """

    def __init__(self, transactions: Sequence[Ready], failure: Failure) -> None:
        self.transactions = tuple(transactions)
        self.txn_ids = frozenset(txn.txn_id for txn in transactions)
        self._loadable: set[str] = set()
        self._stack: list[tuple[Ready, ...]] = []
        self._trying: tuple[Ready, ...] = ()
        self._named: tuple[Ready, ...] | None = None
        """The part that has only the transaction whose file the warehouse named, while it is to be tried."""
        self.suspects: dict[str, Failure] = {}
        """txn_id -> why it fails alone."""
        self.witnesses: set[str] = set()
        """Outputs of which some transaction's file loaded."""
        self._divide(self.transactions, failure)

    def next(self) -> tuple[Ready, ...] | None:
        """The transactions to try now; the same ones again until `passed` or `failed` is called."""
        if not self._stack or self._alike():
            return None
        self._trying = self._stack[-1]
        return self._trying

    def passed(self) -> None:
        """Note that the tried transactions would load."""
        self._stack.pop()
        self._loadable |= {txn.txn_id for txn in self._trying}
        self.witnesses |= {o.output for txn in self._trying for o in txn.outputs if o.rows > 0}
        if self._trying is self._named and self._stack:
            self._stack += _halves(self._stack.pop())  # the warehouse named an innocent one

    def failed(self, failure: Failure) -> None:
        """Note that the tried transactions would not load."""
        self._stack.pop()
        if len(self._trying) == 1:
            self.suspects[self._trying[0].txn_id] = failure
        else:
            self._divide(self._trying, failure)

    def acquit(self, txn_id: str) -> None:
        """A suspect loaded when it was tried once more: what failed was not its file."""
        self._loadable.add(txn_id)
        del self.suspects[txn_id]

    def _divide(self, part: tuple[Ready, ...], failure: Failure) -> None:
        named = next((txn for txn in part if failure.file and _has_file(txn, failure.file)), None)
        if named is None or len(part) == 1 or self._is_doubtful(failure.output):
            self._stack += _halves(part)
            return
        self._named = (named,)
        self._stack += [tuple(txn for txn in part if txn is not named), self._named]

    @property
    def _without_witness(self) -> list[Failure]:
        """The failures of suspects of whose output no other transaction's file loaded."""
        return [failure for failure in self.suspects.values() if failure.output not in self.witnesses]

    def _is_doubtful(self, output: str) -> bool:
        """Whether one more file that fails would end the search: then chance must choose, which may find one that loads."""
        return [failure.output for failure in self._without_witness].count(output) >= ALIKE_ENOUGH - 1

    def _alike(self) -> dict[str, Failure]:
        """Outputs of which so many failed alike that it is not for the transactions, each with its failure."""
        blamed = self._without_witness
        outputs = [failure.output for failure in blamed]
        return {failure.output: failure for failure in blamed if outputs.count(failure.output) >= ALIKE_ENOUGH}

    def verdict(self) -> dict[str, Failure]:
        """The transactions to set aside, each with its failure.

        One is set aside when another transaction's file of the same output loaded, so the fault is its own; or when the
        warehouse named its file and it is the only one that fails. Otherwise all fail alike, and all are tried later.
        """
        blamed = [failure.output for failure in self.suspects.values()]
        return {
            txn_id: failure
            for txn_id, failure in self.suspects.items()
            if failure.output in self.witnesses or (failure.kind is FailureClass.DATA and blamed.count(failure.output) == 1)
        }

    def waiting(self) -> dict[str, Failure]:
        """The transactions to try later, each with the reason.

        Suspects that are not proven bad and, where the search gave up, whatever has a file of an output that fails alike
        and was not seen to load.
        """
        alike, bad = self._alike(), self.verdict()
        waiting = {txn_id: failure for txn_id, failure in self.suspects.items() if txn_id not in bad}
        for txn in self.transactions:
            if txn.txn_id in self._loadable or txn.txn_id in self.suspects:
                continue
            if found := next((alike[o.output] for o in txn.outputs if o.rows > 0 and o.output in alike), None):
                waiting[txn.txn_id] = found
        return waiting


def _has_file(txn: Ready, url: str) -> bool:
    """Whether a URL that the warehouse names is that of a transaction's file."""
    return any(o.rows > 0 and url.endswith(f"/{o.data_key}") for o in txn.outputs)


def _halves(transactions: tuple[Ready, ...]) -> list[tuple[Ready, ...]]:
    """The parts to try, the later first, for the stack gives back the last; a single one is tried as it is."""
    if len(transactions) == 1:
        return [transactions]
    middle = len(transactions) // 2
    return [transactions[middle:], transactions[:middle]]
