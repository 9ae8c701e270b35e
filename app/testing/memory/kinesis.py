"""One Kinesis stream in memory."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from app.adapters.kinesis import TOO_LARGE, fits, hash_key
from app.adapters.ports import PutOutcome, RecordPage, Shard, StreamRecord
from app.clock import Clock, SystemClock
from app.errors import IteratorExpired, OutsideError, ServiceUnavailable
from app.testing.memory.hooks import Hooked

RefuseBlock = Callable[[int, bytes], str | None]
"""Given a block's index in its put and its bytes, returns the error code with which Kinesis refuses it, or None."""


class _Shard(msgspec.Struct):
    """A shard: its range of hash keys, bounds included, and its records."""

    shard_id: str
    first_key: int
    last_key: int
    parents: tuple[str, ...] = ()
    ending_sequence: str | None = None
    records: list[StreamRecord] = msgspec.field(default_factory=list)


class MemoryBlockStream(Hooked):
    """Shards as lists of records. Arrival times come from `clock`; sequence numbers rise over the whole stream."""

    def __init__(self, shards: int = 2, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._shards: dict[str, _Shard] = {}
        self._sequence = 0
        self._oldest_iterator = 0
        self._iterators = 0
        self.refuse: RefuseBlock | None = None
        """Refuses single records of a put."""
        bounds = [2**128 * n // shards for n in range(shards + 1)]
        for first, behind in pairwise(bounds):
            self._open(first, behind - 1, ())

    async def put(self, blocks: Sequence[bytes]) -> list[PutOutcome]:
        """Put each block as a record; a hook's exception becomes the outcome of every block."""
        try:
            await self._enter("put")
            outcomes = [PutOutcome(self._put(index, block)) for index, block in enumerate(blocks)]
            await self._leave("put")
        except OutsideError as exc:
            return [PutOutcome(type(exc).__name__)] * len(blocks)
        return outcomes

    async def shards(self) -> list[Shard]:
        """Every shard, closed ones included."""
        await self._enter("shards")
        listed = [Shard(s.shard_id, s.parents, s.ending_sequence) for s in self._shards.values()]
        await self._leave("shards")
        return listed

    async def iterator(self, shard_id: str, after_sequence: str | None) -> str:
        """An iterator behind `after_sequence`, or at the oldest record for None."""
        await self._enter("iterator", shard_id)
        if shard_id not in self._shards:
            raise ServiceUnavailable(f"iterator {shard_id}: no such shard")
        after = 0 if after_sequence is None else int(after_sequence)
        position = sum(int(record.sequence) <= after for record in self._shards[shard_id].records)
        token = self._issue(shard_id, position)
        await self._leave("iterator", shard_id)
        return token

    async def records(self, iterator: str, limit: int) -> RecordPage:
        """The next records; a closed shard's last page has no next iterator."""
        shard_id, position_text, serial = iterator.rsplit("/", 2)
        position = int(position_text)
        await self._enter("records", shard_id)
        if int(serial) < self._oldest_iterator:
            raise IteratorExpired(f"records {shard_id}")
        if shard_id not in self._shards:
            raise ServiceUnavailable(f"records {shard_id}: no such shard")
        shard = self._shards[shard_id]
        records = shard.records[position : position + limit]
        end = position + len(records)
        left = shard.records[end:]
        behind_ms = max(1, self._clock.now_ms() - left[0].arrival_ms) if left else 0
        following = None if not left and shard.ending_sequence is not None else self._issue(shard_id, end)
        await self._leave("records", shard_id)
        return RecordPage(records, following, behind_ms)

    # --- changes of the stream by a test or a simulation

    def split(self, shard_id: str) -> tuple[str, str]:
        """Close a shard and open two children that share its range; their ids."""
        parent = self._shards[shard_id]
        middle = (parent.first_key + parent.last_key) // 2
        self._close(parent)
        left = self._open(parent.first_key, middle, (shard_id,))
        return left, self._open(middle + 1, parent.last_key, (shard_id,))

    def merge(self, shard_id: str, adjacent_id: str) -> str:
        """Close two neighbours and open one child over both ranges; its id."""
        low, high = sorted((self._shards[shard_id], self._shards[adjacent_id]), key=lambda shard: shard.first_key)
        if low.last_key + 1 != high.first_key:
            raise ValueError(f"{shard_id} and {adjacent_id} are not neighbours")
        self._close(low)
        self._close(high)
        return self._open(low.first_key, high.last_key, (shard_id, adjacent_id))

    def forget(self, shard_id: str) -> None:
        """Drop a shard from the listing, with its records, as Kinesis does when a closed shard's retention has passed."""
        del self._shards[shard_id]

    def expire_iterators(self) -> None:
        """Make every iterator given so far expire."""
        self._oldest_iterator = self._iterators + 1

    def _open(self, first_key: int, last_key: int, parents: tuple[str, ...]) -> str:
        number = max((int(shard_id.removeprefix("shardId-")) for shard_id in self._shards), default=-1) + 1
        shard_id = f"shardId-{number:012d}"
        self._shards[shard_id] = _Shard(shard_id, first_key, last_key, parents)
        return shard_id

    def _close(self, shard: _Shard) -> None:
        if shard.ending_sequence is not None:
            raise ValueError(f"{shard.shard_id} is closed already")
        self._sequence += 1
        shard.ending_sequence = str(self._sequence)

    def _issue(self, shard_id: str, position: int) -> str:
        self._iterators += 1
        return f"{shard_id}/{position}/{self._iterators}"

    def _put(self, index: int, block: bytes) -> str | None:
        """The error code with which the block is refused; None if the block is now in its shard."""
        if not fits(block):
            return TOO_LARGE
        if self.refuse is not None and (code := self.refuse(index, block)) is not None:
            return code
        key = hash_key(block)
        shard = next(s for s in self._shards.values() if s.ending_sequence is None and s.first_key <= key <= s.last_key)
        self._sequence += 1
        shard.records.append(StreamRecord(str(self._sequence), self._clock.now_ms(), bytes(block)))
        return None
