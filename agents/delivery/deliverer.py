"""Carries out delivery's decisions: walk the chains, load ready transactions, defer, set aside (rules D1, D2)."""

import asyncio
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge, Histogram

from agents.delivery.load import LoadOutcome, LoadStopped, WarehouseLoad
from agents.delivery.log_pruning import LogPruning
from agents.sink.chain_store import ChainStore
from app.adapters.ports import ObjectStore
from app.clock import Clock
from app.core.delivery.bisection import Bisection
from app.core.delivery.completeness import complete_up_to
from app.core.delivery.load_plan import (
    BLAMES_A_FILE,
    DEFERRAL_BACKOFF,
    MAX_TRANSACTIONS,
    Failure,
    FailureClass,
)
from app.core.formats import object_keys
from app.core.formats.transaction_record import Ready, TransactionRecord, read_record, ready_of
from app.core.sink.chain import ChainId, decode_loadable, numbers_behind
from app.errors import (
    AccessDenied,
    ChainBroken,
    FormatInvalid,
    NewerFormat,
    OutsideError,
    ServiceUnavailable,
)
from app.settings import Settings
from app.shell.histogram import CountedHistogram
from app.shell.upgrade import UpgradeWaits, remedy

log = structlog.get_logger(__name__)

LOADED_TRANSACTIONS: Final = Counter("instream_delivery_transactions_total", "Transactions loaded into the warehouse.")
LOADED_ROWS: Final = Counter("instream_delivery_rows_total", "Rows loaded into the warehouse.", ["output"])
QUARANTINED: Final = Counter("instream_delivery_quarantined_total", "Transactions set aside: an operator must look.")
DEFERRALS: Final = Counter("instream_delivery_deferrals_total", "Loads tried again later.", ["reason"])
IN_A_ROW: Final = Gauge("instream_delivery_deferrals_in_a_row", "Deferrals since the last load; 0 when all is well.")
FINISHED_AGAIN: Final = Counter(
    "instream_delivery_finished_again_total", "Transactions that had lost their ready.json: delivery wrote it again."
)
CHAIN: Final = "chain"
"""The reason of a deferral without a load."""
UPGRADE: Final = "upgrade"
"""The reason of a deferral that ends with delivery's upgrade."""
ROLE: Final = "delivery"
HALF_S: Final = 0.5
"""Rows are counted by whole seconds; on average they were received in the middle of theirs."""
WAIT_S: Final = Histogram(
    "instream_delivery_wait_seconds", "From a transaction's commit in S3 to its load.",
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600),
)  # fmt: skip


VISIBLE_S: Final = CountedHistogram(
    "instream_received_to_visible_seconds", "From the receipt of a row to its load, by flow", ("flow",),
    (2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 135, 150, 180, 240, 300, 450, 600, 1800, 3600, 86400),
)  # fmt: skip
COMPLETE_UP_TO: Final = Gauge(
    "instream_complete_up_to_seconds",
    "Every row received before this moment (seconds since the epoch) is loaded, as far as it reached Kinesis in time.",
    ["flow"],
)


class DeliveryReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one round."""

    loaded: tuple[str, ...] = ()
    """Loaded transactions, including those without rows."""
    rows: int = 0
    quarantined: tuple[str, ...] = ()
    deferred: Failure | None = None
    """The reason why a ready transaction was not loaded."""
    pause_s: float = 0
    """Shortest pause before the next round; 0 if nothing was deferred."""


class Deliverer:
    """Loads ready transactions into the warehouse, each one once.

    Two deliverers of the same partitions (one of them a zombie, say) do no harm: each load locks delivery_log and reads it
    under the lock before it decides.
    """

    def __init__(
        self, store: ObjectStore, load: WarehouseLoad, settings: Settings, clock: Clock, chance: random.Random | None = None
    ) -> None:
        self._store = store
        self._epoch = settings.epoch
        self._interval_s = settings.delivery_interval_s
        self._clock = clock
        self._chance = chance or random.Random()
        self._load = load
        self._pruning = LogPruning(load, settings, clock)
        self._positions: dict[int, int] | None = None
        self._deferrals = 0
        self._deferred: Failure | None = None
        self._upgrades = UpgradeWaits(ROLE)
        self._join = settings.join
        self._partitions = settings.partitions
        self._search: Bisection | None = None
        """A search that a deferral interrupted; the next failed load of its transactions goes on with it."""
        self._reached: dict[int, tuple[int, int]] = {}
        """Partition, of any owner -> number and stream time of its last transaction that is loaded or set aside."""

    @property
    def deferred(self) -> Failure | None:
        """The reason why the last round did not load everything; None if it did."""
        return self._deferred

    def forget(self) -> None:
        """Read the positions again in the next round: another worker may have owned partitions meanwhile."""
        self._positions = None

    async def close(self) -> None:
        """Close the warehouse session."""
        self._upgrades.clear()
        await self._load.close()

    async def round(self, partitions: Collection[int]) -> DeliveryReport:
        """Load everything that is ready in `partitions`, and show how far they are complete.

        Failures of S3 or of the warehouse are deferrals, for ever.

        Raises:
            AccessDenied: a permission is missing, so the worker ends with the reason.
        """
        report = DeliveryReport()
        try:
            if self._positions is None or self._deferred is not None:  # if the warehouse is away, S3 is not walked
                self._positions = await self._load.positions()
            ready, broken = await self._walk(partitions, self._positions)
        except LoadStopped as stopped:
            return self._judged(report, stopped.failure)
        except AccessDenied:
            raise
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
        await self._show_completeness()
        if failure is None:
            await self._pruning.when_due(partitions)
        return self._judged(report, failure or broken)

    # --- the ready transactions

    async def _walk(self, partitions: Iterable[int], positions: dict[int, int]) -> tuple[list[Ready], Failure | None]:
        """The ready transactions behind the positions of all partitions, and why a chain cannot be followed further."""
        found = await asyncio.gather(*(self._chain(p, positions.get(p, 0)) for p in sorted(partitions)))
        broken = next((failure for _, failure in found if failure is not None), None)
        return [txn for chain, _ in found for txn in chain], broken

    async def _chain(self, partition: int, position: int) -> tuple[list[Ready], Failure | None]:
        """The ready transactions behind `position`, up to the first that is not: number n + 1 waits for n (rule S3).

        The listing begins with the record of `position`, so that a warehouse that is ahead of the bucket is noticed. A chain
        that contradicts itself, or that goes on with a newer version's record, stops only its own partition, and logs it.
        """
        place, start = ChainId(self._epoch, partition), max(position - 1, 0)
        listed = self._store.list(
            object_keys.chain_prefix(*place), object_keys.record_key(*place, start), MAX_TRANSACTIONS + 1
        )
        found = [info.key async for info in listed]
        out: list[Ready] = []
        try:
            if position and not found:
                raise ChainBroken(f"delivery_log has number {position} of {place}, the bucket does not")
            for before, key in enumerate(found, start):
                (number,) = numbers_behind(place, before, [key])
                if number <= position:
                    continue
                record = decode_loadable(await self._store.get(key), place, number)
                if await self._store.head(record.ready_key) is None:
                    if key == found[-1]:
                        break  # the sink will finish it, or is stuck: it is never skipped
                    await self._finish_again(place, record)
                out.append(ready_of(record))
        except ChainBroken as exc:
            log.error("chain is broken, its partition waits", partition=partition, error=str(exc))
            return out, Failure(FailureClass.DEFER, CHAIN, str(exc))
        except NewerFormat as exc:
            self._upgrades.begin(str(place), exc)
            return out, Failure(FailureClass.DEFER, UPGRADE, remedy(ROLE, exc))
        self._upgrades.end(str(place))
        return out, None

    async def _finish_again(self, place: ChainId, record: TransactionRecord) -> None:
        """Put back what a finished transaction has lost; only a finished one has a successor (rule S3).

        Raises:
            ChainBroken: a file of it is gone, or is another one.
            ServiceUnavailable: S3 does not answer; the next round tries again.
        """
        log.error(
            "ready.json is gone, the transaction is finished again", txn_id=record.txn_id, key=record.ready_key, alarm=True
        )
        await ChainStore(self._store, place, _give_up).finish(record)
        FINISHED_AGAIN.inc()

    # --- loads and their failures

    async def _decide(self, ready: Sequence[Ready]) -> tuple[LoadOutcome, Failure | None]:
        """One load and, if a file seems to blame, the search for it."""
        attempt = await self._load_or_look(ready, {})
        if attempt.failure is None or attempt.failure.kind not in BLAMES_A_FILE:
            return attempt, attempt.failure
        return await self._set_apart(attempt.planned, attempt.failure)

    async def _load_or_look(self, ready: Sequence[Ready], bad: Mapping[str, Failure]) -> LoadOutcome:
        """One load; if its COMMIT is not answered, the next load reads the outcome under the lock."""
        attempt = await self._load.load(ready, bad)
        if attempt.failure is None or attempt.failure.kind is not FailureClass.UNKNOWN:
            return attempt
        log.warning("commit outcome unknown, looking it up", load=attempt.load_id, detail=attempt.failure.detail)
        again = await self._load.load(attempt.planned, bad)
        if again.failure is not None or again.planned:
            return again
        aside = tuple(txn.txn_id for txn in attempt.planned if txn.txn_id in bad)
        return msgspec.structs.replace(attempt, failure=None, positions=again.positions, set_aside=aside)

    async def _set_apart(self, planned: Sequence[Ready], failure: Failure) -> tuple[LoadOutcome, Failure | None]:
        """Find the transactions to blame; load the others, and in the same load write the bad ones down (rule D2).

        A deferral interrupts the search, and the next round goes on with it: a warehouse that refuses every tenth statement
        would else let no search end.
        """
        log.warning("load rejected, looking for the transaction", transactions=len(planned), detail=failure.detail)
        search = self._search
        if search is None or not search.txn_ids <= {txn.txn_id for txn in planned}:
            search = self._search = Bisection(self._chance.sample(planned, len(planned)), failure)
        while (part := search.next()) is not None:
            found = await self._load.probe(part)
            if found is None:
                search.passed()
            elif found.kind in BLAMES_A_FILE:
                search.failed(found)
            else:
                return LoadOutcome(failure=found), found
        planned = [txn for txn in planned if txn.txn_id in search.txn_ids]
        for txn in planned:  # S3 may have failed at this moment: a failure without a named file is tried twice
            if (why := search.verdict().get(txn.txn_id)) is not None and why.kind is FailureClass.UNCLEAR:
                again = await self._load.probe([txn])
                if again is None:
                    search.acquit(txn.txn_id)
                elif again.kind not in BLAMES_A_FILE:
                    return LoadOutcome(failure=again), again
        waiting = search.waiting()
        still = next(iter(waiting.values()), None)
        attempt = await self._load_or_look([txn for txn in planned if txn.txn_id not in waiting], search.verdict())
        if attempt.failure is None or attempt.failure.kind in BLAMES_A_FILE:
            self._search = None
        return attempt, attempt.failure or still

    # --- positions, metrics, reports

    def _remember(self, attempt: LoadOutcome) -> None:
        """Keep the positions that the load found and, if it was committed, the new ones."""
        if attempt.positions is None:
            return
        self._positions = dict(attempt.positions)
        if attempt.failure is None:
            for txn in attempt.planned:
                self._positions[txn.partition] = max(self._positions.get(txn.partition, 0), txn.number)
                self._reached[txn.partition] = txn.number, txn.stream_time_ms

    def _count(self, report: DeliveryReport, attempt: LoadOutcome) -> DeliveryReport:
        aside = set(attempt.set_aside)
        loaded = [txn for txn in attempt.planned if txn.txn_id not in aside]
        now_ms = self._clock.now_ms()
        rows = 0
        for txn in loaded:
            WAIT_S.observe(max(0, now_ms - txn.committed_at_ms) / 1000)
            for output in txn.outputs:
                LOADED_ROWS.labels(output.output).inc(output.rows)
                rows += output.rows
                for second, count in output.received or ():
                    VISIBLE_S.observe((output.output,), max(0.0, now_ms / 1000 - second - HALF_S), count)
        LOADED_TRANSACTIONS.inc(len(loaded))
        if loaded:
            log.info("loaded", load=attempt.load_id, transactions=len(loaded), rows=rows)
        for txn_id in attempt.set_aside:
            QUARANTINED.inc()
            log.error(
                "transaction quarantined", txn=txn_id, load=attempt.load_id, remedy=f"instream delivery release {txn_id}"
            )
        return DeliveryReport(
            loaded=report.loaded + tuple(txn.txn_id for txn in loaded), rows=report.rows + rows,
            quarantined=report.quarantined + attempt.set_aside,
        )  # fmt: skip

    async def _show_completeness(self) -> None:
        """Set the gauge once the stream time of every partition is known, those of other owners too.

        While loads are deferred it stands. Only a metric needs it, so a record that cannot be read changes nothing else.
        """
        try:
            await asyncio.gather(*(self._reach(*at) for at in (self._positions or {}).items()))
        except (OutsideError, FormatInvalid, NewerFormat) as exc:
            log.info("completeness is not known", error=str(exc))
            return
        known = [self._reached.get(partition, (0, 0))[1] for partition in range(self._partitions)]
        for flow, moment_ms in complete_up_to(known, self._join).items():
            COMPLETE_UP_TO.labels(flow).set(moment_ms / 1000)

    async def _reach(self, partition: int, number: int) -> None:
        """Learn the stream time of a partition's position from its record, unless it is known."""
        if not number or self._reached.get(partition, (0, 0))[0] == number:
            return
        key = object_keys.record_key(self._epoch, partition, number)
        self._reached[partition] = number, read_record(await self._store.get(key), key).stream_time_ms

    def _judged(self, report: DeliveryReport, failure: Failure | None) -> DeliveryReport:
        """The report with its deferral and the pause that follows."""
        self._deferred = failure
        self._deferrals = 0 if failure is None else self._deferrals + 1
        IN_A_ROW.set(self._deferrals)
        if failure is None:
            return report
        DEFERRALS.labels(failure.reason).inc()
        pause = DEFERRAL_BACKOFF.pause_s(self._deferrals, self._chance.random())
        if failure.reason in {CHAIN, UPGRADE}:  # the other partitions' loads succeeded and need not wait longer each time
            pause = min(pause, self._interval_s)
        log.warning("load deferred", reason=failure.reason, detail=failure.detail, in_a_row=self._deferrals, pause_s=pause)
        return msgspec.structs.replace(report, deferred=failure, pause_s=pause)


async def _give_up(_: float) -> None:
    """Do not wait for S3 in a round: other partitions have work."""
    raise ServiceUnavailable("S3 does not answer while a transaction is finished again")
