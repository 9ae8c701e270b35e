"""The loop that runs from assignment to revoke, under Faust or in a simulation.

`OwnedLoop` is one loop over all partitions of a topic that the process owns; `app.shell.runners` has a task for each. Both
follow two rules: an exception of the work ends the process, because otherwise it would go unseen (`crash_on_failure`); and
when partitions go, the work in hand may finish while the app waits (`finish`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Generic, TypeVar

import structlog
from faust.types import TP

from app.shell.ports import Crashes
from app.topics import TopicSpec

log = structlog.get_logger(__name__)

OwnedWorker = TypeVar("OwnedWorker")


class OwnedLoop(Generic[OwnedWorker]):
    """Works on the partitions of one topic for as long as they are owned.

    A worker is opened each time partitions are assigned, and closed when they are lost. `worker` is the running worker; it
    is None while the worker opens, and as soon as the partitions go.
    """

    def __init__(
        self,
        process: Crashes,
        topic: TopicSpec,
        open_worker: Callable[[list[int]], AbstractAsyncContextManager[OwnedWorker]],
        run: Callable[[OwnedWorker], Awaitable[None]],
        stop: Callable[[OwnedWorker], None] | None = None,
    ) -> None:
        """Own nothing yet.

        Args:
            process: it ends when opening or running raises.
            topic: the loop works on its partitions.
            open_worker: makes the worker for these partitions ready; the code after its `yield` runs when the work has
            ended. It is cancelled if the partitions are lost meanwhile.
            run: makes a worker work until `stop`.
            stop: makes `run` return once the work in hand is done; None if the work may be cancelled at any point.
        """
        self.worker: OwnedWorker | None = None
        self._process = process
        self._topic = topic
        self._open = open_worker
        self._run = run
        self._stop = stop
        self._task: asyncio.Task[None] | None = None
        self._owned: frozenset[TP] = frozenset()

    async def begin(self, assignment: frozenset[TP]) -> None:
        """Work on these partitions, once the work on earlier ones has ended."""
        await self.end()
        topic = self._topic
        self._owned = frozenset(tp for tp in assignment if tp.topic == topic.name and tp.partition < topic.partitions)
        if self._owned:
            work = partial(self._work, sorted(tp.partition for tp in self._owned))
            self._task = asyncio.ensure_future(crash_on_failure(self._process, work, topic=topic.name))

    async def end(self) -> None:
        """Give the partitions up; return when nothing works on them any more.

        A caller that stops waiting cancels this call; then unfinished work is cancelled too.
        """
        task, worker = self._task, self.worker
        self._task, self.worker, self._owned = None, None, frozenset()
        if task is None:
            return
        if worker is None or self._stop is None:
            task.cancel()
            await asyncio.wait([task])
        else:
            self._stop(worker)
            await finish([task])

    def owned(self) -> frozenset[TP]:
        """The partitions on which the loop works."""
        return self._owned

    async def _work(self, partitions: list[int]) -> None:
        async with self._open(partitions) as worker:
            self.worker = worker
            try:
                await self._run(worker)
                if self.worker is worker:
                    raise RuntimeError(f"the work on {self._topic.name} {partitions} ended although they are still owned")
            finally:
                if self.worker is worker:  # a loop that was cancelled may end after its successor began
                    self.worker = None


async def crash_on_failure(process: Crashes, work: Callable[[], Awaitable[None]], **where: object) -> None:
    """Do `work`; its exception ends the process. `where` names the failed work in the log."""
    try:
        await work()
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # a panic in polars is no Exception
        log.exception("work on owned partitions failed", **where)
        await process.crash(exc)


async def finish(tasks: Collection["asyncio.Task[None]"]) -> None:
    """Wait for tasks that are about to end; if this wait is cancelled, cancel them."""
    try:
        if tasks:
            await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
