"""One Kinesis stream through boto3."""

from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from app.adapters.aws import BOTO_ERRORS, Threads, client_config, error_code, failure, made, new_session
from app.adapters.ports import PutOutcome, RecordPage, Shard, StreamRecord
from app.core.formats.block import HEADER_BYTES
from app.errors import IteratorExpired, OutsideError
from app.settings import Settings

if TYPE_CHECKING:
    from types_boto3_kinesis import KinesisClient

THREADS: Final = 16
MAX_RECORDS: Final = 500
"""Records in one PutRecords. Source: Kinesis API, PutRecords."""
MAX_CALL_BYTES: Final = 4_500_000
"""Bytes in one PutRecords, partition keys included: the service's 5 MiB less a margin."""
MAX_RECORD_BYTES: Final = 1024 * 1024
"""Bytes of one record, partition key included. Source: Kinesis quotas."""
MAX_READ_RECORDS: Final = 10_000
TOO_LARGE: Final = "RecordTooLarge"
"""Our own code for a record that was never sent."""
_EXISTS: Final = "ResourceInUseException"
_EXPIRED: Final = "ExpiredIteratorException"
_KEY_BYTES: Final = 32
_ON_DEMAND: Final = {"StreamMode": "ON_DEMAND"}


def hash_key(block: bytes) -> int:
    """The place of a block in the stream's 2^128 hash keys.

    Evenly spread over blocks, the same for every attempt of one block.
    """
    return int.from_bytes(blake2b(block[5:25] if len(block) >= HEADER_BYTES else block, digest_size=16).digest())


def fits(block: bytes) -> bool:
    """Whether Kinesis takes a record of this size."""
    return len(block) + _KEY_BYTES <= MAX_RECORD_BYTES


def calls_of(blocks: Sequence[bytes]) -> Iterator[list[int]]:
    """Indices of the blocks that go into each PutRecords call; a block that is too large for a record is in no call."""
    some: list[int] = []
    call_bytes = 0
    for index, block in enumerate(blocks):
        if not fits(block):
            continue
        record_bytes = len(block) + _KEY_BYTES
        if some and (len(some) == MAX_RECORDS or call_bytes + record_bytes > MAX_CALL_BYTES):
            yield some
            some, call_bytes = [], 0
        some.append(index)
        call_bytes += record_bytes
    if some:
        yield some


class KinesisBlockStream:
    """The stream named in the settings. boto3 repeats nothing here: the callers decide about retries."""

    def __init__(self, settings: Settings) -> None:
        self._stream = settings.stream
        self._shard_count = settings.stream_shards
        self._retention_h = settings.stream_retention_h
        self._threads = Threads("kinesis", THREADS)
        session = new_session()
        config = client_config(THREADS, attempts=1)
        self._client: KinesisClient = made(lambda: session.client("kinesis", config=config))

    async def ensure(self) -> None:
        """Create the stream if it is not there, wait until it is active, and raise its retention to the setting."""
        try:
            await self._threads.run(self._create)
        except BOTO_ERRORS as exc:
            raise failure(f"CreateStream {self._stream}", exc) from exc

    async def put(self, blocks: Sequence[bytes]) -> list[PutOutcome]:
        """Put each block as a record; one attempt, split by the service's limits.

        Returns: an outcome for each block, in order. If a whole call failed, each of its blocks has the call's code. If its
        answer was lost, each has `OutcomeUnknown`: the blocks may be there, and putting them again is harmless (rule E7).
        """
        outcomes = [PutOutcome(TOO_LARGE)] * len(blocks)
        for indices in calls_of(blocks):
            codes = await self._threads.run(self._put, [blocks[index] for index in indices])
            for index, code in zip(indices, codes, strict=True):
                outcomes[index] = PutOutcome(code)
        return outcomes

    async def shards(self) -> list[Shard]:
        """Every shard that Kinesis lists, closed ones included."""
        try:
            return await self._threads.run(self._shards)
        except BOTO_ERRORS as exc:
            raise failure(f"ListShards {self._stream}", exc) from exc

    async def iterator(self, shard_id: str, after_sequence: str | None) -> str:
        """An iterator behind `after_sequence`, or at TRIM_HORIZON for None."""
        where: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        if after_sequence is not None:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after_sequence}
        call = partial(self._client.get_shard_iterator, StreamName=self._stream, ShardId=shard_id, **where)
        try:
            return (await self._threads.run(call))["ShardIterator"]
        except BOTO_ERRORS as exc:
            raise failure(f"GetShardIterator {shard_id}", exc) from exc

    async def records(self, iterator: str, limit: int) -> RecordPage:
        """The next records.

        Raises:
            IteratorExpired: the iterator is older than five minutes.
            ServiceUnavailable: throttled (5 reads or 2 MiB a second a shard) or not reached.
        """
        try:
            return await self._threads.run(self._records, iterator, min(limit, MAX_READ_RECORDS))
        except BOTO_ERRORS as exc:
            raise _read_failure(exc) from exc

    async def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.close()
        self._client.close()

    # --- calls that run in a thread

    def _create(self) -> None:
        size: Any = {"ShardCount": self._shard_count} if self._shard_count else {"StreamModeDetails": _ON_DEMAND}
        try:
            self._client.create_stream(StreamName=self._stream, **size)
        except ClientError as exc:
            if error_code(exc) != _EXISTS:
                raise
        waiter = self._client.get_waiter("stream_exists")
        waiter.wait(StreamName=self._stream, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        found = self._client.describe_stream_summary(StreamName=self._stream)["StreamDescriptionSummary"]
        if found["RetentionPeriodHours"] < self._retention_h:
            self._client.increase_stream_retention_period(
                StreamName=self._stream, RetentionPeriodHours=self._retention_h
            )  # fmt: skip

    def _put(self, blocks: Sequence[bytes]) -> list[str | None]:
        """The error code of each block, None where it was taken."""
        keys = [hash_key(block) for block in blocks]
        records: list[Any] = [
            {"Data": block, "PartitionKey": f"{key:032x}", "ExplicitHashKey": str(key)}
            for block, key in zip(blocks, keys, strict=True)
        ]
        try:
            answer = self._client.put_records(StreamName=self._stream, Records=records)
        except BOTO_ERRORS as exc:
            code = error_code(exc) if isinstance(exc, ClientError) else type(failure("PutRecords", exc, write=True)).__name__
            return [code or "Unknown"] * len(blocks)
        return [record.get("ErrorCode") or None for record in answer["Records"]]

    def _shards(self) -> list[Shard]:
        shards: list[Shard] = []
        where: dict[str, Any] = {"StreamName": self._stream}
        while True:
            answer = self._client.list_shards(**where)
            for listed in answer.get("Shards", []):
                parents = (listed.get("ParentShardId"), listed.get("AdjacentParentShardId"))
                ending = listed["SequenceNumberRange"].get("EndingSequenceNumber")
                shards.append(Shard(listed["ShardId"], tuple(p for p in parents if p), ending))
            if not answer.get("NextToken"):
                return shards
            where = {"NextToken": answer["NextToken"]}

    def _records(self, iterator: str, limit: int) -> RecordPage:
        answer = self._client.get_records(ShardIterator=iterator, Limit=limit)
        records = [
            StreamRecord(r["SequenceNumber"], round(r["ApproximateArrivalTimestamp"].timestamp() * 1000), r["Data"])
            for r in answer["Records"]
        ]
        return RecordPage(records, answer.get("NextShardIterator") or None, answer.get("MillisBehindLatest", 0))


def _read_failure(exc: Exception) -> OutsideError:
    if isinstance(exc, ClientError) and error_code(exc) == _EXPIRED:
        return IteratorExpired("GetRecords")
    return failure("GetRecords", exc)
