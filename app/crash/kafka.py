"""Faust's Kafka driver with the points around what it asks of the broker: sends, polls, commits, the bounds of recovery."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from app.core.formats import checkpoint
from app.core.formats.block import End, decode_control, is_control
from app.core.formats.checkpoint import Barrier
from app.crash.catalogue import AFTER, BEFORE
from app.crash.points import CrashPoints
from app.settings import Settings
from app.shell import transport
from app.topics import topics_of

Kind = Callable[[bytes], str]
"""What a message of a topic is, by its value."""


def kind_on_blocks(value: bytes) -> str:
    """`block`, `tick` or `end`."""
    if not is_control(value):
        return "block"
    return "end" if isinstance(decode_control(value), End) else "tick"


def kind_on_checkpoints(value: bytes) -> str:
    """`barrier`, `checkpoint` or `finished`."""
    message = checkpoint.decode(value)
    if isinstance(message, Barrier):
        return "barrier"
    return "finished" if message.finished else "checkpoint"


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


class CrashingProducer(transport.Producer):
    """Passes a point before it gives a message to the client, and one when the broker has acknowledged it.

    The second is passed before whoever waits for the acknowledgement goes on.
    """

    points: CrashPoints
    kinds: Mapping[str, Kind]

    async def send(self, topic: str, key: Any, value: Any, *args: Any, **more: Any) -> Awaitable[Any]:
        """Send, between the points of the message's kind."""
        kind = self.kinds.get(topic)
        call = f"kafka.send.{topic if kind is None else kind(value)}"
        self.points.reach(call, BEFORE)
        stored: Any = await super().send(topic, key, value, *args, **more)

        def acknowledged(done: Any) -> None:
            if not done.cancelled() and done.exception() is None:
                self.points.reach(call, AFTER)

        stored.add_done_callback(acknowledged)
        return stored  # type: ignore[no-any-return]


class CrashingConsumerThread(transport.ConsumerThread):
    """Passes the points of commits and of the questions that recovery asks."""

    points: CrashPoints

    async def _commit(self, offsets: Any) -> bool:
        self.points.reach("kafka.commit", BEFORE)
        is_done: bool = await super()._commit(offsets)
        self.points.reach("kafka.commit", AFTER)
        return is_done

    async def earliest_offsets(self, *partitions: Any) -> Any:
        """Ask where logs begin."""
        return await self._asked("kafka.earliest", super().earliest_offsets(*partitions))

    async def highwaters(self, *partitions: Any) -> Any:
        """Ask where logs end."""
        return await self._asked("kafka.highwaters", super().highwaters(*partitions))

    async def _asked(self, call: str, answer: Awaitable[Any]) -> Any:
        self.points.reach(call, BEFORE)
        found = await answer
        self.points.reach(call, AFTER)
        return found


class CrashingConsumer(transport.Consumer):
    """Passes the points of polls."""

    points: CrashPoints

    def _new_consumer_thread(self) -> CrashingConsumerThread:
        thread = CrashingConsumerThread(self, loop=self.loop, beacon=self.beacon)
        thread.points = self.points
        return thread

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:  # noqa: ASYNC109
        self.points.reach("kafka.poll", BEFORE)
        found = await super()._getmany(active_partitions, timeout)
        self.points.reach("kafka.poll", AFTER)
        return found


def transport_with(points: CrashPoints, settings: Settings) -> type[transport.Transport]:
    """The driver that makes producers and consumers that pass the points."""
    producer = type("CrashingProducer", (CrashingProducer,), {"points": points, "kinds": kinds_of(settings)})
    consumer = type("CrashingConsumer", (CrashingConsumer,), {"points": points})
    return type("Transport", (transport.Transport,), {"CrashingProducer": producer, "CrashingConsumer": consumer})
