"""The repair of one partition of `rows`: damaged steps are decided again, and their replacements are stored (rule E2).

`app.core.repair.damage` decides; this file reads the log from its earliest offset and follows it with a store of its own.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from typing import Final, NamedTuple

import msgspec

from agents.sink.chain_store import ChainStore
from app.adapters.ports import LogScan, ObjectStore, PutResult
from app.core.enrich.enrich import Enricher
from app.core.etl.step import PartitionEtl
from app.core.formats.decoding import placed
from app.core.formats.object_keys import repair_key
from app.core.formats.source import SourceMessage
from app.core.formats.step_history import Accepted, StepVerdict
from app.core.formats.step_message import StepLog, StepMessage, decode_step, encode_step
from app.core.repair.damage import (
    damaged_between,
    decide_again,
    declares_gap,
    differences,
    prove,
    refuse_shared_out,
    source_range,
)
from app.core.repair.replacements import Replacements
from app.core.rules import EtlRules
from app.core.sink.chain import ChainId, chain_end_after
from app.errors import RepairRefused, StepGap, StepMessageInvalid
from tables.store.partition_store import PartitionStore

UNPROVEN: Final = (
    "several steps in a row are damaged, and the log ends before all their events are closed, so the steps behind them are "
    "no proof yet. If an etl worker still runs on this partition, try again in some minutes. If none does, stop every etl "
    "worker and say --etl-is-stopped"
)


class Foreign(msgspec.Struct, frozen=True):
    """A message that is no step, and was none: every reader passes it over, and nothing is to be done."""

    offset: int
    reason: str


class Repair(msgspec.Struct, frozen=True):
    """A damaged step, decided again."""

    offset: int
    number: int
    message: bytes
    proofs: int = 0
    """Number of steps behind it that were decided again and are those of the log."""


class Findings(msgspec.Struct):
    """The state of one partition's log."""

    partition: int
    foreign: list[Foreign]
    repairs: list[Repair]
    """Steps that can be replaced with certainty."""
    replaced: int
    """Number of steps that were replaced before."""
    refused: str | None = None
    """Why a damaged step, and everything behind it, cannot be repaired."""


class LogRepairPorts(NamedTuple):
    """The ports of a repair."""

    logs: LogScan
    rows: str
    blocks: str
    """Names of the two topics."""
    rules: EtlRules
    enricher: Enricher
    etl_is_stopped: bool = False
    """No owner goes on from the lost steps: other steps may replace them, if the log ends before all of them are proven."""


async def find_damage(
    ports: LogRepairPorts, partition: int, open_store: Callable[[], PartitionStore], replaced: Replacements
) -> Findings:
    """Find the damaged steps in the log of one partition, and decide them again.

    Args:
        ports: the logs, and what decides.
        partition: its number.
        open_store: makes a new, empty store for the state; closed here.
        replaced: the replacements that are stored already.

    Raises:
        NewerFormat: a newer version wrote a step.
        ServiceUnavailable: the brokers do not answer.
    """
    named: set[int] = set()
    while True:
        with closing(open_store()) as store:
            try:
                return await _Walk(ports, partition, store, replaced, named).find()
            except _NamedLater as exc:
                named.add(exc.offset)


class _NamedLater(Exception):
    """A step names an unreadable message in whose place another message was taken for the step: read the log again."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class _Walk:
    """Reads the log of one partition from its beginning; `named` are offsets of messages that are known to be damaged steps.

    The message of a zombie behind a damaged step has the same number and predecessor, and would count in its place. So it is
    passed over if a later step names the damaged one.
    """

    def __init__(
        self, ports: LogRepairPorts, partition: int, store: PartitionStore, replaced: Replacements, named: Collection[int]
    ) -> None:
        self._ports = ports
        self._partition = partition
        self._log = StepLog(ports.rows, partition, ports.rules.epoch)
        self._store = store
        self._replaced = replaced
        self._named = named
        self._unreadable: set[int] = set()
        self._trimmed = False
        self._core: PartitionEtl | None = None
        """Decides again what is behind a damaged step, until the proof is complete."""
        self._shown: tuple[int, int] | None = None
        """The source messages of the damaged steps that are not proven yet, first and last."""
        self._cut_anew = False
        """Whether some of these steps may be cut at other places than the lost ones."""
        self._unproven: list[Repair] = []
        self._between: list[Foreign] = []
        """Messages behind the last step that counts that are no steps."""
        self._found = Findings(partition, [], [], len(replaced))

    async def find(self) -> Findings:
        """Read the log to its end."""
        first, end = await self._ports.logs.bounds(self._ports.rows, self._partition)
        self._trimmed = first > 0
        try:
            async for logged in self._ports.logs.scan(self._ports.rows, self._partition, first, end):
                await self._look_at(self._replaced.at(logged.offset, logged.value), logged.offset)
            if self._cut_anew and not self._ports.etl_is_stopped:
                raise RepairRefused(UNPROVEN)
            self._note_proven()
        except (RepairRefused, StepGap) as exc:
            self._found.refused = str(exc)
        self._found.foreign += self._between
        return self._found

    async def _look_at(self, message: bytes | None, offset: int) -> None:
        try:
            with placed(f"{self._log}@{offset}"):
                step = decode_step(message, self._log)
        except StepMessageInvalid as exc:
            self._between.append(Foreign(offset, str(exc)))
            self._unreadable.add(offset)
            return
        if self._trimmed and self._store.empty:  # the store looks for the step at which its history begins
            self._store.follow(message, offset)
            return
        if any(step.predecessor < each.offset for each in self._between if each.offset in self._named):
            return  # of a zombie: a step behind a damaged one names it, or a later one
        verdict = self._accepted.judge(step.number, step.predecessor)
        if verdict is StepVerdict.GAP:
            await self._replace_before(step, offset)
            verdict = self._accepted.judge(step.number, step.predecessor)
        if verdict is not StepVerdict.ACCEPT:
            if step.predecessor in self._unreadable - set(self._named):
                raise _NamedLater(step.predecessor)
            return
        self._found.foreign += self._between
        self._between = []
        await self._accept(step, message, offset)

    @property
    def _accepted(self) -> Accepted:
        return self._store.position.accepted

    async def _accept(self, step: StepMessage, message: bytes | None, offset: int) -> None:
        """Follow a step of the log that counts; behind a damaged one, prove it first."""
        if self._core is not None:
            sources = [] if declares_gap(step) else await self._sources(step.source_first, step.source_last)
            prove(self._core, step, sources, self._accepted)
            self._unproven = [msgspec.structs.replace(each, proofs=each.proofs + 1) for each in self._unproven]
        self._follow(message, offset)
        if self._core is not None:
            self._core.advance(step)
            if self._shown is None or not self._core.holds_open(*self._shown):
                self._note_proven()

    def _follow(self, message: bytes | None, offset: int) -> None:
        if self._store.empty and not self._trimmed and offset > 0:
            self._store.follow(None, 0)  # nothing counts before it: the store need not look for its beginning
        self._store.follow(message, offset)
        if self._accepted.offset != offset:
            self._store.verify_read_to(offset + 1)  # raises if it holds what only a newer version knows
            raise RepairRefused(f"{self._log}@{offset}: the state cannot follow this step")

    def _note_proven(self) -> None:
        self._found.repairs += self._unproven
        self._unproven, self._core, self._shown, self._cut_anew = [], None, None, False

    async def _replace_before(self, step: StepMessage, offset: int) -> None:
        """Decide the damaged steps before `step` again, and follow them."""
        try:
            damaged = damaged_between(self._accepted, step, [each.offset for each in self._between], self._named)
            first, last = source_range(self._store.position.source_last, step)
            waiting = await self._sources(first, last)
        except RepairRefused as exc:
            raise RepairRefused(f"{self._log}@{offset}: {exc}") from exc
        self._between = [each for each in self._between if each.offset not in damaged]
        core = self._core or self._load()
        self._core = core
        self._shown = (first if self._shown is None else self._shown[0], last)
        self._cut_anew = self._cut_anew or (len(damaged) > 1 and bool(waiting))
        for behind, at in zip(reversed(range(len(damaged))), damaged, strict=True):
            decided = decide_again(core, waiting, self._accepted, behind)
            waiting = waiting[decided.took :]
            message = encode_step(decided.step)
            self._follow(message, at)
            core.advance(decided.step)
            self._unproven.append(Repair(at, decided.step.number, message))

    def _load(self) -> PartitionEtl:
        position, ports = self._store.position, self._ports
        return PartitionEtl.load(
            self._partition, ports.rules, ports.enricher, self._store, position.meta, position.source_last
        )

    async def _sources(self, first: int, last: int) -> Sequence[SourceMessage]:
        """The messages of `blocks` from `first` to `last`. Raises RepairRefused if retention has deleted some."""
        if last < first:
            return []
        logs, blocks = self._ports.logs, self._ports.blocks
        earliest, _ = await logs.bounds(blocks, self._partition)
        found = [
            SourceMessage(logged.offset, logged.timestamp_ms, logged.value)
            async for logged in logs.scan(blocks, self._partition, max(first, earliest), last + 1)
        ]
        if [message.offset for message in found] != list(range(first, last + 1)):
            raise RepairRefused(
                f"{blocks}[{self._partition}] begins at {earliest}, and offsets {first} to {last} are needed: they are gone "
                "by retention, so the step cannot be decided again. What remains: `instream sink accept-gap` for the sink, "
                "a higher INSTREAM_EPOCH for the etl; the audit names the batches whose lines are lost"
            )
        return found


async def verify_chain(objects: ObjectStore, chain_id: ChainId, found: Findings, replaced: Replacements) -> None:
    """See that the sink can go on with the repairs; if not, they are refused and `found` says so."""
    log = StepLog("rows", chain_id.partition, chain_id.epoch)
    known = {offset: message for offset, message in replaced.between(-1, 2**63)}
    every = Replacements(known | {each.offset: each.message for each in found.repairs}, log)
    try:
        refuse_shared_out(chain_end_after(await ChainStore(objects, chain_id).find_end()), every)
    except RepairRefused as exc:
        found.repairs, found.refused = [], str(exc)


async def store_repairs(objects: ObjectStore, chain_id: ChainId, repairs: Sequence[Repair]) -> None:
    """Store the replacements, in order of their offsets.

    A crash between two of them leaves the log with fewer damaged steps; the next run goes on from there. If another run has
    stored one, its replacement counts; only the columns of enrichment may differ.

    Raises:
        RepairRefused: another object lies at a replacement's key.
        ServiceUnavailable, OutcomeUnknown: S3 does not answer; run it again.
    """
    for each in repairs:
        key = repair_key(*chain_id, each.offset)
        if await objects.put_if_absent(key, each.message) is PutResult.CREATED:
            continue
        try:
            differs = differences(decode_step(await objects.get(key)), decode_step(each.message))
        except StepMessageInvalid as exc:
            differs = [str(exc)]
        if differs:
            raise RepairRefused(f"{key} exists and is another step; it differs in {', '.join(differs)}")
