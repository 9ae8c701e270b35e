"""Finds damaged steps on topic `rows` from the numbers of the steps behind them, without the state (rule E2).

`instream repair-log` decides such a step again; this file only says where one is.
"""

from collections.abc import Iterable

from app.core.audit.differences import Difference, DifferenceKind
from app.core.formats.step_history import Accepted, BaseSearch, Candidate, StepVerdict, accepted_before
from app.core.formats.step_message import StepLog, decode_followed
from app.core.repair.damage import damaged_between
from app.errors import RepairRefused, StepMessageInvalid


class StepWalk:
    """Follows one partition of `rows`; messages are offered in order, replacements in place of damaged messages.

    An unreadable message is damage only if a later step needs it. At the end of the log nobody knows that yet.
    """

    def __init__(self, log: StepLog, *, is_trimmed: bool) -> None:
        self._log = log
        self._accepted: Accepted | None = None if is_trimmed else Accepted()
        self._bases = BaseSearch()
        self._unreadable: set[int] = set()

    def offer(self, message: bytes | None, offset: int) -> list[Difference]:
        """Take the next message. Returns: the damage that it proves.

        Raises:
            NewerFormat: a newer version wrote it.
        """
        try:
            step = decode_followed(message, self._log)
        except StepMessageInvalid:
            self._unreadable.add(offset)
            return []
        candidate = Candidate(offset, step.number, step.predecessor, b"")
        if self._accepted is not None:
            return self._accept(candidate)
        held = self._bases.offer(candidate)
        if not held:
            return []
        self._accepted = accepted_before(held[0])
        return [found for each in held for found in self._accept(each)]

    def _accept(self, step: Candidate) -> list[Difference]:
        accepted = self._accepted or Accepted()
        verdict = accepted.judge(step.number, step.predecessor)
        damaged: list[Difference] = []
        if verdict is StepVerdict.GAP:
            damaged = self._damage(accepted, step)
        elif verdict is StepVerdict.IGNORE:
            if step.predecessor not in self._unreadable or step.number <= accepted.number:
                return []
            damaged = [self._difference(step.predecessor, f"step {step.number - 1} cannot be read")]  # a zombie's counted
        self._accepted = Accepted(step.number, step.offset)
        return damaged

    def _damage(self, accepted: Accepted, step: Candidate) -> list[Difference]:
        try:
            offsets: Iterable[int] = damaged_between(accepted, step, self._unreadable, ())
        except RepairRefused as exc:
            return [self._difference(step.predecessor, str(exc))]
        return [
            self._difference(offset, f"step {number} cannot be read")
            for number, offset in enumerate(offsets, accepted.number + 1)
        ]

    def _difference(self, offset: int, detail: str) -> Difference:
        return Difference(
            kind=DifferenceKind.STEP_DAMAGED, flow=self._log.topic, detail=f"{self._log}@{offset}: {detail}",
            partition=self._log.partition, offset=offset,
        )  # fmt: skip
