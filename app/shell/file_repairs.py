"""Reads what is said of data files that a repair made again with other bytes (rule R6)."""

import asyncio
import hashlib
from collections.abc import Mapping

import structlog

from app.adapters.ports import ObjectStore
from app.core.formats.object_keys import file_repairs_prefix
from app.core.formats.transaction_record import TransactionRecord
from app.core.repair.file_repair import FileRepair, read_file_repair, repaired
from app.errors import FormatInvalid, ObjectMissing

log = structlog.get_logger(__name__)


async def read_file_repairs(objects: ObjectStore, txn_id: str) -> list[FileRepair]:
    """The file repairs of a transaction: one listing, nearly always empty.

    One that cannot be read says nothing: the file counts as damaged, and the next repair makes both again.

    Raises:
        NewerFormat: one is of a newer version.
        ServiceUnavailable: S3 does not answer.
    """
    found = []
    for key in [info.key async for info in objects.list(file_repairs_prefix(txn_id))]:
        try:
            found.append(read_file_repair(await objects.get(key), key))
        except FormatInvalid as exc:
            log.warning("a file repair cannot be read", key=key, error=str(exc))
    return found


async def repaired_record(
    objects: ObjectStore, record: TransactionRecord, digests: Mapping[str, str | None] | None = None
) -> TransactionRecord:
    """The record as readers of its files take it: `record` itself if none of its files was made again with other bytes.

    Args:
        objects: the bucket.
        record: a commit record.
        digests: output -> sha256 of the file that is there; None: those that were made again are read now.

    Raises: as `read_file_repairs`.
    """
    repairs = await read_file_repairs(objects, record.txn_id)
    if not repairs:
        return record
    if digests is None:
        digests = {made.output: await _digest(objects, record, made.output) for made in repairs}
    return repaired(record, repairs, digests)


async def _digest(objects: ObjectStore, record: TransactionRecord, output: str) -> str | None:
    key = record.output(output).data_key
    try:
        body = await objects.get(key) if key is not None else None
    except ObjectMissing:
        return None
    return None if body is None else await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
