"""A partition's transaction chain in S3: finding its end, committing to it, and finishing committed transactions.

`app.core.sink.chain` decides what to do; this file does it, by calls that are repeated until they work. While S3 does not
answer, nothing is lost: the rows wait in the log.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Final, TypeVar, assert_never

import structlog
from prometheus_client import Counter as Metric
from prometheus_client import Histogram

from app.adapters.ports import ObjectInfo, ObjectStore, PutResult
from app.core.backoff import Backoff
from app.core.formats import object_keys
from app.core.formats.transaction_record import TransactionRecord
from app.core.repair.replacements import Replacements
from app.core.sink.chain import (
    SWEEP_AGE_MS,
    ChainId,
    Effects,
    Holder,
    Leftover,
    Move,
    StagedBy,
    decode_record,
    effects_of,
    encode_record,
    judge_holder,
    judge_leftover,
    numbers_behind,
    staged_by,
)
from app.errors import ChainBroken, NewerFormat, ObjectMissing, OutcomeUnknown, ServiceUnavailable
from app.shell.repairs import read_replacements

log = structlog.get_logger(__name__)

PAGE: Final = 1000
"""Records in one listing. Source: S3 API, ListObjectsV2."""
BACKOFF: Final = Backoff(first_s=0.2, longest_s=15.0)
"""Pauses while S3 does not answer."""

PHASE_SECONDS = Histogram(
    "instream_sink_commit_seconds", "Time of each phase of a transaction", ["phase"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)  # fmt: skip
CONFLICTS = Metric("instream_sink_conflicts_total", "Commits that found their number taken, by holder", ["holder"])
RETRIES = Metric("instream_sink_retries_total", "Calls to S3 that are tried again", ["error"])
SWEPT = Metric("instream_sink_swept_objects_total", "Old staged objects, by verdict", ["verdict"])

Sleep = Callable[[float], Awaitable[None]]
Answer = TypeVar("Answer")


@contextmanager
def timed(phase: str) -> Iterator[None]:
    """Observe the time of a phase; a failed phase is not observed."""
    started_s = perf_counter()
    yield
    PHASE_SECONDS.labels(phase).observe(perf_counter() - started_s)


class ChainStore:
    """One partition's chain."""

    def __init__(self, objects: ObjectStore, chain_id: ChainId, sleep: Sleep = asyncio.sleep) -> None:
        self.objects = objects
        self.chain_id = chain_id
        self._sleep = sleep

    async def find_end(self, after: int = 0) -> TransactionRecord | None:
        """The record with the highest number; None for an empty chain.

        `after` is a number that exists, or 0 if none is known.

        Each listing leaps twice as far as the last one; then leaps halve. A chain of millions needs some two dozen listings.

        Raises:
            ChainBroken: a number is missing, or the record cannot be read.
            NewerFormat: a newer sink committed it.
        """
        known, leap = after, PAGE
        while await self._goes_on_behind(known + leap):
            known += leap
            leap *= 2
        while leap > PAGE:  # the end is in known ... known + leap
            leap //= 2
            if await self._goes_on_behind(known + leap):
                known += leap
        numbers = await self._insist(lambda: self._numbers(known, None))
        number = numbers[-1] if numbers else known
        return await self.read(number) if number else None

    async def replacements(self) -> Replacements:
        """The replacements of the partition's damaged steps.

        Raises:
            StepMessageInvalid: one of them is no step.
        """
        epoch, partition = self.chain_id
        return (await self._insist(lambda: read_replacements(self.objects, epoch, {partition}))).get(
            partition, Replacements()
        )

    async def read(self, number: int) -> TransactionRecord | None:
        """The record of `number`, or None if there is none yet.

        Raises:
            ChainBroken: the object there is not its record.
            NewerFormat: a newer sink committed it.
        """
        try:
            body = await self._insist(lambda: self.objects.get(object_keys.record_key(*self.chain_id, number)))
        except ObjectMissing:
            return None
        return decode_record(body, self.chain_id, number)

    async def stage(self, record: TransactionRecord, bodies: Sequence[bytes]) -> None:
        """Store the files of a transaction, `bodies` in the order of its outputs."""
        with timed("stage"):
            await asyncio.gather(*(
                self._put(out.staged_key, body)
                for out, body in zip(record.outputs, bodies, strict=True) if out.staged_key is not None
            ))  # fmt: skip

    async def commit(self, record: TransactionRecord) -> TransactionRecord:
        """Put the record at the key of its number, unless one is there.

        Returns: the record that is there now (rules S1, S4).

        Guarantees: every caller of this number gets the same answer, even if answers of S3 got lost.
        """
        key = object_keys.record_key(*self.chain_id, record.number)
        with timed("commit"):
            result = await self._insist(lambda: self.objects.put_if_absent(key, encode_record(record)))
        if result is PutResult.CREATED:
            return record
        found = await self.read(record.number)
        if found is None:
            raise ChainBroken(f"{key} exists and cannot be found")
        holder = judge_holder(record, found)
        CONFLICTS.labels(holder.value).inc()
        if holder is Holder.FOREIGN:
            log.warning("number is taken", txn_id=record.txn_id, holder=found.txn_id)
        return found

    async def finish(self, record: TransactionRecord) -> Effects:
        """Steps 3 and 4: move, manifests, and last of all ready.json. Repeating it changes nothing.

        Raises:
            ChainBroken: a file is neither staged nor at its final key with the record's content.
        """
        effects = effects_of(record, self.objects.bucket)
        with timed("move"):
            await asyncio.gather(*(self._move(move) for move in effects.moves))
        with timed("manifests"):
            await asyncio.gather(*(self._put(put.key, put.body) for put in effects.manifests))
            await self._put(effects.ready.key, effects.ready.body)
        return effects

    async def clear(self, staged_keys: Sequence[str]) -> None:
        """Step 5: delete staged objects of a finished transaction, or of one whose number another one has (rule S4)."""
        if staged_keys:
            with timed("clear"):
                await self._insist(lambda: self.objects.delete(staged_keys))

    async def staged(self) -> dict[str, list[ObjectInfo]]:
        """Every staged object of any chain, by transaction id."""
        groups: dict[str, list[ObjectInfo]] = {}
        for info in await self._insist(lambda: _gathered(self.objects.list("jobdata/"))):
            groups.setdefault(info.key.split("/")[1], []).append(info)
        return groups

    async def _goes_on_behind(self, number: int) -> bool:
        return bool(await self._insist(lambda: self._numbers(number, 1)))

    async def _numbers(self, after: int, limit: int | None) -> list[int]:
        start = object_keys.record_key(*self.chain_id, after)
        found = await _gathered(self.objects.list(object_keys.chain_prefix(*self.chain_id), start, limit))
        return numbers_behind(self.chain_id, after, (info.key for info in found))

    async def _put(self, key: str, body: bytes) -> None:
        await self._insist(lambda: self.objects.put(key, body))

    async def _move(self, move: Move) -> None:
        try:
            await self._insist(lambda: self.objects.copy(move.source, move.target))
        except ObjectMissing:
            await self._verify(move)

    async def _verify(self, move: Move) -> None:
        """If a staged object is gone, it was moved before: its copy must have the record's digest (rule S3)."""
        try:
            body = await self._insist(lambda: self.objects.get(move.target))
        except ObjectMissing:
            raise ChainBroken(f"{move.source} is gone and was never moved to {move.target}") from None
        if await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest()) != move.sha256:
            raise ChainBroken(f"{move.target} is not the file that its record names")

    async def _insist(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of an idempotent call, repeated until the service gives one."""
        failures = 0
        while True:
            try:
                return await call()
            except (ServiceUnavailable, OutcomeUnknown) as exc:
                failures += 1
                pause_s = BACKOFF.pause_s(failures)
                RETRIES.labels(type(exc).__name__).inc()
                log.warning("trying again", error=str(exc), pause_s=pause_s, partition=self.chain_id.partition)
            await self._sleep(pause_s)


async def sweep(objects: ObjectStore, now_ms: int, sleep: Sleep = asyncio.sleep) -> dict[Leftover, int]:
    """Judge every transaction, of any partition, whose staged objects are all older than a day (rule S4).

    If another transaction has the number, the staged objects are deleted. If the transaction is committed, it is finished
    once more and then its staged objects are deleted. If it may still be committed, they stay; they also stay if its chain
    is broken, because the chain's owner will stop on it.

    Returns: verdict -> number of transactions.

    Guarantees: harmless beside running sinks and other sweeps.
    """
    verdicts: Counter[Leftover] = Counter()
    for txn, infos in (await ChainStore(objects, ChainId(0, 0), sleep).staged()).items():
        whose = staged_by(infos[0].key)
        if whose is None or max(info.last_modified_ms for info in infos) > now_ms - SWEEP_AGE_MS:
            continue
        try:
            verdict = await _sweep_one(ChainStore(objects, whose.chain_id, sleep), whose, [info.key for info in infos])
        except (ChainBroken, NewerFormat) as exc:
            log.error("staged objects of a chain that cannot be read stay", txn_id=txn, error=str(exc))
            verdict = Leftover.KEEP
        verdicts[verdict] += 1
        SWEPT.labels(verdict.value).inc(len(infos))
        log.info("staged objects swept", txn_id=txn, verdict=verdict.value, objects=len(infos))
    return dict(verdicts)


async def _sweep_one(chain: ChainStore, whose: StagedBy, staged_keys: list[str]) -> Leftover:
    holder = await chain.read(whose.number)
    verdict = judge_leftover(whose, holder)
    match verdict:
        case Leftover.FINISH:
            if holder is not None:
                await chain.finish(holder)
            await chain.clear(staged_keys)
        case Leftover.DELETE:
            await chain.clear(staged_keys)
        case Leftover.KEEP:
            pass
        case _:
            assert_never(verdict)
    return verdict


async def _gathered(infos: AsyncIterator[ObjectInfo]) -> list[ObjectInfo]:
    return [info async for info in infos]
