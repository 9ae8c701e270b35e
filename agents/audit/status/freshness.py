"""How far the warehouse is complete, which batch is the oldest that it lacks, and how old things before each stage are."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, NamedTuple

import structlog

from agents.audit.registry_items import readable
from agents.audit.stages.open_steps import RowsPartition, read_open_steps
from agents.audit.stages.stages import StagePorts, Stages
from agents.audit.stored_ledger import COUNTED_MOST, StoredLedger
from app.adapters.ports import LogSearch, Registry
from app.adapters.warehouse_port import Delivery
from app.core.audit.reconcile import coverage, lacking_blocks
from app.core.audit.stages import Stage
from app.core.etl.stream_time import ShardWatermarks
from app.core.formats.block import decode_control, is_control
from app.core.formats.registry_item import RegistryItem
from app.core.formats.step_message import StepLog
from app.core.repair.replacements import Replacements
from app.core.sink.chain import chain_end_after
from app.core.status.seen import Freshness, UncoveredBatch
from app.errors import ChainBroken, EnvelopeInvalid, NewerFormat, OutsideError
from app.settings import Settings
from app.shell.repairs import read_replacements
from app.topics import topics_of

log = structlog.get_logger(__name__)

CHUNK: Final = 200
"""Batches whose ledger is read together."""
LOOKED_MOST: Final = 5_000
"""Open batches that are looked at: the oldest of them."""
STAGED_MOST: Final = 20
"""Uncovered batches whose stage is looked for: the oldest of them."""
ARRIVAL_MS: Final = 5_000
"""A block reaches Kinesis at most so long after its batch was received, unless something holds it."""
STEPS_MOST_BYTES: Final = 4 * 1024 * 1024
LOOKED_BACK: Final = 200
"""Messages at the end of a partition of `blocks` among which the watermarks are looked for."""
LOOKED_AHEAD: Final = 200
"""Messages behind the etl's position among which the first block is looked for."""
LOCKED_S: Final = 2.0
"""How long the progress of delivery may wait for a load's lock."""
HOLD_S: Final = 10.0
"""The etl lets watermark messages alone wait for some seconds; if they are older, it does not take them."""
TICK_S: Final = 3.0
"""Watermarks are published about every second."""


class LogLocked(Exception):
    """The progress of delivery cannot be read now."""


class FreshPorts(NamedTuple):
    """The services that are asked."""

    stages: StagePorts
    registry: Registry


class FreshLook:
    """One look at the data's way."""

    def __init__(self, ports: FreshPorts, settings: Settings, now_ms: int) -> None:
        self._ports = ports
        self._settings = settings
        self._now_ms = now_ms
        self._topics = topics_of(settings)
        self._stored = StoredLedger(ports.stages.store, settings.epoch)
        self._delivery: Delivery | None = None
        self._is_locked = False
        self._asking = asyncio.Lock()

    async def freshness(self, *, with_stages: bool) -> Freshness:
        """What the warehouse lacks.

        Args:
            with_stages: whether Kafka and S3 can be asked which stage holds the oldest batches.

        Raises:
            ServiceUnavailable: the registry or the warehouse does not answer.
        """
        uncovered, is_whole = await self._uncovered()
        try:
            delivery = await self._progress()
        except LogLocked:
            delivery, with_stages = Delivery({}, []), False
        quarantined = tuple(sorted(each.txn_id for each in delivery.quarantined))
        up_to_ms = self._now_ms
        if uncovered:
            up_to_ms = uncovered[0][0].received_at_ms
        elif not is_whole:
            up_to_ms = 0
        waits = [item for item, partitions in uncovered if not self._is_passed(item, partitions, delivery)]
        at_once_ms = min([item.received_at_ms for item in waits], default=self._now_ms if is_whole else up_to_ms)
        staged = await self._stages([item for item, _ in uncovered], waits) if with_stages else {}
        held = [batch for batch in staged.values() if batch.stage not in {Stage.JOIN.value, Stage.LOADED.value}]
        oldest = None
        if uncovered:
            first = uncovered[0][0]
            oldest = staged.get(first.batch_id) or UncoveredBatch(
                batch_id=first.batch_id, received_at_ms=first.received_at_ms
            )
        return Freshness(
            complete_up_to_ms=up_to_ms, at_once_up_to_ms=min([at_once_ms, *(batch.received_at_ms for batch in held)]),
            oldest=oldest, held=min(held, key=lambda batch: batch.received_at_ms, default=None), quarantined=quarantined,
            lost=sum(batch.stage == Stage.LOST.value for batch in staged.values()),
        )  # fmt: skip

    async def bound(self) -> Freshness:
        """What is known while the warehouse does not answer: all batches before the oldest open one are complete.

        Raises:
            ServiceUnavailable: the registry does not answer.
        """
        async for item in self._open_batches():
            oldest = UncoveredBatch(batch_id=item.batch_id, received_at_ms=item.received_at_ms)
            up_to_ms = item.received_at_ms
            return Freshness(complete_up_to_ms=up_to_ms, at_once_up_to_ms=up_to_ms, is_bound=True, oldest=oldest)
        return Freshness(complete_up_to_ms=self._now_ms, at_once_up_to_ms=self._now_ms)

    async def _progress(self) -> Delivery:
        """The progress of delivery, asked once: the looks go on side by side.

        Raises:
            LogLocked: a load, or a stranger, holds the lock on delivery_log. Delivery itself says it if that takes long.
            ServiceUnavailable: the warehouse does not answer.
        """
        async with self._asking:
            if self._is_locked:
                raise LogLocked
            if self._delivery is None:
                try:
                    async with asyncio.timeout(LOCKED_S):
                        self._delivery = await self._ports.stages.warehouse.delivery(self._settings.epoch)
                except TimeoutError:
                    self._is_locked = True
                    raise LogLocked from None
            return self._delivery

    async def _open_batches(self) -> AsyncIterator[RegistryItem]:
        try:
            async for item in readable(self._ports.registry.open_batches(self._now_ms + 1), []):
                if item.epoch == self._settings.epoch:
                    yield item
        except NewerFormat:  # a newer collector's batches cannot be judged; /ready of the audit says so
            return

    async def _uncovered(self) -> tuple[list[tuple[RegistryItem, frozenset[int]]], bool]:
        """The uncovered batches, the oldest first, each with the partitions of its lacking blocks.

        And whether all open batches were looked at.
        """
        found: list[tuple[RegistryItem, frozenset[int]]] = []
        some: list[RegistryItem] = []
        looked = 0
        async for item in self._open_batches():
            some.append(item)
            looked += 1
            if len(some) == CHUNK:
                found += await self._lacking(some)
                some = []
            if looked == LOOKED_MOST:
                return found + await self._lacking(some), False
        return found + await self._lacking(some), True

    async def _lacking(self, items: Sequence[RegistryItem]) -> list[tuple[RegistryItem, frozenset[int]]]:
        if not items:
            return []
        entries = await self._ports.stages.warehouse.entries([item.batch_id for item in items])
        found = []
        for item in items:
            lines = coverage(item.line_count, entries.get(item.batch_id, []))
            if lines.missing:
                found.append((item, frozenset(place.partition for place in lacking_blocks(item, lines).values())))
        return found

    def _is_passed(self, item: RegistryItem, partitions: frozenset[int], delivery: Delivery) -> bool:
        """Whether a batch lacks only lines that the join holds: what was emitted at once is loaded.

        The loaded stream time of each of its partitions is past its arrival, and not yet past the bounds of the join.
        """
        arrived_ms = item.received_at_ms + self._settings.linger_ms + ARRIVAL_MS
        settled_ms = arrived_ms + self._settings.join.settle_ms
        times = [delivery.partitions[p].stream_time_ms if p in delivery.partitions else -1 for p in partitions]
        return all(arrived_ms < time_ms <= settled_ms for time_ms in times)

    async def _stages(self, uncovered: list[RegistryItem], waits: list[RegistryItem]) -> dict[str, UncoveredBatch]:
        """Where the oldest batches stand: the oldest of all, and the oldest of those that not only the join holds."""
        asked = {item.batch_id: item for item in (*uncovered[: STAGED_MOST // 2], *waits[: STAGED_MOST // 2])}
        stages = Stages(self._ports.stages, self._settings, self._stored)
        try:
            staged = await stages.of(list(asked.values()))
        except (OutsideError, ChainBroken, NewerFormat) as exc:
            log.info("the stages of batches cannot be found out", error=str(exc))
            return {}
        return {
            batch_id: UncoveredBatch(
                batch_id=batch_id, received_at_ms=found.received_at_ms, stage=found.stage.value, until_ms=found.until_ms,
                detail=found.detail,
            )
            for batch_id, found in staged.items()
        }  # fmt: skip

    # --- lags

    async def lags_s(self) -> Mapping[str, float]:
        """Stage -> the age (s) of the oldest thing that it has not passed; 0 if nothing waits there.

        Empty while a load holds the lock on delivery_log.

        Raises:
            ServiceUnavailable: the warehouse, S3 or Kafka does not answer.
        """
        try:
            delivery = await self._progress()
        except LogLocked:
            return {}
        partitions = range(self._settings.partitions)
        replaced = await read_replacements(self._ports.stages.store, self._settings.epoch, partitions)
        found = await asyncio.gather(
            *(self._partition_lags(number, delivery, replaced.get(number) or Replacements()) for number in partitions)
        )
        lags = {stage: max(lag[stage] for lag in found) for stage in ("etl", "sink", "delivery")}
        return {"bridge": await self._bridge_lag_s(), **lags}

    async def _partition_lags(self, number: int, delivery: Delivery, replaced: Replacements) -> dict[str, float]:
        at = delivery.number(number)
        numbers = await self._stored.numbers_behind(number, at, COUNTED_MOST)
        last = numbers[-1] if numbers else at
        record = await self._stored.record(number, last) if last else None
        unloaded = await self._stored.record(number, numbers[0]) if numbers else None
        log = StepLog(self._topics.rows.name, number, self._settings.epoch)
        rows = RowsPartition(self._ports.stages.logs, log, replaced)
        steps = await read_open_steps(rows, chain_end_after(record), (), STEPS_MOST_BYTES)
        return {
            "etl": await self._etl_lag_s(number, steps.position.source_last),
            "sink": self._age_s(steps.emitted_at_ms),
            "delivery": self._age_s(unloaded.committed_at_ms if unloaded is not None else None),
        }

    async def _etl_lag_s(self, number: int, source_last: int) -> float:
        """The age of the first block that no step took; of the first message if it is older than a step may wait."""
        logs: LogSearch = self._ports.stages.logs
        topic = self._topics.blocks.name
        first, end = await logs.bounds(topic, number)
        start = max(first, source_last + 1)
        oldest_ms: int | None = None
        async for message in logs.scan(topic, number, start, min(end, start + LOOKED_AHEAD)):
            oldest_ms = message.timestamp_ms if oldest_ms is None else oldest_ms
            if not is_control(message.value):
                return self._age_s(message.timestamp_ms)
        age_s = self._age_s(oldest_ms)
        return age_s if age_s > HOLD_S else 0.0

    async def _bridge_lag_s(self) -> float:
        """How far the watermarks of the shards are behind now, less what is usual."""
        logs: LogSearch = self._ports.stages.logs
        topic = self._topics.blocks.name
        first, end = await logs.bounds(topic, 0)
        shards = ShardWatermarks()
        async for message in logs.scan(topic, 0, max(first, end - LOOKED_BACK), end):
            if is_control(message.value):
                try:
                    shards.observe(decode_control(message.value))
                except (EnvelopeInvalid, NewerFormat):
                    continue
        lowest_ms = shards.lowest()
        if lowest_ms is None:
            return 0.0
        behind_s = self._age_s(lowest_ms) - self._settings.slack_s - self._settings.tick_interval_s
        return behind_s if behind_s > TICK_S else 0.0

    def _age_s(self, at_ms: int | None) -> float:
        return 0.0 if at_ms is None else max(0.0, (self._now_ms - at_ms) / 1000)
