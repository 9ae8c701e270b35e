"""The registry of batches: a DynamoDB table with a sparse index of the open ones.

Its items are those of `app.core.formats.registry_item`, with partition key batch_id.

Index `open-by-time`: partition key open_epoch, sort key received_at. Removing open_epoch takes a batch out of it.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from app.adapters.aws import BOTO_ERRORS, Threads, client_config, error_code, failure, made, new_session
from app.core.formats.batch import batch_time_ms
from app.core.formats.registry_item import (
    EXPIRES_AT,
    Attempt,
    BatchState,
    ItemReader,
    RegistryItem,
    decode_item,
    encode_history,
    encode_item,
    move,
)
from app.errors import ConfigurationError, IllegalMove
from app.settings import DAY_S, Settings

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

THREADS: Final = 16
ATTEMPTS: Final = 3
"""Every write here is conditional on what it replaces, so repeating one is harmless."""
OPEN_INDEX: Final = "open-by-time"
_MET: Final = "ConditionalCheckFailedException"
_EXISTS: Final = "ResourceInUseException"
_BACKUPS_NOT_YET: Final = "ContinuousBackupsUnavailableException"
RECOVERY_TRIES: Final = 30
RECOVERY_PAUSE_S: Final = 2
"""For about a minute a new table takes no point-in-time recovery. Source: DynamoDB API, UpdateContinuousBackups."""


class DynamoRegistry:
    """The table named in the settings."""

    def __init__(self, settings: Settings) -> None:
        self._table = settings.registry_table
        self._is_protected = settings.registry_protected
        self._epoch = settings.epoch
        self._kept_days = settings.retention.registry_days()
        self._threads = Threads("registry", THREADS)
        session = new_session()
        config = client_config(THREADS, ATTEMPTS)
        self._client: DynamoDBClient = made(lambda: session.client("dynamodb", config=config))

    async def ensure(self) -> None:
        """Create the table and its index if they are not there, wait until they are active, and protect them.

        Protection is only ever turned on: against deletion of the table, and against that of items (recovery to any
        second of the last 35 days). Expiry of items follows the settings: complete batches alone have a time of expiry.
        """
        try:
            await self._threads.run(self._create)
        except BOTO_ERRORS as exc:
            raise failure(f"CreateTable {self._table}", exc) from exc

    async def register(self, item: RegistryItem) -> None:
        """Add a batch in state open; registering it again changes nothing, whatever its state is by then.

        Raises:
            ServiceUnavailable: it may or may not be there; register it again.
        """
        await self._write(
            f"PutItem {item.batch_id}",
            partial(self._client.put_item, Item=encode_item(item), ConditionExpression="attribute_not_exists(batch_id)"),
        )

    async def restore(self, item: RegistryItem) -> None:
        """Put a batch in the place of whatever its id has.

        Raises:
            ServiceUnavailable: it may or may not be there; restore it again.
        """
        await self._write(f"PutItem {item.batch_id}", partial(self._client.put_item, Item=encode_item(item)))

    async def get(self, batch_id: str) -> RegistryItem | None:
        """The batch, by a consistent read.

        Raises:
            NewerFormat: a newer version registered it.
            FormatInvalid: the table's item is no batch.
        """
        call = partial(self._client.get_item, TableName=self._table, Key={"batch_id": {"S": batch_id}}, ConsistentRead=True)
        try:
            answer = await self._threads.run(call)
        except BOTO_ERRORS as exc:
            raise failure(f"GetItem {batch_id}", exc) from exc
        return decode_item(answer["Item"]) if "Item" in answer else None

    async def open_batches(self, received_before_ms: int) -> AsyncIterator[RegistryItem]:
        """Open batches received before the bound.

        Batches of the epoch before come first, so that a batch left behind is seen.

        The index follows the table within a moment: a batch just completed may still be among them.

        Raises:
            NewerFormat: a newer version registered one of them; raised behind those that can be read.
            RegistryItemsInvalid: some of them are no batch; likewise.
        """
        queries = []
        for epoch in range(max(1, self._epoch - 1), self._epoch + 1):
            values = {":epoch": {"N": str(epoch)}, ":before": {"N": str(received_before_ms)}}
            queries.append(partial(
                self._client.query, TableName=self._table, IndexName=OPEN_INDEX, ExpressionAttributeValues=values,
                KeyConditionExpression="open_epoch = :epoch AND received_at < :before", ScanIndexForward=True,
            ))  # fmt: skip
        async for item in self._pages("Query", *queries):
            yield item

    async def all_batches(self) -> AsyncIterator[RegistryItem]:
        """Every batch, in no order, by consistent scan.

        Raises:
            NewerFormat: a newer version registered one of them; raised behind those that can be read.
            RegistryItemsInvalid: some of them are no batch; likewise.
        """
        scan = partial(self._client.scan, TableName=self._table, ConsistentRead=True)
        async for item in self._pages("Scan", scan):
            yield item

    async def complete(self, batch_id: str, at_ms: int = 0) -> BatchState:
        """Move open -> complete at a moment; the state found before.

        Raises:
            IllegalMove: no such batch is registered.
        """
        target = move(BatchState.OPEN, BatchState.COMPLETE)
        more: dict[str, int] = {"completed_at": at_ms} if at_ms else {}
        if self._kept_days:
            more[EXPIRES_AT] = batch_time_ms(batch_id) // 1000 + self._kept_days * DAY_S
        sets = "".join(f", #{name} = :{name}" for name in more)
        moved = await self._write(
            f"UpdateItem {batch_id}",
            partial(
                self._client.update_item, Key={"batch_id": {"S": batch_id}},
                UpdateExpression=f"SET #state = :target{sets} REMOVE open_epoch",
                ConditionExpression="#state = :open",
                ExpressionAttributeNames={"#state": "state"} | {f"#{name}": name for name in more},
                ExpressionAttributeValues={":target": {"S": target.value}, ":open": {"S": BatchState.OPEN.value}}
                | {f":{name}": {"N": str(value)} for name, value in more.items()},
            ),
        )  # fmt: skip
        return BatchState.OPEN if moved else (await self._registered(batch_id)).state

    async def record_attempt(self, batch_id: str, history: Sequence[Attempt], next_at_ms: int) -> None:
        """Note the last attempt of `history` and when the next may come; an older number changes nothing.

        Raises:
            IllegalMove: no such batch is registered.
        """
        noted = await self._write(
            f"UpdateItem {batch_id}",
            partial(
                self._client.update_item, Key={"batch_id": {"S": batch_id}},
                UpdateExpression="SET attempts = :attempt, next_attempt_at = :next, #history = :history",
                ConditionExpression="attribute_exists(batch_id) AND attempts < :attempt",
                ExpressionAttributeNames={"#history": "history"},
                ExpressionAttributeValues={
                    ":attempt": {"N": str(history[-1].number)}, ":next": {"N": str(next_at_ms)},
                    ":history": encode_history(history),
                },
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

    async def _pages(self, what: str, *calls: "partial[Any]") -> AsyncIterator[RegistryItem]:
        """Every item of paginated reads; an empty page is not the end.

        An error about unreadable items is raised after all other items.
        """
        reader = ItemReader()
        for call in calls:
            start: dict[str, Any] | None = {}
            while start is not None:
                try:
                    answer: Mapping[str, Any] = await self._threads.run(call, **start)
                except BOTO_ERRORS as exc:
                    raise failure(f"{what} {self._table}", exc) from exc
                for stored in answer.get("Items", []):
                    if (item := reader.read(stored)) is not None:
                        yield item
                last = answer.get("LastEvaluatedKey")
                start = {"ExclusiveStartKey": last} if last else None
        reader.finish()

    def _create(self) -> None:
        try:
            self._client.create_table(
                TableName=self._table,
                BillingMode="PAY_PER_REQUEST",
                DeletionProtectionEnabled=self._is_protected,
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
        if self._is_protected:
            self._protect()
        if self._kept_days:
            self._let_expire()

    def _let_expire(self) -> None:
        found = self._client.describe_time_to_live(TableName=self._table)["TimeToLiveDescription"]
        if found.get("TimeToLiveStatus") not in {"ENABLED", "ENABLING"}:
            wanted: Any = {"Enabled": True, "AttributeName": EXPIRES_AT}
            self._client.update_time_to_live(TableName=self._table, TimeToLiveSpecification=wanted)

    def _protect(self) -> None:
        table = self._client.describe_table(TableName=self._table)["Table"]
        if not table.get("DeletionProtectionEnabled"):
            self._client.update_table(TableName=self._table, DeletionProtectionEnabled=True)
            self._client.get_waiter("table_exists").wait(
                TableName=self._table, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
            )
        for _ in range(RECOVERY_TRIES):
            backups = self._client.describe_continuous_backups(TableName=self._table)["ContinuousBackupsDescription"]
            if backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED":
                return
            try:
                self._client.update_continuous_backups(
                    TableName=self._table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
                )
            except ClientError as exc:
                if error_code(exc) != _BACKUPS_NOT_YET:
                    raise
                time.sleep(RECOVERY_PAUSE_S)  # of a thread of this adapter
        raise ConfigurationError(
            f"point-in-time recovery of table {self._table} cannot be turned on yet: run `instream init`"
        )
