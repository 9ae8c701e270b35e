"""Delivery's decisions carried out: walk the chains, load what is ready, defer, set aside (rules D1, D2)."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge, Histogram

from agents.warehouse_load import Attempt, Connect, LoadStopped, WarehouseLoad
from app.adapters.ports import ObjectStore
from app.clock import Clock
from app.core import keys
from app.core.chain import Place, decode_record
from app.core.load_plan import BLAMES_A_FILE, MAX_TRANSACTIONS, Bisection, Failure, FailureClass, pause_s
from app.core.transaction import Ready, ready_of
from app.errors import OutsideError
from app.settings import Settings

log = structlog.get_logger(__name__)

LOADED_TRANSACTIONS: Final = Counter("instream_delivery_transactions_total", "Transactions loaded into the warehouse.")
LOADED_ROWS: Final = Counter("instream_delivery_rows_total", "Rows loaded into the warehouse.", ["output"])
QUARANTINED: Final = Counter("instream_delivery_quarantined_total", "Transactions set aside: an operator must look.")
DEFERRALS: Final = Counter("instream_delivery_deferrals_total", "Loads tried again later.", ["reason"])
IN_A_ROW: Final = Gauge("instream_delivery_deferrals_in_a_row", "Deferrals since the last load; 0 when all is well.")
WAIT_S: Final = Histogram(
    "instream_delivery_wait_seconds", "From a transaction's commit in S3 to its load.",
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600),
)  # fmt: skip


class RoundReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one round did."""

    loaded: tuple[str, ...] = ()
    """Transactions loaded, those without rows included."""
    rows: int = 0
    quarantined: tuple[str, ...] = ()
    deferred: Failure | None = None
    """Why something that is ready was not loaded."""
    pause_s: float = 0
    """How long to wait before the next round at least; 0 where nothing was deferred."""


class Deliverer:
    """Loads ready transactions into the warehouse, each once.

    Two deliverers of the same partitions (one of them a zombie, say) do no harm: each load locks delivery_log and reads it
    under the lock before it decides.
    """

    def __init__(
        self, store: ObjectStore, connect: Connect, settings: Settings, clock: Clock, chance: random.Random | None = None
    ) -> None:
        self._store = store
        self._epoch = settings.epoch
        self._clock = clock
        self._chance = chance or random.Random()
        self._load = WarehouseLoad(store, connect, settings, clock)
        self._positions: dict[int, int] | None = None
        self._deferrals = 0
        self._deferred: Failure | None = None

    @property
    def deferred(self) -> Failure | None:
        """Why the last round did not load everything; None when it did."""
        return self._deferred

    def forget(self) -> None:
        """Read the positions anew in the next round: partitions may have been another worker's meanwhile."""
        self._positions = None

    async def close(self) -> None:
        """Close the warehouse connection."""
        await self._load.close()

    async def round(self, partitions: Iterable[int]) -> RoundReport:
        """Load everything that is ready in `partitions`.

        Never raises for what is outside: S3 or a warehouse that fail are deferrals, for ever.
        """
        report = RoundReport()
        try:
            if self._positions is None:
                self._positions = await self._load.positions()
            ready = await self._walk(partitions, self._positions)
        except LoadStopped as stopped:
            return self._judged(report, stopped.failure)
        except OutsideError as exc:
            return self._judged(report, Failure(FailureClass.DEFER, "storage", str(exc)))
        failure: Failure | None = None
        while ready and failure is None:
            attempt, failure = await self._decide(ready)
            self._remember(attempt)
            if attempt.failure is None:
                report = self._count(report, attempt)
            done = {txn.txn_id for txn in attempt.planned}
            if not done:
                break
            ready = [txn for txn in ready if txn.txn_id not in done]
        return self._judged(report, failure)

    # --- what is ready

    async def _walk(self, partitions: Iterable[int], positions: dict[int, int]) -> list[Ready]:
        """What lies ready behind the positions, of all partitions at once."""
        found = await asyncio.gather(*(self._chain(p, positions.get(p, 0)) for p in sorted(partitions)))
        return [txn for chain in found for txn in chain]

    async def _chain(self, partition: int, position: int) -> list[Ready]:
        """The ready transactions behind `position`, up to the first that is not: number n + 1 waits for n (rule S3)."""
        prefix = keys.chain_prefix(self._epoch, partition)
        after = keys.record_key(self._epoch, partition, position)
        out: list[Ready] = []
        async for info in self._store.list(prefix, start_after=after, limit=MAX_TRANSACTIONS):
            number = int(info.key.removeprefix(prefix).removesuffix(".json"))
            record = decode_record(await self._store.get(info.key), Place(self._epoch, partition), number)
            if await self._store.head(record.ready_key) is None:
                break  # the sink is about to finish it, or is stuck: it is never skipped over
            out.append(ready_of(record))
        return out

    # --- what becomes of it

    async def _decide(self, ready: Sequence[Ready]) -> tuple[Attempt, Failure | None]:
        """One load and, where a file seems to blame, the search for it."""
        attempt = await self._load.load(ready, {})
        if attempt.failure is not None and attempt.failure.kind is FailureClass.UNKNOWN:
            log.warning("commit outcome unknown, looking it up", load=attempt.load_id, detail=attempt.failure.detail)
            sent = attempt
            attempt = await self._load.load(sent.planned, {})
            if attempt.failure is None and not attempt.planned:  # it had been committed
                attempt = msgspec.structs.replace(sent, failure=None, positions=attempt.positions)
        if attempt.failure is None or attempt.failure.kind not in BLAMES_A_FILE:
            return attempt, attempt.failure
        return await self._set_apart(attempt.planned, attempt.failure)

    async def _set_apart(self, planned: Sequence[Ready], failure: Failure) -> tuple[Attempt, Failure | None]:
        """Find the transactions to blame; load the others, and with them write down those that are proven bad (rule D2)."""
        log.warning("load rejected, looking for the transaction", transactions=len(planned), detail=failure.detail)
        search = Bisection(planned)
        while (part := search.next()) is not None:
            found = await self._load.probe(part)
            if found is None:
                search.passed()
            elif found.kind in BLAMES_A_FILE:
                search.failed(found)
            else:
                return Attempt(failure=found), found
        bad = search.verdict()
        unproven = {txn_id: why for txn_id, why in search.suspects.items() if txn_id not in bad}
        still = next(iter(unproven.values()), None)
        attempt = await self._load.load([txn for txn in planned if txn.txn_id not in unproven], bad)
        return attempt, attempt.failure or still

    # --- what is told

    def _remember(self, attempt: Attempt) -> None:
        """Keep the positions that the load found and, where it was committed, made."""
        if attempt.positions is None:
            return
        self._positions = dict(attempt.positions)
        if attempt.failure is None:
            for txn in attempt.planned:
                self._positions[txn.partition] = max(self._positions.get(txn.partition, 0), txn.number)

    def _count(self, report: RoundReport, attempt: Attempt) -> RoundReport:
        aside = set(attempt.set_aside)
        loaded = [txn for txn in attempt.planned if txn.txn_id not in aside]
        now_ms = self._clock.now_ms()
        rows = 0
        for txn in loaded:
            WAIT_S.observe(max(0, now_ms - txn.committed_at_ms) / 1000)
            for output in txn.outputs:
                LOADED_ROWS.labels(output.output).inc(output.rows)
                rows += output.rows
        LOADED_TRANSACTIONS.inc(len(loaded))
        if loaded:
            log.info("loaded", load=attempt.load_id, transactions=len(loaded), rows=rows)
        for txn_id in attempt.set_aside:
            QUARANTINED.inc()
            log.error(
                "transaction quarantined", txn=txn_id, load=attempt.load_id, remedy=f"instream delivery release {txn_id}"
            )
        return RoundReport(
            loaded=report.loaded + tuple(txn.txn_id for txn in loaded), rows=report.rows + rows,
            quarantined=report.quarantined + attempt.set_aside,
        )  # fmt: skip

    def _judged(self, report: RoundReport, failure: Failure | None) -> RoundReport:
        """The report with its deferral and the pause that follows."""
        self._deferred = failure
        self._deferrals = 0 if failure is None else self._deferrals + 1
        IN_A_ROW.set(self._deferrals)
        if failure is None:
            return report
        DEFERRALS.labels(failure.reason).inc()
        pause = pause_s(self._deferrals, self._chance.random())
        log.warning("load deferred", reason=failure.reason, detail=failure.detail, in_a_row=self._deferrals, pause_s=pause)
        return msgspec.structs.replace(report, deferred=failure, pause_s=pause)
