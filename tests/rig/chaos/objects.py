"""Damage to objects in S3. Either the system repairs it alone, or it names the object and an operator puts it back.

    ready.json deleted      delivery writes it again (rule S3)
    record damaged          delivery names the record, and only its partition waits; the operator puts the record back
    data file damaged       delivery sets the transaction aside (rule D2); the operator puts the file back and releases it
    raw file damaged        a replay names the batch; the operator puts the file back

The first three meet a transaction that is not loaded yet, so delivery is stopped meanwhile. "The operator puts it back": the
bucket keeps versions, and this run keeps the bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple, TypeVar

from agents.audit.ports import open_ports
from agents.audit.registry_items import readable
from agents.audit.replay import Chosen, replay
from app.adapters.s3 import S3ObjectStore
from app.core.formats import object_keys
from app.core.formats.transaction_record import TransactionRecord
from app.core.sink.chain import ChainId, decode_record
from app.errors import InstreamError, LocalStackError, OutsideError
from app.local.stack.probe import await_true, read_url
from app.settings import Settings
from app.shell.ports import Ports
from tests.rig.chaos.plan import Fault
from tests.rig.chaos.quarantine import quarantined
from tests.rig.chaos.report import Journal
from tests.rig.chaos.workers import Workers
from tests.rig.invariants.violation import Violation
from tests.worlds.waiting import HANGS_S

PAUSE_S: Final = 0.5
COMMITTED_S: Final = 40.0
"""Time for the sink to commit two transactions while delivery is stopped; it may be down itself."""
Value = TypeVar("Value")


class _Unloaded(NamedTuple):
    """A finished transaction that delivery has not seen, and that has a successor."""

    chain: ChainId
    record: TransactionRecord


class Objects:
    """Damage to the objects of one stack."""

    def __init__(self, settings: Settings, workers: Workers, journal: Journal) -> None:
        self._settings = settings
        self._workers = workers
        self._journal = journal
        self._store = S3ObjectStore(settings)
        self._originals: dict[str, bytes] = {}
        self._one_at_a_time = asyncio.Lock()
        self.blamed: list[str] = []
        """Keys of the data files that were damaged: their transactions may be set aside."""
        self.violations: list[Violation] = []

    async def close(self) -> None:
        """Put back everything that is still damaged, and disconnect."""
        for key in list(self._originals):
            await self._put_back(key)
        await self._store.close()

    # --- of transactions

    async def delete_ready(self, fault: Fault) -> None:
        """Delete the ready.json of a transaction that is not loaded yet."""
        async with self._one_at_a_time:
            async with self._before_delivery(fault) as found:
                await _insist(lambda: self._store.delete([found.record.ready_key]))

            async def is_there() -> bool:
                return await self._store.head(found.record.ready_key) is not None

            await self._expect(is_there, "S3", f"{found.record.ready_key} was deleted, and delivery did not write it again")
        self._journal.note(fault.kind, "s3", found.record.ready_key)

    async def damage_record(self, fault: Fault) -> None:
        """Cut the record of a transaction that is not loaded yet, until delivery names it."""
        async with self._one_at_a_time:
            async with self._before_delivery(fault) as found:
                key = object_keys.record_key(*found.chain, found.record.number)
                await self._cut(key, await _insist(lambda: self._store.get(key)))
            try:
                name = f"record {found.record.number} of {found.chain}"
                await self._expect(lambda: self._says("delivery", name), "S3", f"delivery did not name the damaged {name}")
            finally:
                await self._put_back(key)
        self._journal.note(fault.kind, "s3", key)

    async def damage_data(self, fault: Fault) -> None:
        """Cut a data file, or the ledger, of a transaction that is not loaded yet, until the transaction is set aside."""
        async with self._one_at_a_time:
            async with self._before_delivery(fault) as found:
                keys = [output.data_key for output in found.record.outputs if output.data_key is not None]
                if not keys:
                    raise LocalStackError(f"{found.record.txn_id} has no rows")
                key = keys[fault.chance % len(keys)]
                self.blamed.append(key)
                await self._cut(key, await _insist(lambda: self._store.get(key)))

            async def is_aside() -> bool:
                return found.record.txn_id in await quarantined(self._settings)

            try:
                await self._expect(is_aside, "D2", f"{key} was damaged, and its transaction was not set aside")
            finally:
                await self._put_back(key)
        self._journal.note(fault.kind, "s3", key)

    @asynccontextmanager
    async def _before_delivery(self, fault: Fault) -> AsyncIterator[_Unloaded]:
        """Stop delivery, find a transaction that was committed since then, and let delivery go on after the block."""
        chain = ChainId(self._settings.epoch, fault.chance % self._settings.partitions)
        async with self._workers.stopped("delivery"):
            known = await self._numbers(chain)

            async def goes_on() -> bool:
                return await self._numbers(chain) >= known + 2

            try:
                async with asyncio.timeout(COMMITTED_S):
                    await await_true(goes_on, PAUSE_S)
            except TimeoutError as exc:
                raise LocalStackError(f"the sink commits nothing in {chain}") from exc
            number = known + 1
            body = await _insist(lambda: self._store.get(object_keys.record_key(*chain, number)))
            yield _Unloaded(chain, decode_record(body, chain, number))

    async def _numbers(self, chain: ChainId) -> int:
        async def count() -> int:
            return len([info async for info in self._store.list(object_keys.chain_prefix(*chain))])

        return await _insist(count)

    # --- of batches

    async def damage_raw(self, fault: Fault) -> None:
        """Cut the raw file of a batch, and send the batch again: the replay must name it, and send nothing."""
        async with open_ports(Ports(self._settings)) as ports:
            items = [item async for item in readable(ports.registry.all_batches(), [])]
            items = [item for item in items if item.epoch == self._settings.epoch]
            if not items:
                raise LocalStackError("no batch is registered yet")
            item = items[fault.chance % len(items)]
            await self._cut(item.raw_key, await ports.store.get(item.raw_key))
            try:
                report = await replay(ports, self._settings, Chosen(batch_ids=[item.batch_id]))
            finally:
                await self._put_back(item.raw_key)
        if report.held:
            raise LocalStackError(f"batch {item.batch_id} is held by a quarantined transaction")
        if report.damaged != [item.batch_id]:
            self.violations.append(Violation("A1", f"{item.raw_key} was damaged, and the replay did not name it: {report}"))
        self._journal.note(fault.kind, "s3", item.raw_key)

    # --- all

    async def _cut(self, key: str, body: bytes) -> None:
        self._originals.setdefault(key, body)
        await _insist(lambda: self._store.put(key, body[: len(body) // 2]))

    async def _put_back(self, key: str) -> None:
        await _insist(lambda: self._store.put(key, self._originals[key]))
        del self._originals[key]

    async def _says(self, role: str, text: str) -> bool:
        answer = await read_url(self._workers.page(role, "ready"))
        return answer is not None and text in answer[1].decode(errors="replace")

    async def _expect(self, holds: Callable[[], Awaitable[bool]], rule: str, otherwise: str) -> None:
        """Wait for what must follow from a damage; a violation if it does not come."""

        async def looked() -> bool:
            with suppress(InstreamError):
                return await holds()
            return False

        try:
            async with asyncio.timeout(HANGS_S):
                await await_true(looked, PAUSE_S)
        except TimeoutError:
            self.violations.append(Violation(rule, otherwise))


async def _insist(call: Callable[[], Awaitable[Value]]) -> Value:
    """The answer of S3, which fails some calls; a damage must not be half done."""
    for _ in range(60):
        with suppress(OutsideError):
            return await call()
        await asyncio.sleep(PAUSE_S)
    return await call()
