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
from app.errors import FormatInvalid
from app.shell.foreign import note_foreign
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
        known = self._checkpoint(key, self.get(key))
        result = further(known, checkpoint)
        self[key] = encode(result)
        return result

    def of(self, partitions: Collection[int]) -> list[Checkpoint]:
        """Every checkpoint that came on one of these partitions."""
        wanted = {b"%d" % partition for partition in partitions}
        found = [self._checkpoint(key, value) for key, value in self.items() if key and key.partition(b"/")[0] in wanted]
        return [checkpoint for checkpoint in found if checkpoint is not None]

    def _checkpoint(self, key: bytes, value: bytes | None) -> Checkpoint | None:
        """The checkpoint in a value; None if there is none, or another program wrote it into the changelog.

        Without it the shard is read from its beginning once more. That does no harm (rule E7).
        """
        if value is None:
            return None
        try:
            message = decode(value)
            if isinstance(message, Checkpoint) and key.partition(b"/")[2] == message.shard.encode():
                return message
            reason = f"the value of {key!r} is {message!r}"
        except FormatInvalid as exc:
            reason = str(exc)
        note_foreign(self.changelog_topic_name, int(key.partition(b"/")[0]), -1, f"{key!r}: {reason}")
        return None

    @property
    def changelog_topic_name(self) -> str:
        """The topic behind the table."""
        return str(self.changelog_topic.get_topic_name())


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
