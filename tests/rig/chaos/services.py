"""Faults of the stand-ins: ordered over HTTP, shards split and merged, tables locked."""

import asyncio
import random
from typing import Any, Final

import aiohttp
import boto3
import msgspec
import psycopg
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.adapters.warehouse import connect
from app.errors import LocalStackError, ServiceUnavailable
from app.local.services.aws_faults import Rates
from app.local.stack.stack_file import Stack

MOST_SHARDS: Final = 5
TRIES: Final = 40
PAUSE_S: Final = 0.25


class Services:
    """The stand-ins of one stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        self._kinesis: Any = boto3.session.Session().client(
            "kinesis", endpoint_url=stack.aws_endpoint, config=Config(retries={"mode": "standard", "total_max_attempts": 10})
        )

        self._dynamodb: Any = boto3.session.Session().client(
            "dynamodb",
            endpoint_url=stack.aws_endpoint,
            config=Config(retries={"mode": "standard", "total_max_attempts": 10}),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
        self._kinesis.close()
        self._dynamodb.close()

    # --- AWS

    async def fail_aws(self, rates: Rates) -> None:
        """Fail calls by `rates` from now on."""
        await self._ask("POST", self._stack.controls["aws"], msgspec.json.encode(rates))

    async def aws_struck(self) -> dict[str, int]:
        """Kind -> number of strikes."""
        found: dict[str, int] = await self._ask("GET", self._stack.controls["aws"])
        return found

    async def split(self, chance: int) -> str:
        """Split an open shard in the middle. Returns: the shard; empty if there are enough shards."""
        shards = await self._open_shards()
        if len(shards) >= MOST_SHARDS:
            return ""
        shard = random.Random(chance).choice(shards)
        low, high = _range(shard)
        middle = str((low + high) // 2)
        await self._call("split_shard", ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
        return str(shard["ShardId"])

    async def merge(self, chance: int) -> str:
        """Merge two neighbours. Returns: the shards; empty if there is only one."""
        shards = sorted(await self._open_shards(), key=_range)
        if len(shards) < 2:
            return ""
        at = random.Random(chance).randrange(len(shards) - 1)
        one, other = shards[at]["ShardId"], shards[at + 1]["ShardId"]
        await self._call("merge_shards", ShardToMerge=one, AdjacentShardToMerge=other)
        return f"{one} and {other}"

    async def _open_shards(self) -> list[Any]:
        listed = await self._call("list_shards")
        return [shard for shard in listed["Shards"] if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]

    async def put_record(self, data: bytes) -> None:
        """Put a record of another program into the stream."""
        await self._call("put_record", Data=data, PartitionKey="nobody")

    async def _call(self, name: str, **arguments: Any) -> Any:
        return await _ask_aws(getattr(self._kinesis, name), StreamName=self._stack.stream, **arguments)

    async def put_item(self, item: dict[str, Any]) -> None:
        """Put an item into the registry, whatever it is."""
        await _ask_aws(self._dynamodb.put_item, TableName=self._stack.registry_table, Item=item)

    async def delete_item(self, batch_id: str) -> None:
        """Delete an item of the registry."""
        key = {"batch_id": {"S": batch_id}}
        await _ask_aws(self._dynamodb.delete_item, TableName=self._stack.registry_table, Key=key)

    # --- warehouse

    async def fail_warehouse(self, kind: str, times: int) -> None:
        """Make the warehouse fail `times` times, at the next statements that match; this replaces earlier orders."""
        order = {"kind": kind, "times": times, "instead": True}
        await self._ask("POST", self._stack.controls["warehouse"], msgspec.json.encode(order))

    async def mend_warehouse(self) -> None:
        """Remove failures that are still to come, and make unreadable files readable."""
        await self._ask("DELETE", self._stack.controls["warehouse"])

    async def warehouse_struck(self) -> dict[str, int]:
        """Kind -> number of times."""
        found: dict[str, int] = await self._ask("GET", self._stack.controls["warehouse"] + "/struck")
        return found

    async def unreadable(self) -> list[str]:
        """URLs of the files that were made unreadable."""
        found: list[str] = await self._ask("GET", self._stack.controls["warehouse"] + "/unreadable")
        return found

    async def lock_log(self, seconds: float) -> None:
        """Hold the lock on delivery_log that a VACUUM takes, which every load waits for.

        Raises:
            ServiceUnavailable: the warehouse does not answer (a fault may have been waiting for this connection).
        """
        connection = await connect(self._stack.warehouse_url)
        try:
            await connection.execute("LOCK TABLE analytics.delivery_log IN SHARE UPDATE EXCLUSIVE MODE")
            await asyncio.sleep(seconds)
        except psycopg.Error as exc:
            raise ServiceUnavailable(f"warehouse: {exc}") from exc
        finally:
            await connection.close()

    async def _ask(self, method: str, url: str, body: bytes | None = None) -> Any:
        refusal = ""
        for _ in range(TRIES):
            try:
                async with self._session.request(method, url, data=body) as answer:
                    content = await answer.read()
                    if answer.status == 200:
                        return msgspec.json.decode(content)
                    raise LocalStackError(f"{url}: {answer.status} {content.decode(errors='replace')}")
            except (aiohttp.ClientError, TimeoutError) as exc:
                refusal = repr(exc)
            await asyncio.sleep(PAUSE_S)
        raise LocalStackError(f"{url} does not answer: {refusal}")


async def _ask_aws(call: Any, **arguments: Any) -> Any:
    try:
        return await asyncio.to_thread(call, **arguments)
    except (ClientError, BotoCoreError) as exc:
        raise ServiceUnavailable(f"{call.__name__}: {exc}") from exc


def _range(shard: Any) -> tuple[int, int]:
    keys = shard["HashKeyRange"]
    return int(keys["StartingHashKey"]), int(keys["EndingHashKey"])
