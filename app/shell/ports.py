"""The ports of a role: the process around it, and the adapters that its app hands out, each built at its first use."""

import time
from functools import cached_property
from typing import Protocol

from app.adapters.ports import BlockStream, ObjectStore, Registry
from app.clock import Clock, SystemClock
from app.crash.points import CrashPoints
from app.crash.proxies import around
from app.settings import Settings
from app.shell.outside_calls import OutsideCalls, noted


class Crashes(Protocol):
    """A process that can end itself."""

    async def crash(self, reason: BaseException) -> None:
        """End the process."""


class RoleProcess(Crashes, Protocol):
    """The process of one role: `app.shell.faust_app.InstreamApp`, or a simulation."""

    @property
    def settings(self) -> Settings:
        """The process's settings."""


class ClockPorts(Protocol):
    """The clock of a process."""

    @property
    def clock(self) -> Clock:
        """The process's clock."""


class Ports:
    """The real adapters of `settings`; building one connects to nothing.

    A test assigns its own adapters before the app starts: `app.ports.objects = MemoryObjectStore()`.
    """

    def __init__(self, settings: Settings, points: CrashPoints | None = None) -> None:
        self.settings = settings
        self.points = points
        """Crash points around every call, in tests; in production None."""
        self.calls = OutsideCalls(time.monotonic)
        """The calls of this process that are under way or failed, for /ready."""

    @cached_property
    def clock(self) -> Clock:
        """The machine's clock."""
        return SystemClock()

    @cached_property
    def objects(self) -> ObjectStore:
        """The S3 bucket."""
        from app.adapters.s3 import S3ObjectStore  # noqa: PLC0415  boto3 only where a role needs it

        return noted(self.calls, "s3", around(self.points, "s3", S3ObjectStore(self.settings)))

    @cached_property
    def registry(self) -> Registry:
        """The DynamoDB table of batches."""
        from app.adapters.registry import DynamoRegistry  # noqa: PLC0415

        return noted(self.calls, "registry", around(self.points, "registry", DynamoRegistry(self.settings)))

    @cached_property
    def blocks(self) -> BlockStream:
        """The Kinesis stream."""
        from app.adapters.kinesis import KinesisBlockStream  # noqa: PLC0415

        return noted(self.calls, "kinesis", around(self.points, "kinesis", KinesisBlockStream(self.settings)))
