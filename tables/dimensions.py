"""Tables `articles` and `campaigns`: what anyone may put on the two compacted topics, whole in every ETL worker (J5).

A message's key is the id (UTF-8), its value a JSON object, e.g. `{"title": ..., "author_id": ..., "section": ...}` or
`{"name": ..., "network": ...}`; an empty value deletes. They are recovered before work starts and stay up to date while
it runs. They decide what a row says, never whether there is one: what cannot be read is ignored, with a log line.

Versions (rule E10): a message names none. Anybody may write one, each attribute stands for itself, and one that this reader
does not know is not used.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import structlog
from faust.stores.memory import Store
from faust.tables.globaltable import GlobalTable
from faust.types import TP

from app.core.formats.decoding import read, reading
from app.errors import FormatInvalid
from app.shell.faust_app import InstreamApp
from app.topics import TopicSpec

log = structlog.get_logger(__name__)

Attributes = Mapping[str, str]
"""What a dimension says of one id."""
_decoder = msgspec.json.Decoder(dict[str, str | int | float | bool | None])


def read_attributes(value: bytes) -> dict[str, str]:
    """The attributes in a message's value; those that are null are absent, other scalars become text.

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
        """Take messages in log order: the last one of a key holds."""
        topics = self.table.changelog_topic.topics
        for event in batch:
            message = event.message
            if message.topic in topics:  # Faust may hand over another table's
                self._take(message)

    def _take(self, message: Any) -> None:
        try:
            key = read_id(message.key)
            if message.value:
                self.data[key] = read_attributes(message.value)
            else:
                self.data.pop(key, None)
        except FormatInvalid as exc:
            log.warning("dimension ignored", topic=message.topic, offset=message.offset, key=message.key, error=str(exc))

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Keep everything: every worker has the whole table."""


class Dimension(GlobalTable):
    """A dimension table of `app`, fed by an existing compacted topic of one partition."""

    def __init__(self, app: InstreamApp, spec: TopicSpec) -> None:
        topic = app.source_topic(spec.name, spec.partitions)
        # One at a time: with larger buffers Faust applies an update only when a buffer is full.
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
