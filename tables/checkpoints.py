"""Table `checkpoints`: how far each shard has been read, as the owner of its partition knows it (rule T1).

Keys are `<partition>/<shard>`, because a finished shard is announced to every partition, and a store keeps all partitions of
a worker in one dictionary. Values are bytes that are replaced and never changed in place: Faust sends only values that are
set.
"""

from collections.abc import Collection
from typing import Any

from faust.stores.memory import Store
from faust.tables.table import Table

from app.core.formats.checkpoint import Checkpoint, decode, encode, further
from app.topics import Topics


class CheckpointTable(Table[bytes, bytes]):
    """Checkpoints in memory. The changelog is a compacted topic with a few messages a shard; each start reads it anew."""

    _last_change: Any = None

    def _new_store(self) -> Store[bytes, bytes]:
        return Store(
            "memory://checkpoints", self.app, self, table_name=self.name, key_type=bytes, value_type=bytes,
            key_serializer="raw", value_serializer="raw", options=self.options,
        )  # fmt: skip

    def send_changelog(self, partition: int | None, key: Any, value: Any, *serializers: Any, **more: Any) -> Any:
        """Send a change; `settle` awaits the last one."""
        self._last_change = super().send_changelog(partition, key, value, *serializers, **more)
        return self._last_change

    async def settle(self) -> None:
        """Wait until the broker has the last change. Its source message may be acknowledged only then."""
        if self._last_change is not None:
            await self._last_change

    def advance(self, partition: int, checkpoint: Checkpoint) -> Checkpoint:
        """Take a checkpoint that came on `partition`. Faust allows it only while the agent works on the message.

        Returns: the shard's furthest checkpoint.
        """
        key = b"%d/%s" % (partition, checkpoint.shard.encode())
        stored = self.get(key)
        known = None if stored is None else _checkpoint(stored)
        result = further(known, checkpoint)
        self[key] = encode(result)
        return result

    def of(self, partitions: Collection[int]) -> list[Checkpoint]:
        """Every checkpoint that came on one of these partitions."""
        wanted = {b"%d" % partition for partition in partitions}
        return [_checkpoint(value) for key, value in self.items() if key.partition(b"/")[0] in wanted]


def _checkpoint(value: bytes) -> Checkpoint:
    message = decode(value)
    if not isinstance(message, Checkpoint):
        raise TypeError(f"table checkpoints holds {message!r}")
    return message


def checkpoint_table(app: Any, topics: Topics) -> CheckpointTable:
    """The table of `app`, with the topic that `ensure_topics` makes as its changelog."""
    changelog = app.topic(
        topics.checkpoints_table.name, partitions=topics.checkpoints_table.partitions, internal=True,
        key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw",
    )  # fmt: skip
    table = CheckpointTable(
        app, name="checkpoints", changelog_topic=changelog, key_type=bytes, value_type=bytes,
        partitions=topics.checkpoints.partitions, recovery_buffer_size=16,
    )  # fmt: skip
    app.tables.add(table)
    return table
