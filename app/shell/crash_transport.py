"""Faust's Kafka driver with crash points around its calls to the broker: sends, polls, commits, the bounds of recovery."""

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, assert_never

from app.core.formats import checkpoint
from app.core.formats.block import End, WatermarkMessage, decode_control, is_control
from app.core.formats.checkpoint import Barrier, Checkpoint
from app.crash.catalogue import AFTER, BEFORE
from app.crash.points import CrashPoints
from app.settings import Settings
from app.shell import transport
from app.topics import topics_of

Kind = Callable[[bytes], str]
"""The kind of a message of a topic, by its value."""


def kind_on_blocks(value: bytes) -> str:
    """`block`, `tick` or `end`."""
    if not is_control(value):
        return "block"
    message = decode_control(value)
    match message:
        case End():
            return "end"
        case WatermarkMessage():
            return "tick"
        case _:
            assert_never(message)


def kind_on_checkpoints(value: bytes) -> str:
    """`barrier`, `checkpoint` or `finished`."""
    message = checkpoint.decode(value)
    match message:
        case Barrier():
            return "barrier"
        case Checkpoint():
            return "finished" if message.finished else "checkpoint"
        case _:
            assert_never(message)


def kinds_of(settings: Settings) -> Mapping[str, Kind]:
    """Topic -> the kind of its messages, for every topic that a role writes to."""
    topics = topics_of(settings)
    return {
        topics.blocks.name: kind_on_blocks,
        topics.checkpoints.name: kind_on_checkpoints,
        topics.checkpoints_table.name: lambda _: "changelog",
        topics.rows.name: lambda _: "rows",
        topics.dead_letters.name: lambda _: "dead_letter",
        topics.manifests.name: lambda _: "manifests",
    }


class CrashProducer(transport.Producer):
    """Passes one point before it gives a message to the client, and another when the broker has acknowledged it.

    The second is passed before the code that waits for the acknowledgement goes on.
    """

    @cached_property
    def _points(self) -> CrashPoints:
        return points_of(self.app)

    @cached_property
    def _kinds(self) -> Mapping[str, Kind]:
        app: Any = self.app  # ours
        return kinds_of(app.settings)

    async def send(self, topic: str, key: Any, value: Any, *args: Any, **more: Any) -> Awaitable[Any]:
        """Send, between the points of the message's kind."""
        kind = self._kinds.get(topic)
        call = f"kafka.send.{topic if kind is None else kind(value)}"
        self._points.reach(call, BEFORE)
        stored: Any = await super().send(topic, key, value, *args, **more)

        def acknowledged(done: Any) -> None:
            if not done.cancelled() and done.exception() is None:
                self._points.reach(call, AFTER)

        stored.add_done_callback(acknowledged)
        return stored  # type: ignore[no-any-return]


class CrashConsumerThread(transport.ConsumerThread):
    """Passes the points of commits and of the questions that recovery asks."""

    @cached_property
    def _points(self) -> CrashPoints:
        return points_of(self.app)

    async def _commit(self, offsets: Any) -> bool:
        self._points.reach("kafka.commit", BEFORE)
        is_done: bool = await super()._commit(offsets)
        self._points.reach("kafka.commit", AFTER)
        return is_done

    async def earliest_offsets(self, *partitions: Any) -> Any:
        """Read the offsets at which logs begin."""
        return await self._asked("kafka.earliest", super().earliest_offsets(*partitions))

    async def highwaters(self, *partitions: Any) -> Any:
        """Read the offsets at which logs end."""
        return await self._asked("kafka.highwaters", super().highwaters(*partitions))

    async def _asked(self, call: str, answer: Awaitable[Any]) -> Any:
        self._points.reach(call, BEFORE)
        found = await answer
        self._points.reach(call, AFTER)
        return found


class CrashConsumer(transport.Consumer):
    """Passes the points of polls."""

    @cached_property
    def _points(self) -> CrashPoints:
        return points_of(self.app)

    def _new_consumer_thread(self) -> CrashConsumerThread:
        return CrashConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109
        self._points.reach("kafka.poll", BEFORE)
        found = await super()._getmany(active_partitions, timeout)
        self._points.reach("kafka.poll", AFTER)
        return found


class CrashTransport(transport.Transport):
    """A driver; its producers and consumers pass the points of their app."""

    Producer = CrashProducer
    Consumer = CrashConsumer


def points_of(app: Any) -> CrashPoints:
    """The crash points of an app that has them turned on."""
    points: CrashPoints = app.ports.points
    return points
