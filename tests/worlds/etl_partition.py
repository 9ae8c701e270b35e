"""An ETL partition's loop at work on a test's messages: its core is tiny, its log a list."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from agents.etl.partition import EtlPartition
from app.core.etl.step import StepDecision
from app.core.formats.source import SourceMessage
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import StepMessage, decode_step
from app.errors import StepConflict
from tests.worlds.inbox import Source
from tests.worlds.waiting import turns, until

TICK = b"tick"


class TinyCore:
    """Takes three messages a step; watermark messages alone may wait; answers `more` as often as a test wants."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], int, int, bool]] = []
        self.advanced: list[int] = []
        self.fails: Callable[[bool], None] = lambda careful: None
        self.letters: list[bytes] = []
        self.more = 0
        self.started = False
        self.next_source = 0

    @property
    def leftover(self) -> bool:
        return self.started and self.more > 0

    def take(self, waiting: Sequence[SourceMessage]) -> int:
        if self.leftover:
            return 0
        return min(3, len(waiting)) if any(m.value != TICK for m in waiting) else len(waiting)

    def decide(
        self, messages: Sequence[SourceMessage], number: int, predecessor: int, *, careful: bool = False
    ) -> StepDecision:
        self.asked.append(([m.offset for m in messages], number, predecessor, careful))
        self.fails(careful)
        pressing = not messages or any(m.value != TICK for m in messages)
        return self._decision(number, predecessor, self.next_source + len(messages) - 1, pressing=pressing)

    def declare_gap(self, first_available: int, number: int, predecessor: int) -> StepDecision:
        return self._decision(number, predecessor, first_available - 1, pressing=True, alarms=["gap"])

    def advance(self, step: StepMessage) -> None:
        self.advanced.append(step.number)
        self.next_source = step.source_last + 1
        self.more -= self.leftover
        self.started = True

    def _decision(
        self, number: int, predecessor: int, last: int, *, pressing: bool, alarms: list[str] | None = None
    ) -> StepDecision:
        step = StepMessage(1, 0, number, predecessor, self.next_source, last, 0, b"", {}, {}, [], [], [], alarms or [])
        return StepDecision(message=step, pressing=pressing, more=self.more > 0, letters=self.letters)


class MemoryJournal:
    """The ports of a partition: topic `rows` as a list, and a store that only counts."""

    def __init__(self, source: Source) -> None:
        self.state, self.clock = self, source.clock
        self.log: list[bytes] = []
        self.trace: list[str] = []
        self.accepted = Accepted()
        self.buried: list[bytes] = []
        self.refuses = self.dies_after_bury = False
        self._source = source

    def position(self, partition: int) -> "MemoryJournal":
        assert partition == self._source.inbox.partition
        return self

    async def send_dead_letters(self, _: int, letters: Sequence[bytes]) -> None:
        await asyncio.sleep(0)
        self.buried += letters
        self.trace.append("bury")
        if self.dies_after_bury:
            raise RuntimeError("dies")

    async def append(self, partition: int, message: bytes) -> int:
        assert partition == self._source.inbox.partition
        await asyncio.sleep(0)
        assert self._source.acked == [] or max(self._source.acked) < decode_step(message).source_first
        self.log.append(message)
        self.trace.append("append")
        return len(self.log) - 1

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        if self.refuses:
            raise StepConflict("somebody else wrote")
        self.trace.append("commit")
        self.accepted = self.accepted.advance(offset)

    def ranges(self) -> list[tuple[int, int]]:
        return [(step.source_first, step.source_last) for step in map(decode_step, self.log)]


class Partition:
    """An `EtlPartition` at work on the messages that a test puts into its source."""

    def __init__(self) -> None:
        self.source = Source()
        self.core = TinyCore()
        self.journal = MemoryJournal(self.source)
        self.etl = EtlPartition(self.core, self.source.inbox, self.journal)

    async def start(self) -> "asyncio.Future[None]":
        await self.source.inbox.start_at(0)
        return asyncio.ensure_future(self.etl.run())

    async def put(self, offsets: Sequence[int], value: bytes = b"block") -> None:
        for offset in offsets:
            await self.source.inbox.put(self.source.event(offset, value))

    async def until(self, condition: Callable[[], Any]) -> None:
        await until(condition)

    async def settle(self) -> None:
        await turns()
