"""A sink's transactions, a warehouse in memory, and deliverers that can die, stand still, or meet failures at any call."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from agents.delivery.deliverer import Deliverer
from agents.delivery.load import WarehouseLoad
from app.core.formats.flows import FLOWS
from app.settings import Settings
from app.testing.memory import MemoryLoadedLedger, MemorySession, MemoryWarehouse
from tests.worlds.sink import World

SETTINGS = Settings(partitions=1)
Act = Callable[[], Awaitable[None]]


class DeliveryProcess:
    """A deliverer whose calls to S3 and to the warehouse have two moments each: just before the call, and just after."""

    def __init__(self, world: "DeliveryWorld", seed: int = 1) -> None:
        process = world.sink.process()
        self._warehouse = world.warehouse
        self._sessions: list[MemorySession] = []
        self.moments = 0
        self.calls: list[str] = []
        """A name a moment."""
        self.at: dict[int, Act] = {}
        """The event of a moment."""
        process.store.before, process.store.after = self._before, self._after
        token = map(str, itertools.count()).__next__
        load = WarehouseLoad(process.store, self._connect, SETTINGS, world.sink.clock, lambda: f"{seed}-{token()}")
        self.deliverer = Deliverer(process.store, load, SETTINGS, world.sink.clock, random.Random(seed))

    async def _connect(self) -> MemorySession:
        await self._before("connect", "")
        session = await self._warehouse.connect()
        session.before, session.after = self._before, self._after
        self._sessions.append(session)
        await self._after("connect", "")
        return session

    async def _before(self, call: str, _: str) -> None:
        await self._moment(f"before {call}")

    async def _after(self, call: str, _: str) -> None:
        await self._moment(f"after {call}")

    async def _moment(self, name: str) -> None:
        self.moments += 1
        self.calls.append(name)
        if act := self.at.get(self.moments):
            await act()

    def buried(self) -> None:
        """The process is gone: the warehouse rolls its open transaction back."""
        for session in self._sessions:
            session.drop()

    async def deliver(self, rounds: int = 50) -> None:
        """Rounds until nothing is left to do."""
        for _ in range(rounds):
            report = await self.deliverer.round([0])
            if report.deferred is None and not report.loaded:
                return
        raise AssertionError(f"still something left after {rounds} rounds: {report}")


class DeliveryWorld:
    """The committed transactions of a sink, and their rows in the warehouse."""

    def __init__(self) -> None:
        self.sink = World()
        self.warehouse = MemoryWarehouse(self.sink.store, self.sink.clock)
        self.audit = MemoryLoadedLedger(self.warehouse)

    async def committed(self, transactions: int = 3) -> "DeliveryWorld":
        """Make this number of transactions ready in S3."""
        for number in range(transactions):
            self.sink.emit(page_views=2, ad_clicks=number % 2)
            self.sink.tick()
            await self.sink.drain(self.sink.sink())
        return self

    async def check(self) -> None:
        """Every transaction is loaded once, every row is there once, and the audit sees it."""
        records = self.sink.records()
        assert [(row.txn_id, row.number, row.status) for row in self.warehouse.log] == [
            (record.txn_id, record.number, "loaded") for record in records
        ]
        for flow in FLOWS:
            found = Counter(row["event_id"] for row in self.warehouse.rows(flow.name))
            assert found == self.sink.expected[flow.name], flow.name
        assert (await self.audit.delivery(1)).number(0) == len(records)
        for row in self.warehouse.log:
            loads = self.sink.keys(f"loads/{row.load_id}/")
            assert loads, "what was loaded has its manifests"
            urls = [entry["url"] for key in loads for entry in msgspec.json.decode(self.sink.body(key))["entries"]]
            assert len(urls) == len(set(urls))


async def settle(task: "asyncio.Task[None]", turns: int = 2000) -> None:
    """Run the event loop until `task` is done, or until nothing moves without a further event."""
    for _ in range(turns):
        if task.done():
            return
        await asyncio.sleep(0)
