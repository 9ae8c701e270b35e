"""What an app hands to its agents: the adapters of this process, each built when first asked for."""

from functools import cached_property

from app.adapters.ports import BlockStream, ObjectStore, Registry
from app.clock import Clock, SystemClock
from app.settings import Settings


class Ports:
    """The real adapters of `settings`; building one connects to nothing.

    A test hands its own in by assignment, before the app starts: `app.ports.objects = MemoryObjectStore()`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def clock(self) -> Clock:
        """The machine's clock."""
        return SystemClock()

    @cached_property
    def objects(self) -> ObjectStore:
        """The S3 bucket."""
        from app.adapters.s3 import S3ObjectStore  # noqa: PLC0415  boto3 only where a role needs it

        return S3ObjectStore(self.settings)

    @cached_property
    def registry(self) -> Registry:
        """The DynamoDB table of batches."""
        from app.adapters.registry import DynamoRegistry  # noqa: PLC0415

        return DynamoRegistry(self.settings)

    @cached_property
    def blocks(self) -> BlockStream:
        """The Kinesis stream."""
        from app.adapters.kinesis import KinesisBlockStream  # noqa: PLC0415

        return KinesisBlockStream(self.settings)
