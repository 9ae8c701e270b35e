"""The ETL's app and table over logs in memory, for tests of assignment, recovery and a partition's work."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from app.apps import new_app
from app.settings import Settings
from app.testing.memory import MemoryLogs, MemoryObjectStore
from tables.partition_state import PartitionState, RowsStore

ROWS, BLOCKS = "rows-e1", "blocks-e1"
KEY = b"k" * 8


class Worker:
    """The ETL's app and table without Faust's services around them; crashes are noted."""

    def __init__(self, home: Path, logs: MemoryLogs) -> None:
        self.logs = logs
        self.crashes: list[BaseException] = []
        self.app = new_app("etl", Settings(home=home, partitions=2, replication_factor=1, min_insync_replicas=1))
        self.app.ports.objects = MemoryObjectStore()
        self.app.logs = self._logs  # type: ignore[method-assign]
        self.app.crash = self._crash  # type: ignore[method-assign]
        self.app._assignor = SimpleNamespace(assigned_standbys=set)  # type: ignore[assignment]
        self.table = PartitionState(self.app, self.app.source_topic(ROWS, 2))
        self.store: RowsStore = self.table._rows_store
        self.store.path.mkdir(parents=True, exist_ok=True)
        self._before: set[TP] = set()

    async def _logs(self) -> Any:
        return self.logs

    async def _crash(self, exc: BaseException) -> None:
        self.crashes.append(exc)

    async def assign(self, *partitions: int) -> None:
        assigned = {TP(topic, p) for p in partitions for topic in (ROWS, BLOCKS)}
        before, self._before = self._before, assigned
        await self.store.on_rebalance(assigned, before - assigned, assigned - before, 1)

    async def recover(self, partition: int = 0) -> None:
        """Read from behind the persisted offset, or from the log's head, as Faust does."""
        persisted = self.table.persisted_offset(TP(ROWS, partition))
        first, end = await self.logs.bounds(ROWS, partition)
        start = first if persisted is None else max(persisted + 1, first)
        self.apply(*((ROWS, partition, offset) for offset in range(start, end)))
        for task in list(self.app._futures):
            await task

    def apply(self, *places: tuple[str, int, int]) -> None:
        self.table.apply_changelog_batch([self.event(*place) for place in places])

    def event(self, topic: str, partition: int, offset: int) -> Any:
        value = self.logs.messages[topic, partition][offset]
        return SimpleNamespace(message=SimpleNamespace(topic=topic, partition=partition, offset=offset, value=value))

    def pending(self) -> bytes | None:
        return self.table.reader(0).get("pending", [KEY])[0]
