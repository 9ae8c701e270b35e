"""What is owned is worked on once, what is in hand when it goes may finish, and no failure goes unseen."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from faust.types import TP

from app.shell.owned_loop import OwnedLoop
from app.topics import TopicSpec

TOPIC = TopicSpec("owned", 4, {})


class Worker:
    """Works until it is stopped; what it has in hand then ends when the test says so."""

    def __init__(self, partitions: list[int]) -> None:
        self.partitions = partitions
        self.stopping = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.finished = self.closed = False
        self.fails_with: BaseException | None = None

    def stop(self) -> None:
        self.stopping.set()

    async def run(self) -> None:
        await self.stopping.wait()
        if self.fails_with is not None:
            raise self.fails_with
        await self.may_end.wait()
        self.finished = True


class Owner:
    """The process around a loop; every worker that it opened."""

    def __init__(self, *, stops: bool = True) -> None:
        self.crashes: list[BaseException] = []
        self.workers: list[Worker] = []
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.loop = OwnedLoop(self, TOPIC, self.open, Worker.run, Worker.stop if stops else None)

    @asynccontextmanager
    async def open(self, partitions: list[int]) -> AsyncIterator[Worker]:
        await self.may_open.wait()
        worker = Worker(partitions)
        self.workers.append(worker)
        try:
            yield worker
        finally:
            await worker.may_close.wait()
            worker.closed = True

    async def crash(self, reason: BaseException) -> None:
        self.crashes.append(reason)

    async def begin(self, *partitions: int) -> Worker:
        await self.loop.begin(owning(*partitions))
        await turns()
        return self.workers[-1]


def owning(*partitions: int) -> frozenset[TP]:
    return frozenset(TP(TOPIC.name, partition) for partition in partitions)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_it_works_on_the_partitions_of_its_topic_and_lets_go_of_them() -> None:
    owner = Owner()
    await owner.loop.begin(owning(3, 1) | {TP("another", 0), TP(TOPIC.name, 4)})
    await turns()
    [worker] = owner.workers
    assert worker.partitions == [1, 3]
    assert owner.loop.owned() == owning(1, 3)
    assert owner.loop.worker is worker
    await owner.loop.end()
    assert (worker.finished, worker.closed, owner.loop.worker, owner.loop.owned()) == (True, True, None, frozenset())
    assert not owner.crashes


async def test_without_partitions_nothing_is_opened() -> None:
    owner = Owner()
    await owner.loop.begin(frozenset({TP("another", 0)}))
    await turns()
    await owner.loop.end()
    await owner.loop.end()
    assert not owner.workers


async def test_what_is_in_hand_may_finish_before_the_end_returns() -> None:
    owner = Owner()
    worker = await owner.begin(0)
    worker.may_end.clear()
    ending = asyncio.ensure_future(owner.loop.end())
    await turns()
    assert (ending.done(), owner.loop.worker, owner.loop.owned()) == (False, None, frozenset())
    worker.may_end.set()
    await ending
    assert worker.finished
    assert worker.closed


async def test_who_waits_no_longer_cancels_what_does_not_finish() -> None:
    owner = Owner()
    worker = await owner.begin(0)
    worker.may_end.clear()
    ending = asyncio.ensure_future(owner.loop.end())
    await turns()
    ending.cancel()
    await turns()
    assert (worker.finished, worker.closed, owner.crashes) == (False, True, [])


async def test_a_loop_that_cannot_be_stopped_is_cancelled_and_closed_first() -> None:
    owner = Owner(stops=False)
    worker = await owner.begin(0)
    worker.may_close.clear()
    ending = asyncio.ensure_future(owner.loop.end())
    await turns()
    assert not ending.done(), "it still closes"
    worker.may_close.set()
    await ending
    assert (worker.stopping.is_set(), worker.finished, worker.closed, owner.crashes) == (False, False, True, [])


async def test_partitions_that_go_while_a_worker_is_opened_cancel_the_opening() -> None:
    owner = Owner()
    owner.may_open.clear()
    await owner.loop.begin(owning(0))
    await turns()
    assert owner.loop.worker is None
    await owner.loop.end()
    owner.may_open.set()
    await turns()
    assert (owner.workers, owner.crashes) == ([], [])


async def test_partitions_that_go_before_the_loop_has_begun_leave_nothing_behind() -> None:
    owner = Owner()
    gc.collect()  # what other tests left would warn below
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message=".*never awaited", category=RuntimeWarning)
        await owner.loop.begin(owning(0))
        await owner.loop.end()
        await turns()
        gc.collect()
    assert (owner.workers, owner.crashes, [str(warning.message) for warning in told]) == ([], [], [])


async def test_what_is_given_anew_waits_for_the_end_of_the_former_work() -> None:
    owner = Owner()
    first = await owner.begin(0, 1)
    first.may_end.clear()
    beginning = asyncio.ensure_future(owner.loop.begin(owning(1)))
    await turns()
    assert owner.workers == [first]
    first.may_end.set()
    await beginning
    await turns()
    assert [worker.partitions for worker in owner.workers] == [[0, 1], [1]]
    assert first.closed
    await owner.loop.end()


async def test_a_cancelled_loop_that_ends_late_leaves_its_successor_in_place() -> None:
    owner = Owner()
    first = await owner.begin(0)
    first.may_end.clear()
    first.may_close.clear()
    ending = asyncio.ensure_future(owner.loop.end())
    await turns()
    ending.cancel()
    await turns()
    second = await owner.begin(0)
    first.may_close.set()
    await turns()
    assert (first.closed, owner.loop.worker) == (True, second)
    await owner.loop.end()
    assert second.finished


class PanicError(BaseException):
    """As a panic in polars is."""


@pytest.mark.parametrize("failure", [RuntimeError("broken"), PanicError()])
async def test_a_failure_ends_the_process_and_closes_the_worker(failure: BaseException) -> None:
    owner = Owner()
    worker = await owner.begin(0)
    worker.fails_with = failure
    worker.stop()
    await turns()
    assert (owner.crashes, worker.closed, owner.loop.worker) == ([failure], True, None)
    await owner.loop.end()
    assert owner.crashes == [failure]


async def test_work_that_ends_although_its_partitions_are_owned_ends_the_process() -> None:
    """Nobody would look at them any more."""
    owner = Owner()
    worker = await owner.begin(0, 2)
    worker.stop()
    await turns()
    assert [str(crash) for crash in owner.crashes] == ["the work on owned [0, 2] ended although they are still owned"]
