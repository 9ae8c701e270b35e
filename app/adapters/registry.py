"""The registry of batches: a DynamoDB table with a sparse index of the open ones.

    batch_id (S, partition key), epoch, line_count, byte_count (N), sha256, raw_key (S), blocks (L of L of N),
    received_at (N), state (S), attempts, next_attempt_at (N), open_epoch (N, only while the batch is open)

Index `open-by-time`: partition key open_epoch, sort key received_at. Removing open_epoch takes a batch out of it.
"""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from app.adapters.aws import BOTO_ERRORS, Threads, client_config, error_code, failure, made, new_session
from app.core.formats.registry_item import BatchState, BlockPlace, RegistryItem, move
from app.errors import IllegalMove
from app.settings import Settings

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

THREADS: Final = 16
ATTEMPTS: Final = 3
"""Every write here is conditional on what it replaces, so repeating one is harmless."""
OPEN_INDEX: Final = "open-by-time"
_MET: Final = "ConditionalCheckFailedException"
_EXISTS: Final = "ResourceInUseException"


class DynamoRegistry:
    """The table named in the settings."""

    def __init__(self, settings: Settings) -> None:
        self._table = settings.registry_table
        self._epoch = settings.epoch
        self._threads = Threads("registry", THREADS)
        session = new_session()
        config = client_config(THREADS, ATTEMPTS)
        self._client: DynamoDBClient = made(lambda: session.client("dynamodb", config=config))

    async def ensure(self) -> None:
        """Create the table and its index if they are not there, and wait until they are active."""
        try:
            await self._threads.run(self._create)
        except BOTO_ERRORS as exc:
            raise failure(f"CreateTable {self._table}", exc) from exc

    async def register(self, item: RegistryItem) -> None:
        """Add a batch in state open; registering it again changes nothing, whatever became of it since.

        Raises:
            ServiceUnavailable: it may or may not be there; register it again.
        """
        await self._write(
            f"PutItem {item.batch_id}",
            partial(self._client.put_item, Item=_stored(item), ConditionExpression="attribute_not_exists(batch_id)"),
        )

    async def get(self, batch_id: str) -> RegistryItem | None:
        """The batch, by a consistent read."""
        call = partial(self._client.get_item, TableName=self._table, Key={"batch_id": {"S": batch_id}}, ConsistentRead=True)
        try:
            answer = await self._threads.run(call)
        except BOTO_ERRORS as exc:
            raise failure(f"GetItem {batch_id}", exc) from exc
        return _read(answer["Item"]) if "Item" in answer else None

    async def open_batches(self, received_before_ms: int) -> AsyncIterator[RegistryItem]:
        """Open batches received before the bound: of the epoch before, so that one left behind is seen, then of this one.

        The index follows the table within a moment: a batch just completed may still be among them.
        """
        for epoch in range(max(1, self._epoch - 1), self._epoch + 1):
            values = {":epoch": {"N": str(epoch)}, ":before": {"N": str(received_before_ms)}}
            query = partial(
                self._client.query, TableName=self._table, IndexName=OPEN_INDEX, ExpressionAttributeValues=values,
                KeyConditionExpression="open_epoch = :epoch AND received_at < :before", ScanIndexForward=True,
            )  # fmt: skip
            async for item in self._pages("Query", query):
                yield item

    async def all_batches(self) -> AsyncIterator[RegistryItem]:
        """Every batch, in no order, by consistent scan."""
        scan = partial(self._client.scan, TableName=self._table, ConsistentRead=True)
        async for item in self._pages("Scan", scan):
            yield item

    async def complete(self, batch_id: str) -> BatchState:
        """Move open -> complete; the state found before.

        Raises:
            IllegalMove: no such batch is registered.
        """
        target = move(BatchState.OPEN, BatchState.COMPLETE)
        moved = await self._write(
            f"UpdateItem {batch_id}",
            partial(
                self._client.update_item, Key={"batch_id": {"S": batch_id}},
                UpdateExpression="SET #state = :target REMOVE open_epoch", ConditionExpression="#state = :open",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues={":target": {"S": target.value}, ":open": {"S": BatchState.OPEN.value}},
            ),
        )  # fmt: skip
        return BatchState.OPEN if moved else (await self._registered(batch_id)).state

    async def record_attempt(self, batch_id: str, attempt: int, next_at_ms: int) -> None:
        """Note the audit's `attempt`-th whole replay and when the next may come; an older number changes nothing.

        Raises:
            IllegalMove: no such batch is registered.
        """
        noted = await self._write(
            f"UpdateItem {batch_id}",
            partial(
                self._client.update_item, Key={"batch_id": {"S": batch_id}},
                UpdateExpression="SET attempts = :attempt, next_attempt_at = :next",
                ConditionExpression="attribute_exists(batch_id) AND attempts < :attempt",
                ExpressionAttributeValues={":attempt": {"N": str(attempt)}, ":next": {"N": str(next_at_ms)}},
            ),
        )  # fmt: skip
        if not noted:
            await self._registered(batch_id)

    async def close(self) -> None:
        """Let go of threads and connections."""
        self._threads.close()
        self._client.close()

    async def _registered(self, batch_id: str) -> RegistryItem:
        item = await self.get(batch_id)
        if item is None:
            raise IllegalMove(f"batch {batch_id} is not registered")
        return item

    async def _write(self, what: str, call: "partial[Any]") -> bool:
        """Whether the write's condition held."""
        try:
            await self._threads.run(call, TableName=self._table)
        except BOTO_ERRORS as exc:
            if isinstance(exc, ClientError) and error_code(exc) == _MET:
                return False
            raise failure(what, exc) from exc
        return True

    async def _pages(self, what: str, call: "partial[Any]") -> AsyncIterator[RegistryItem]:
        """Every item of a paginated read; an empty page is not the end."""
        start: dict[str, Any] = {}
        while True:
            try:
                answer: Mapping[str, Any] = await self._threads.run(call, **start)
            except BOTO_ERRORS as exc:
                raise failure(f"{what} {self._table}", exc) from exc
            for stored in answer.get("Items", []):
                yield _read(stored)
            if not answer.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _create(self) -> None:
        try:
            self._client.create_table(
                TableName=self._table,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[
                    {"AttributeName": "batch_id", "AttributeType": "S"},
                    {"AttributeName": "open_epoch", "AttributeType": "N"},
                    {"AttributeName": "received_at", "AttributeType": "N"},
                ],
                KeySchema=[{"AttributeName": "batch_id", "KeyType": "HASH"}],
                GlobalSecondaryIndexes=[{
                    "IndexName": OPEN_INDEX,
                    "KeySchema": [
                        {"AttributeName": "open_epoch", "KeyType": "HASH"},
                        {"AttributeName": "received_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                }],
            )  # fmt: skip
        except ClientError as exc:
            if error_code(exc) != _EXISTS:
                raise
        self._client.get_waiter("table_exists").wait(TableName=self._table, WaiterConfig={"Delay": 1, "MaxAttempts": 120})


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def _stored(item: RegistryItem) -> dict[str, Any]:
    """The item's attributes as DynamoDB types them."""
    places = ((b.partition, b.first_line, b.lines, b.byte_start, b.byte_len) for b in item.blocks)
    stored: dict[str, Any] = {
        "batch_id": {"S": item.batch_id},
        "epoch": _number(item.epoch),
        "line_count": _number(item.line_count),
        "byte_count": _number(item.byte_count),
        "sha256": {"S": item.sha256},
        "raw_key": {"S": item.raw_key},
        "blocks": {"L": [{"L": [_number(n) for n in place]} for place in places]},
        "received_at": _number(item.received_at_ms),
        "state": {"S": item.state.value},
        "attempts": _number(item.attempts),
        "next_attempt_at": _number(item.next_attempt_at_ms),
    }
    if item.state is BatchState.OPEN:
        stored["open_epoch"] = _number(item.epoch)
    return stored


def _read(stored: Mapping[str, Any]) -> RegistryItem:
    """The item whose attributes DynamoDB gave."""

    def number(name: str) -> int:
        return int(stored[name]["N"])

    return RegistryItem(
        batch_id=stored["batch_id"]["S"],
        epoch=number("epoch"),
        line_count=number("line_count"),
        byte_count=number("byte_count"),
        sha256=stored["sha256"]["S"],
        raw_key=stored["raw_key"]["S"],
        blocks=[BlockPlace(*(int(n["N"]) for n in place["L"])) for place in stored["blocks"]["L"]],
        received_at_ms=number("received_at"),
        state=BatchState(stored["state"]["S"]),
        attempts=number("attempts"),
        next_attempt_at_ms=number("next_attempt_at"),
    )
