"""Going on behind a gap in `rows` that an operator has accepted (rule S5)."""

from typing import NamedTuple

from app.core.formats import object_keys
from app.core.formats.flows import OUTPUTS
from app.core.formats.step_history import Accepted, BaseSearch, Candidate, StepVerdict, accepted_before
from app.core.formats.step_message import StepMessage
from app.core.formats.transaction_record import OutputObject, TransactionRecord
from app.core.sink.chain import ChainEnd, ChainId
from app.errors import ChainBroken


class Resumption(NamedTuple):
    """The place where a chain goes on: the message at `offset` is the first that counts behind `accepted`."""

    offset: int
    accepted: Accepted
    digest: str


class Acceptance(NamedTuple):
    """An operator's decision that rows are gone and the chain shall go on."""

    reason: str
    at_ms: int


class ResumptionSearch:
    """Finds the message behind a gap at which counting can go on. Messages are offered in order.

    If a message continues the chain's own count, counting goes on there: the lost messages before it did not count.
    Otherwise counting goes on at the base, where a reader without a history starts (rule E5): the first message that a later
    message names.
    """

    def __init__(self, end: ChainEnd) -> None:
        self._end = end
        self._bases = BaseSearch()

    def offer(self, offset: int, step: StepMessage) -> Resumption | None:
        """Look at the next message of the log; the resumption once it is known."""
        if self._end.accepted.judge(step.number, step.predecessor) is StepVerdict.ACCEPT:
            return Resumption(offset, self._end.accepted, self._end.digest)
        found = self._bases.offer(Candidate(offset, step.number, step.predecessor, b""))
        return Resumption(found[0].offset, accepted_before(found[0]), "") if found else None


def bridge_record(
    chain_id: ChainId, end: ChainEnd, resumption: Resumption, txn: str, accepted: Acceptance
) -> TransactionRecord:
    """The record that bridges a gap. It has no output, and the message behind the gap continues its count.

    The record answers for every offset up to that message. Its last step is that message's predecessor. If the predecessor
    is lost, the record has no digest; if the predecessor is the chain's own last step, the record keeps its digest.

    Raises:
        ChainBroken: there is no gap: the chain goes on at the resumption by itself.
    """
    if resumption.offset == end.next_offset and resumption.accepted == end.accepted:
        raise ChainBroken(f"{chain_id} has no gap: offset {resumption.offset} continues transaction {end.number}")
    return TransactionRecord(
        txn_id=txn, epoch=chain_id.epoch, partition=chain_id.partition, number=end.number + 1,
        first_offset=end.next_offset, last_offset=resumption.offset - 1, step_number=resumption.accepted.number,
        step_offset=resumption.accepted.offset, step_digest=resumption.digest, stream_time_ms=end.stream_time_ms,
        committed_at_ms=accepted.at_ms, outputs=[OutputObject(output=flow.name, rows=0) for flow in OUTPUTS],
        ready_key=object_keys.ready_key(txn, accepted.at_ms), accepted_gap=accepted.reason,
    )  # fmt: skip
