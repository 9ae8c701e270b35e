"""The ports through which the shell uses S3, the registry, Kinesis and Kafka's logs.

Each has a real adapter and an in-memory twin.

All calls are coroutines, so that one scheduler can drive the real and the simulated world alike. Idempotence is a result,
not an exception; exceptions are those of `app.errors`.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from enum import Enum
from typing import Protocol

import msgspec

from app.core.formats.registry_item import Attempt, BatchState, RegistryItem


class PutResult(Enum):
    """The result of a conditional PUT."""

    CREATED = "created"
    EXISTS = "exists"


class ObjectInfo(msgspec.Struct, frozen=True):
    """An object as a listing shows it."""

    key: str
    size: int
    last_modified_ms: int


class ObjectStore(Protocol):
    """One S3 bucket."""

    @property
    def bucket(self) -> str:
        """The bucket's name, for URLs in manifests."""

    async def put(self, key: str, body: bytes) -> None:
        """Store `body`, replacing what is there. Raises ServiceUnavailable, OutcomeUnknown."""

    async def put_if_absent(self, key: str, body: bytes) -> PutResult:
        """Store `body` unless the key exists (If-None-Match: *); 409 is retried inside.

        EXISTS may be the caller's own earlier attempt whose answer was lost: read it and compare (rule S4).
        Raises ServiceUnavailable, OutcomeUnknown.
        """

    async def get(self, key: str) -> bytes:
        """The object's bytes. Raises ObjectMissing, ServiceUnavailable."""

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes of the object from byte `start` on; fewer, or none, where it ends before.

        Raises ObjectMissing, ServiceUnavailable.
        """

    async def head(self, key: str) -> ObjectInfo | None:
        """The object's size and age, or None where there is none."""

    async def copy(self, source: str, target: str) -> None:
        """Server-side copy inside the bucket, replacing the target. Raises ObjectMissing, ServiceUnavailable."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects; a key that does not exist is no error."""

    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with `prefix` and sorts behind `start_after`, in key order."""

    @property
    def clock_skew_ms(self) -> int | None:
        """Our clock minus the service's Date header at the last answer; None before the first."""


class Registry(Protocol):
    """The DynamoDB table of batches."""

    async def register(self, item: RegistryItem) -> None:
        """Add a batch in state open; registering the same batch again changes nothing."""

    async def restore(self, item: RegistryItem) -> None:
        """Put a batch in the place of whatever its id has: for a repair, because what is there cannot be trusted."""

    async def get(self, batch_id: str) -> RegistryItem | None:
        """The batch, by a consistent read."""

    def open_batches(self, received_before_ms: int) -> AsyncIterator[RegistryItem]:
        """Batches in state open whose received_at_ms is below the bound, oldest first (the sparse index)."""

    def all_batches(self) -> AsyncIterator[RegistryItem]:
        """Every batch, in no order, by consistent scan."""

    async def complete(self, batch_id: str, at_ms: int = 0) -> BatchState:
        """Move open -> complete at a moment; the state found before. Completing a complete batch changes nothing."""

    async def record_attempt(self, batch_id: str, history: Sequence[Attempt], next_at_ms: int) -> None:
        """Note that the last attempt of `history` was taken whole by Kinesis, and when the next may come.

        If the registry knows that attempt already, or a later one, nothing changes.
        """


class PutOutcome(msgspec.Struct, frozen=True):
    """Kinesis's answer for one record of a put."""

    error: str | None = None
    """None where it was taken; else the service's error code, e.g. ProvisionedThroughputExceededException."""


class StreamRecord(msgspec.Struct, frozen=True):
    """One record read from a shard."""

    sequence: str
    arrival_ms: int
    """ApproximateArrivalTimestamp, milliseconds since the epoch."""
    data: bytes


class Shard(msgspec.Struct, frozen=True):
    """A shard as Kinesis lists it."""

    shard_id: str
    parents: tuple[str, ...]
    ending_sequence: str | None
    """Set where the shard is closed."""


class RecordPage(msgspec.Struct, frozen=True):
    """One answer of GetRecords."""

    records: list[StreamRecord]
    next_iterator: str | None
    """None where the shard is closed and read to its end."""
    behind_ms: int
    """MillisBehindLatest."""


class BlockStream(Protocol):
    """One Kinesis stream."""

    async def put(self, blocks: Sequence[bytes]) -> list[PutOutcome]:
        """Put each block as a record, spread over shards by ExplicitHashKey; one attempt, split by the service's limits.

        Returns: an outcome for each block, in order; failures of a whole call are outcomes too, never exceptions.
        """

    async def shards(self) -> list[Shard]:
        """Every shard that Kinesis lists, closed ones included."""

    async def iterator(self, shard_id: str, after_sequence: str | None) -> str:
        """An iterator behind `after_sequence`, or at TRIM_HORIZON for None. Raises ServiceUnavailable."""

    async def records(self, iterator: str, limit: int) -> RecordPage:
        """The next records. Raises IteratorExpired, ServiceUnavailable (throttling included)."""


class LoggedMessage(msgspec.Struct, frozen=True):
    """A message of a log."""

    offset: int
    timestamp_ms: int
    """The broker's append time, milliseconds since the epoch."""
    value: bytes
    """b"" for a null."""
    key: bytes | None = None


class LogScan(Protocol):
    """Kafka's logs, read from one offset to another. Every call raises ServiceUnavailable if the brokers do not answer."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The earliest offset that a partition still has, and one more than its last."""

    def scan(self, topic: str, partition: int, first: int, end: int) -> AsyncIterator[LoggedMessage]:
        """The messages with first <= offset < end that the log has, in order. Several scans may go on side by side."""


class LogSearch(LogScan, Protocol):
    """What looks for single messages in Kafka's logs; only commands and the audit do."""

    async def end_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> one more than the last offset (the highwater)."""

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset that the log has and that was appended at `time_ms` or later; the log's end if none was."""

    async def message_at(self, topic: str, partition: int, offset: int) -> bytes | None:
        """The value of the message at `offset`; None where the log does not have it (any more, or yet)."""


class Logs(Protocol):
    """Kafka's logs, asked without a consumer group. Every call raises ServiceUnavailable while the brokers do not answer."""

    async def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> the earliest offset that the log still has; its end where it is empty."""

    async def end_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> one more than the last offset (the highwater)."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The earliest offset that a partition still has, and one more than its last."""

    async def message_at(self, topic: str, partition: int, offset: int) -> bytes | None:
        """The value of the message at `offset`; None where the log does not have it (any more, or yet)."""

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        """(topic, partition) -> the offset that a consumer group reads next."""
