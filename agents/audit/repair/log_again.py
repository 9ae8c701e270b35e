"""A transaction made again from topic `rows`: the same messages give the same files, byte for byte (rules S2, R4)."""

from collections.abc import Callable
from typing import Final

from app.adapters.ports import LogScan, ObjectStore
from app.core.formats.transaction_record import TransactionRecord
from app.core.repair.replacements import Replacements
from app.core.sink.chain import ChainId, chain_end_after
from app.core.sink.open_transaction import OpenTransaction, Reception
from app.errors import ChainGap, RepairRefused
from app.shell.repairs import read_replacements

IsWhole = Callable[[OpenTransaction], bool]
_ANY: Final = frozenset({Reception.COUNTED, Reception.IGNORED, Reception.FOREIGN})


class RowsLog:
    """Topic `rows` of an epoch."""

    def __init__(self, logs: LogScan | None, topic: str, store: ObjectStore, epoch: int) -> None:
        """Read nothing yet; `logs` is None if Kafka does not answer."""
        self._logs = logs
        self._topic = topic
        self._store = store
        self._epoch = epoch

    async def transaction(
        self, partition: int, before: TransactionRecord | None, last: int | None, is_whole: IsWhole = lambda _: False
    ) -> OpenTransaction:
        """The messages of a transaction, taken as the sink took them.

        Args:
            partition: the chain's.
            before: the transaction before it; None if it is the first.
            last: the last offset that it answers for; None if nobody knows.
            is_whole: asked after each message if nobody knows the last offset: whether it was the last one.

        Raises:
            RepairRefused: the log does not have all of its messages, or cannot be read.
            ServiceUnavailable: Kafka or S3 does not answer.
        """
        if self._logs is None:
            raise RepairRefused("Kafka does not answer, and topic rows is the source")
        chain_id, end = ChainId(self._epoch, partition), chain_end_after(before)
        found = await read_replacements(self._store, self._epoch, {partition})
        open_ = OpenTransaction(chain_id, end, 0.0, found.get(partition, Replacements()))
        first, behind = await self._logs.bounds(self._topic, partition)
        if last is not None and last < end.next_offset:
            return open_
        if first > end.next_offset or (last is not None and last >= behind):
            wanted = f"{end.next_offset} to {'its end' if last is None else last}"
            raise RepairRefused(
                f"{self._topic}[{partition}] has offsets {first} to {behind - 1}, and {wanted} are needed: they are gone by "
                "retention"
            )
        upto = behind if last is None else last + 1
        async for message in self._logs.scan(self._topic, partition, end.next_offset, upto):
            try:
                taken = open_.take(message.offset, message.value, 0.0)
            except ChainGap as exc:
                raise RepairRefused(f"{self._topic}[{partition}]@{message.offset}: {exc}") from exc
            if taken not in _ANY:
                raise RepairRefused(f"{self._topic}[{partition}] lacks offset {open_.next_offset}")
            if last is None and is_whole(open_):
                return open_
        if last is None or open_.last_offset != last:
            raise RepairRefused(f"{self._topic}[{partition}] does not have the messages that the transaction was made from")
        return open_
