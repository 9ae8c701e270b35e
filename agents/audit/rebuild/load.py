"""Puts the rows of a rebuild into another schema of the warehouse: files in S3, then one transaction of COPYs.

Effects, in order, and what a crash right after each leaves:
  1 PUT rebuilds/<load_id>/*   files that nobody reads; the next run has another id
  2 PUT loads/<load_id>/*      the same
  3 DELETE and COPY            nothing: the warehouse rolls back
  4 COMMIT                     the rows are there; a second run replaces them by the same
  5 DELETE the files           nothing
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from agents.audit.rebuild.offline import Made
from agents.audit.rebuild.raw_blocks import EpochPartition
from app.adapters.ports import ObjectStore
from app.adapters.rebuilt_schema import make_tables, replace_rows
from app.adapters.warehouse import Connection
from app.core.delivery import statements
from app.core.delivery.load_plan import output_loads
from app.core.formats import object_keys
from app.core.formats.columns import pack_frame
from app.core.formats.flows import BY_NAME
from app.core.formats.step_message import LedgerEntry
from app.core.formats.transaction_record import OutputObject, Ready
from app.core.rebuild.span import BatchSpan
from app.core.sink.open_transaction import Content, encode_outputs
from app.settings import Settings

PART_BYTES: Final = 16 * 1024 * 1024
"""A file gets rows until they have so many bytes."""


class Parts:
    """Gathers rows until they are enough for a set of files, as the sink does."""

    def __init__(self, load_id: str) -> None:
        self.load_id = load_id
        self.ready: list[Ready] = []
        """The parts that are stored, described as delivery knows transactions."""
        self._number = 0
        self._streams: dict[str, list[bytes]] = {}
        self._ledger: list[LedgerEntry] = []
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to store a part."""
        return self._bytes >= PART_BYTES

    def take(self, made: Made) -> None:
        """Add the rows and the ledger of a step."""
        for flow, rows in made.rows.items():
            packed = pack_frame(rows)
            self._streams.setdefault(flow, []).append(packed)
            self._bytes += len(packed)
        self._ledger += made.ledger

    def close(self, partition: EpochPartition) -> Iterator[tuple[str, bytes]]:
        """(key, file) of everything that has gathered. It takes seconds of CPU."""
        if not self._ledger:
            return
        self._number += 1
        txn = object_keys.txn_id(*partition, self._number, self.load_id.rpartition("-")[2])
        outputs = []
        for file in encode_outputs(Content(self._streams, self._ledger), txn):
            if file.rows:
                key = object_keys.rebuilt_key(self.load_id, file.output, txn)
                version = BY_NAME[file.output].version
                outputs.append(
                    OutputObject(output=file.output, rows=file.rows, bytes=len(file.body), data_key=key, version=version)
                )
                yield key, file.body
        self.ready.append(Ready(
            txn_id=txn, epoch=partition.epoch, partition=partition.number, number=self._number, stream_time_ms=0,
            committed_at_ms=0, outputs=outputs,
        ))  # fmt: skip
        self._streams, self._ledger, self._bytes = {}, [], 0


class Target(NamedTuple):
    """The place of a rebuild's rows."""

    schema: str
    span: BatchSpan
    """The rows of its batches are replaced."""


async def load_parts(store: ObjectStore, connection: Connection, settings: Settings, target: Target, parts: Parts) -> int:
    """Replace the target's rows by those of the parts, whose files are stored. Returns: the number of rows.

    Raises:
        ConfigurationError: the schema is none for a rebuild.
        LoadRejected: COPY counted other rows than the files have; nothing changed.
        WarehouseError, ServiceUnavailable: the warehouse refuses a statement, or does not answer; nothing changed.
    """
    await make_tables(connection, target.schema)
    loads = output_loads(parts.ready, parts.load_id, store.bucket)
    copies = []
    for load in loads:
        await store.put(load.manifest_key, load.manifest)
        url = f"s3://{store.bucket}/{load.manifest_key}"
        copy = statements.copy(load.flow, url, settings.copy_iam_role, settings.copy_region, target.schema)
        copies.append((load, copy))
    try:
        return await replace_rows(connection, target.schema, (target.span.first_id, target.span.end_id), copies)
    finally:
        await store.delete([load.manifest_key for load in loads])


async def drop_files(store: ObjectStore, parts: Parts) -> None:
    """Delete the files of all parts."""
    keys = [out.data_key for ready in parts.ready for out in ready.outputs if out.data_key is not None]
    if keys:
        await store.delete(keys)
