"""A worker's app and agents without Kafka: sent messages are kept and answered here, and tests call Faust's part by hand."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from faust.types import TP
from faust.types.tuples import RecordMetadata

from app import apps, worker
from app.shell import hooks
from app.shell.faust_app import InstreamApp
from app.testing.memory import MemoryLogs
from tests.worlds.waiting import HANGS_S, until


class MemoryProducer:
    """Replaces Faust's producer: messages go to logs in memory, and the broker's answer comes when a test allows it."""

    def __init__(self) -> None:
        self.logs = MemoryLogs()
        self.silent: set[str] = set()
        """Topics whose messages are kept and not answered, until `answer`."""
        self._waiting: list[tuple[asyncio.Future[Any], RecordMetadata]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def sent(self, topic: str, partition: int) -> list[bytes]:
        return self.logs.messages.get((topic, partition), [])

    def answer(self) -> None:
        """Answer all waiting messages, and new ones at once."""
        self.silent.clear()
        while self._waiting:
            future, stored = self._waiting.pop()
            future.set_result(stored)

    # --- called by Faust

    async def maybe_start(self) -> None:
        """Do nothing: the topic exists."""

    async def send(self, topic: str, key: Any, value: bytes, partition: int, *_: Any, **__: Any) -> asyncio.Future[Any]:
        log = self.logs.messages.setdefault((topic, partition), [])
        log.append(value)
        stored = RecordMetadata(topic, partition, TP(topic, partition), len(log) - 1)
        future = asyncio.get_running_loop().create_future()
        if topic in self.silent:
            self._waiting.append((future, stored))
        else:
            future.set_result(stored)
        return future

    def send_soon(self, message: Any) -> None:
        task = asyncio.ensure_future(message.message.channel.publish_message(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Member:
    """A worker's process in its group: it gets and loses partitions; its crashes are noted."""

    def __init__(self, role: str) -> None:
        self.app = cast(InstreamApp, getattr(worker, role))  # as `faust -A app.worker:<role>` gets it
        self.module: Any = sys.modules[f"agents.{role}.agent"]
        self.producer = MemoryProducer()
        self.crashes: list[BaseException] = []
        self.seeks: list[tuple[TP, int]] = []
        self.app.producer = self.producer  # type: ignore[assignment]
        self.app.crash = self._crash  # type: ignore[method-assign]
        self.app.reposition = self._reposition  # type: ignore[method-assign]
        self.app.logs = self._logs  # type: ignore[method-assign]

    async def assign(self, topic: str, *partitions: int) -> None:
        """The app's part once partitions are owned and tables recovered."""
        self.app._waiting_for = None
        assignment = frozenset(TP(topic, partition) for partition in partitions)
        await self.app.hooks.run_assigned(assignment, self.app.consumer_generation_id)

    async def revoke(self) -> None:
        """The app's part before partitions go."""
        leaving = asyncio.ensure_future(self.app.hooks.leave("revoke"))
        await until(leaving.done)
        leaving.result()

    async def _crash(self, reason: BaseException) -> None:
        self.crashes.append(reason)

    async def _reposition(self, tp: TP, offset: int) -> None:
        self.seeks.append((tp, offset))

    async def _logs(self) -> Any:
        return self.producer.logs


@contextmanager
def new_member(role: str, home: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Iterator[Member]:
    """A role's app and agents, imported anew with these settings in the environment and dropped again."""
    for name, value in {"home": home, **settings}.items():
        monkeypatch.setenv(f"INSTREAM_{name.upper()}", str(value))
    monkeypatch.setattr(hooks, "LEAVE_TIMEOUT_S", 2 * HANGS_S)  # so that a hanging hook is seen
    monkeypatch.delitem(apps._built, role, raising=False)
    monkeypatch.delitem(sys.modules, f"agents.{role}.agent", raising=False)
    try:
        yield Member(role)
    finally:
        apps._built.pop(role, None)
        sys.modules.pop(f"agents.{role}.agent", None)
