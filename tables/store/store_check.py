"""The check whether a partition's store belongs to the log: on assignment, before recovery trusts it (rule E5)."""

from typing import NamedTuple

import structlog

from app.adapters.ports import Logs, ObjectStore
from app.core.formats.object_keys import chain_prefix
from app.core.formats.step_message import digest_of
from app.core.repair.replacements import Replacements
from app.core.sink.chain import ChainId
from app.errors import DigestMismatch, StoreLost, TopicRecreated
from app.topics import Topics
from tables.store.partition_store import PartitionStore

log = structlog.get_logger(__name__)


class StoreCheck(NamedTuple):
    """The sources of the answer."""

    logs: Logs
    objects: ObjectStore
    topics: Topics
    epoch: int
    group: str
    """The ETL's consumer group."""

    async def is_stale(
        self, db: PartitionStore, partition: int, first: int, end: int, replaced: Replacements | None = None
    ) -> bool:
        """Whether the store must be wiped: the log has lost the messages behind it, or its last step was replaced.

        Args:
            db: The partition's store.
            partition: Its number.
            first: The earliest offset that `rows` still has.
            end: One more than the last offset of `rows`.
            replaced: The replacements of the partition's damaged steps.

        Raises:
            StoreLost: there was a history, and neither the store nor the log has it.
            TopicRecreated: the store is ahead of the log.
            DigestMismatch: the log has another message at the offset of the store's last one.
        """
        rows = self.topics.rows.name
        where = f"{rows}[{partition}]"
        if db.empty:
            if end == 0:
                await self._verify_first_start(partition)
            elif first == end:
                raise StoreLost(f"{where} has lost all its {end} messages and there is no store: raise INSTREAM_EPOCH")
            return False
        if db.rows_offset >= end:
            raise TopicRecreated(f"{where} ends at {end}, the store has read {db.rows_offset}: raise INSTREAM_EPOCH")
        if db.rows_offset + 1 < first:
            log.warning("stale store is wiped", partition=partition, persisted=db.rows_offset, first=first)
            return True
        accepted, digest = db.position.accepted, db.position.digest
        if replaced is not None and (message := replaced.at(accepted.offset, None)) is not None:
            if digest_of(message) == digest:
                return False
            log.warning("store ends in a step that was replaced, it is wiped", partition=partition, offset=accepted.offset)
            return True
        if first <= accepted.offset:
            message = await self.logs.message_at(rows, partition, accepted.offset)
            if message is not None and digest_of(message) != digest:
                raise DigestMismatch(
                    f"{where} has another message at {accepted.offset} than the store was built from; if the message is "
                    "damaged, `instream repair-log` replaces it"
                )
        return False

    async def _verify_first_start(self, partition: int) -> None:
        """An empty log is a first start only if nothing was ever taken from it or from its source.

        This process may have been stopped since it found the log empty, and may now see the work of another owner. So the
        log is asked again after the evidence: another owner's steps were in the log before its evidence existed (rules E3,
        S1).
        """
        rows = self.topics.rows.name
        evidence = await self._evidence_of_a_history(partition)
        if evidence and (await self.logs.bounds(rows, partition))[1] == 0:
            raise StoreLost(f"{rows}[{partition}] is empty but {evidence}: raise INSTREAM_EPOCH")

    async def _evidence_of_a_history(self, partition: int) -> str | None:
        """The evidence that the partition has had an owner; None if there is none."""
        async for record in self.objects.list(chain_prefix(*ChainId(self.epoch, partition)), limit=1):
            return f"S3 has {record.key}"
        committed = await self.logs.committed(self.group)
        offset = committed.get((self.topics.blocks.name, partition))
        return f"{self.topics.blocks.name} is acknowledged up to {offset}" if offset else None
