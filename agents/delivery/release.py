"""Loads a transaction that delivery had set aside, once its fault is repaired (rule D2)."""

from enum import Enum
from typing import Any, Final

import msgspec

from agents.delivery.load import LoadStopped, WarehouseLoad
from app.adapters.ports import ObjectStore
from app.adapters.warehouse_port import Connect, WarehouseSession
from app.clock import Clock
from app.core.delivery.load_plan import BLAMES_A_FILE
from app.core.delivery.release import already_there, lines_of
from app.core.delivery.statements import LOADED
from app.core.formats import object_keys
from app.core.formats.flows import LEDGER
from app.core.formats.read_files import decode_output
from app.core.formats.transaction_record import Ready, TransactionRecord, ready_of
from app.core.sink.chain import ChainId, decode_loadable
from app.errors import ConfigurationError, LoadDeferred, LoadRejected
from app.settings import Settings
from app.shell.file_repairs import repaired_record

_BATCHES_AT_ONCE: Final = 500


class Released(Enum):
    """The outcome of a release."""

    LOADED = "loaded"
    ALREADY_LOADED = "already loaded"
    LINES_PRESENT = "refused: the ledger already has lines of it"


class Release(msgspec.Struct, frozen=True):
    """The answer to `instream delivery release`."""

    txn_id: str
    result: Released
    present: dict[str, int]
    """Batch -> the number of the transaction's lines that the ledger already has, if this is the reason of a refusal."""


class _Check:
    """Decides under the lock."""

    def __init__(self, txn: Ready, own: dict[str, Any]) -> None:
        self._txn = txn
        self._own = own
        self.result = Released.LOADED
        self.present: dict[str, int] = {}

    async def __call__(self, session: WarehouseSession) -> bool:
        status = await session.log_status(self._txn.txn_id)
        if status is None:
            raise ConfigurationError(f"delivery has not decided about {self._txn.txn_id} yet: nothing to release")
        if status == LOADED:
            self.result = Released.ALREADY_LOADED
            return False
        batches = sorted(self._own)
        for at in range(0, len(batches), _BATCHES_AT_ONCE):
            rows = await session.ledger_of(batches[at : at + _BATCHES_AT_ONCE])
            self.present |= already_there(self._own, [(row.batch_id, row.line_set) for row in rows])
        if self.present:
            self.result = Released.LINES_PRESENT
        return not self.present


async def release(store: ObjectStore, connect: Connect, settings: Settings, clock: Clock, txn_id: str) -> Release:
    """Load the quarantined transaction `txn_id` whole, unless the ledger already has lines of it.

    Releasing a loaded transaction changes nothing and says so.

    Raises:
        ConfigurationError: there is no such transaction, or delivery never set it aside.
        NewerFormat: it has rows that this version does not know.
        LoadRejected: the warehouse refuses a file of it (again); nothing was loaded.
        LoadDeferred: the warehouse cannot load now; nothing was loaded, or the next call finds the transaction loaded.
    """
    record = await repaired_record(store, await _record(store, txn_id))
    check = _Check(ready_of(record), await _own_lines(store, record))
    loading = WarehouseLoad(store, connect, settings, clock)
    try:
        await loading.load_again(ready_of(record), check)
    except LoadStopped as stopped:
        rejected = stopped.failure.kind in BLAMES_A_FILE
        raise (LoadRejected if rejected else LoadDeferred)(stopped.failure.detail) from stopped
    finally:
        await loading.close()
    return Release(txn_id, check.result, check.present)


async def _record(store: ObjectStore, txn_id: str) -> TransactionRecord:
    """The commit record of `txn_id`."""
    if not object_keys.is_txn_id(txn_id):
        raise ConfigurationError(f"{txn_id!r} is no transaction id: <epoch>-<partition>-<number>-<random>")
    epoch, partition, number = (int(part) for part in txn_id.split("-")[:3])
    key = object_keys.record_key(epoch, partition, number)
    if await store.head(key) is None:
        raise ConfigurationError(f"no transaction {txn_id}: {key} does not exist")
    record = decode_loadable(await store.get(key), ChainId(epoch, partition), number)
    if record.txn_id != txn_id:
        raise ConfigurationError(f"no transaction {txn_id}: number {number} is {record.txn_id}")
    return record


async def _own_lines(store: ObjectStore, record: TransactionRecord) -> dict[str, Any]:
    """Batch -> the lines in the transaction's ledger."""
    ledger = record.output(LEDGER.name)
    if ledger.data_key is None:
        return {}
    frame = decode_output(LEDGER.name, await store.get(ledger.data_key), ledger.columns_version)
    return lines_of(frame.select("batch_id", "line_set").iter_rows())
