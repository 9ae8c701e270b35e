"""A partition's source without Kafka: messages, seeks and acknowledgements of one inbox."""

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from app.shell.inbox import Inbox


class StandingClock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


class Source:
    """Topic `blocks`, partition 0: the app around an inbox."""

    def __init__(self) -> None:
        self.clock = StandingClock()
        self.ports = SimpleNamespace(clock=self.clock)
        self.seeks: list[int] = []
        self.acked: list[int] = []
        self.inbox = Inbox(self, TP("blocks-e1", 0), depth=100)

    async def reposition(self, _: TP, offset: int) -> None:
        self.seeks.append(offset)

    def event(self, offset: int, value: bytes = b"") -> Any:
        message = SimpleNamespace(offset=offset, timestamp=self.clock.now_s, value=value, tp=self.inbox.tp)
        return SimpleNamespace(message=message, value=value, ack=lambda: self.acked.append(offset))

    async def put(self, *offsets: int) -> None:
        for offset in offsets:
            await self.inbox.put(self.event(offset))

    async def take(self) -> list[int]:
        return [event.message.offset for event in await self.inbox.take(timeout_s=0)]
