"""Tables `articles` and `campaigns`: the messages of two compacted topics, whole in every ETL worker (rule J5).

Any program may feed the topics. A message's key is the id (UTF-8), its value a JSON object, e.g. `{"title": ...,
"author_id": ..., "section": ...}` or `{"name": ..., "network": ...}`; an empty value deletes. Faust recovers the tables
before work starts and keeps them up to date. They never decide whether a row exists: an unreadable message is passed over,
and the id keeps the attributes that it had.

Versions (rule E10): a message names none. Anybody may write one, each attribute stands for itself, and one that this reader
does not know is not used.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from faust.stores.memory import Store
from faust.tables.globaltable import GlobalTable
from faust.types import TP

from app.core.formats.decoding import read, reading
from app.errors import FormatInvalid
from app.shell.faust_app import InstreamApp
from app.shell.foreign import note_foreign
from app.topics import TopicSpec

Attributes = Mapping[str, str]
"""The attributes of one id."""
_decoder = msgspec.json.Decoder(dict[str, str | int | float | bool | None])


def read_attributes(value: bytes) -> dict[str, str]:
    """The attributes in a message's value. An attribute that is null is absent; other scalars become text.

    Raises:
        FormatInvalid: the value is no JSON object of scalars.
    """
    return {name: str(found) for name, found in read(_decoder, value, "dimension").items() if found is not None}


def read_id(key: bytes | None) -> str:
    """The id in a message's key.

    Raises:
        FormatInvalid: there is no key, or it is not UTF-8.
    """
    if key is None:
        raise FormatInvalid("dimension without a key")
    with reading("key of a dimension"):
        return key.decode()


class DimensionStore(Store[str, Attributes]):
    """The messages of one topic in a dictionary."""

    def apply_changelog_batch(
        self, batch: Iterable[Any], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """Take messages in log order; the last message of a key counts."""
        topics = self.table.changelog_topic.topics
        for event in batch:
            message = event.message
            if message.topic in topics:  # Faust may hand over messages of another table
                self._take(message)

    def _take(self, message: Any) -> None:
        try:
            key = read_id(message.key)
            if message.value:
                self.data[key] = read_attributes(message.value)
            else:
                self.data.pop(key, None)
        except FormatInvalid as exc:
            note_foreign(message.topic, message.partition, message.offset, f"key {message.key!r}: {exc}")

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Keep everything: every worker has the whole table."""


class Dimension(GlobalTable):
    """A dimension table of `app` over an existing compacted topic of one partition."""

    def __init__(self, app: InstreamApp, spec: TopicSpec) -> None:
        topic = app.source_topic(spec.name, spec.partitions)
        # Buffers of one message: Faust applies updates only when a buffer is full.
        super().__init__(
            app, name=spec.name, changelog_topic=topic, key_type=bytes, value_type=bytes, partitions=spec.partitions,
            is_global=True, recovery_buffer_size=1, standby_buffer_size=1,
        )  # fmt: skip
        self._topic_name = spec.name
        app.tables.add(self)

    def _changelog_topic_name(self) -> str:
        return self._topic_name  # the assignor would look for `<app>-<table>-changelog`, and the group hang

    def _new_store(self) -> DimensionStore:
        return DimensionStore(
            f"memory://{self._topic_name}", self.app, self, table_name=self.name, key_type=bytes, value_type=bytes,
            key_serializer="raw", value_serializer="raw", options={},
        )  # fmt: skip

    @property
    def rows(self) -> Mapping[str, Attributes]:
        """Id -> its attributes; a live view."""
        store: Any = self.data
        found: Mapping[str, Attributes] = store.data
        return found
