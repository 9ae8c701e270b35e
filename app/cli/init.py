"""`instream init`: make what the pipeline stands on, where it is missing."""

import asyncio
from typing import TYPE_CHECKING

from app.cli.show import JsonOption, print_json

if TYPE_CHECKING:
    from app.settings import Settings


async def make_all(settings: "Settings") -> list[str]:
    """Make bucket, stream, registry table, topics and schema; what exists is left as it is. Returns: their names.

    Raises:
        WrongPartitionCount: a topic exists with another number of partitions.
        ServiceUnavailable: one of the services does not answer; what was made stays.
    """
    from app.adapters.kafka import ensure_topics  # noqa: PLC0415 - commands load what they need
    from app.adapters.kinesis import KinesisBlockStream  # noqa: PLC0415
    from app.adapters.registry import DynamoRegistry  # noqa: PLC0415
    from app.adapters.s3 import S3ObjectStore  # noqa: PLC0415
    from app.adapters.warehouse import create_schema  # noqa: PLC0415
    from app.topics import topics_of  # noqa: PLC0415

    for adapter in (S3ObjectStore(settings), DynamoRegistry(settings), KinesisBlockStream(settings)):
        await adapter.ensure()
        await adapter.close()
    await ensure_topics(settings)
    await create_schema(settings.warehouse_url)
    topics = [f"topic {topic.name}" for topic in topics_of(settings)]
    return [
        f"bucket {settings.bucket}", f"stream {settings.stream}", f"table {settings.registry_table}", *topics,
        "schema analytics",
    ]  # fmt: skip


def init(as_json: JsonOption = False) -> None:
    """Make bucket, stream, registry table, topics and warehouse schema where they are missing; safe to run again.

    For a new installation; `instream up` does it for the local stack by itself.
    """
    from app.settings import read_settings  # noqa: PLC0415

    present = asyncio.run(make_all(read_settings()))
    if as_json:
        print_json({"present": present})
    else:
        print("\n".join(present))
