"""Finds blocks of batches in topic `blocks`: from the time at which the batch was received, forward."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from app.adapters.ports import LogSearch
from app.core.audit.stages import BlockCopy, BlockSearchResult
from app.core.formats.block import decode_header
from app.core.formats.registry_item import RegistryItem
from app.errors import EnvelopeInvalid, NewerFormat

CLOCKS_DIFFER_MS: Final = 10_000
"""The broker's clock may be behind the collector's by so much: a collector that is 5 s off S3's clock takes nothing."""
SEARCHED_MOST: Final = 20_000
"""Messages of one partition that one search reads at most."""

BlockName = tuple[str, int]
"""Batch id and block number."""


class WantedBlock(NamedTuple):
    """A block to find."""

    item: RegistryItem
    block: int
    all_copies: bool = False
    """Whether the search goes on behind the first copy."""
    replayed_at_ms: int | None = None
    """The time of the audit's last replay: if the block is not found at the batch's time, it is looked for from there."""

    @property
    def name(self) -> BlockName:
        """Names the block among all."""
        return self.item.batch_id, self.block

    @property
    def partition(self) -> int:
        """The partition that the block lies in."""
        return self.item.blocks[self.block].partition


class BlockSearch:
    """Searches one topic; each call reads what it needs of every partition once."""

    def __init__(self, logs: LogSearch, topic: str, most: int = SEARCHED_MOST) -> None:
        self._logs = logs
        self._topic = topic
        self._most = most

    async def find(self, wanted: Iterable[WantedBlock]) -> dict[BlockName, BlockSearchResult]:
        """Each wanted block's place.

        Raises:
            ServiceUnavailable: the brokers do not answer.
        """
        by_partition: dict[int, list[WantedBlock]] = {}
        for each in wanted:
            by_partition.setdefault(each.partition, []).append(each)
        found: dict[BlockName, BlockSearchResult] = {}
        for partition, some in sorted(by_partition.items()):
            searches = await self._in_partition(partition, some)
            again = [w for w in some if w.replayed_at_ms is not None and not searches[w.name].copies]
            if again:
                searches |= await self._in_partition(partition, again, after_replay=True)
            found |= searches
        return found

    async def _in_partition(
        self, partition: int, wanted: list[WantedBlock], *, after_replay: bool = False
    ) -> dict[BlockName, BlockSearchResult]:
        """Scan from the earliest time of the wanted blocks to the last of them, to the log's end, or to the bound."""
        since_ms = min(w.replayed_at_ms or 0 if after_replay else w.item.received_at_ms for w in wanted) - CLOCKS_DIFFER_MS
        earliest, end = await self._logs.bounds(self._topic, partition)
        first = await self._logs.offset_at(self._topic, partition, since_ms)
        last = min(end, first + self._most)
        copies: dict[BlockName, list[BlockCopy]] = {w.name: [] for w in wanted}
        open_names = {w.name for w in wanted}
        goes_on = {w.name for w in wanted if w.all_copies}
        begins_ms: int | None = None
        async for message in self._logs.scan(self._topic, partition, first, last):
            if begins_ms is None:
                begins_ms = message.timestamp_ms
            try:
                header = decode_header(message.value)
            except (EnvelopeInvalid, NewerFormat):
                continue
            name = (header.batch_id, header.block)
            if name not in copies:
                continue
            copies[name].append(BlockCopy(message.offset, header.attempt, header.received_at_ms, message.timestamp_ms))
            open_names.discard(name)
            if not open_names and not goes_on:
                break
        is_trimmed = first == earliest > 0
        return {
            w.name: BlockSearchResult(
                copies=tuple(copies[w.name]),
                is_whole=bool(copies[w.name]) or last == end,
                is_expired=is_trimmed and not copies[w.name] and _before(w.item.received_at_ms, begins_ms),
            )
            for w in wanted
        }


def _before(received_at_ms: int, begins_ms: int | None) -> bool:
    """Whether a block of a batch received then may have been before the first message that the log still has."""
    return begins_ms is None or received_at_ms < begins_ms


def by_block(searches: Mapping[BlockName, BlockSearchResult], batch_id: str) -> dict[int, BlockSearchResult]:
    """The searches of one batch."""
    return {block: search for (batch, block), search in searches.items() if batch == batch_id}
