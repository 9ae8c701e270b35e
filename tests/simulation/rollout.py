"""A rollout of the next version, and its way back: one process at a time, in the README's order or in a wrong one.

Up: `instream init`, then the readers before the writers. Down: the reverse, and behind each role the condition that nothing
newer is left for the readers that go back next. Conditions are asked of the stores, as an operator asks `instream`:

    collector   every batch that was open when the last newer collector was gone is complete: each of its lines is in the
                warehouse, so no event of it is in Kinesis, on `blocks` or in a window
    etl         the sinks have taken `rows` up to where it ended when the last newer ETL was gone
    sink        delivery has loaded every transaction that there was when the last newer sink was gone

"Gone" is so long after the process ended that none of its requests is on its way any more.
"""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from app.core.formats.object_keys import chain_prefix
from app.core.formats.registry_item import BatchState
from tests.simulation.strikes import Strikes

if TYPE_CHECKING:
    from tests.simulation.upgrade import UpgradeWorld

UP: Final = ("init", "delivery", "sink", "etl", "bridge", "audit", "collector")
DOWN: Final = ("collector", "audit", "bridge", "etl", "sink", "delivery")
OLDER, NEWER = "older", "newer"
GONE_S: Final = 40.0
"""A producer's late message comes up to 35 s after it was sent, a request up to 30 s."""
LOOK_S: Final = 0.5


class Rollout:
    """What a seed decides about the order and the moments."""

    def __init__(self, world: "UpgradeWorld") -> None:
        self._world = world
        self._strikes = Strikes(world)
        self._chance = random.Random(f"rollout-{world.seed}")
        self.up_in_order = self._chance.random() < 0.5
        self.down = self._chance.choice(["stay", "in order", "in order", "wrong"])
        self.done = False

    @property
    def in_order(self) -> bool:
        """Whether nothing of it goes against the documented order."""
        return self.up_in_order and self.down != "wrong"

    async def run(self) -> None:
        """Up, and what follows; in the end no reader is older than what it has before it."""
        await self._pause(6.0)
        await (self._roles_in_order(UP, NEWER) if self.up_in_order else self._in_any_order(UP, NEWER))
        await asyncio.sleep(self._chance.uniform(5.0, 25.0))
        if self.down == "in order":
            await self._roles_in_order(DOWN, OLDER)
        elif self.down == "wrong":
            await self._in_any_order(DOWN, OLDER)
            await self._pause(20.0)
            await self._roles_in_order(UP, NEWER)  # what waits there can only go on forward
        self._world.tell("rollout", "is done")
        self.done = True

    async def _roles_in_order(self, roles: tuple[str, ...], version: str) -> None:
        for role in roles:
            await self._pause(2.0)
            if role == "init":
                self._world.migrate()
                continue
            self._world.hold(role, version)
            for slot in self._world.slots(role):
                await self._pause(2.0)
                await self._replace(slot, version)
            await self._finish(role, version)
            if version == OLDER and role in self._drained:
                await self._drain(role)

    async def _in_any_order(self, roles: tuple[str, ...], version: str) -> None:
        items = [(role, slot) for role in roles if role != "init" for slot in self._world.slots(role)]
        items += [("init", "")] if "init" in roles else []
        self._chance.shuffle(items)
        for role in roles:
            if role != "init":
                self._world.hold(role, version)
        for role, slot in items:
            await self._pause(3.0)
            if role == "init":
                self._world.migrate()
            else:
                await self._replace(slot, version)
        for role in roles:
            if role != "init":
                await self._finish(role, version)

    async def _finish(self, role: str, version: str) -> None:
        """See that no process of the role is left behind: slots come and go meanwhile."""
        self._world.let_go(role)
        while left := [slot for slot in self._world.slots(role) if self._world.runs_other(slot, version)]:
            for slot in left:
                await self._replace(slot, version)
        self._world.tell("rollout", f"{role} is {version}")

    async def _replace(self, slot: str, version: str) -> None:
        """End a slot's process, in good order or not; its supervisor starts the other version."""
        world = self._world
        world.let_go(slot)
        process = world.processes.get(slot)
        if process is not None and process.alive and world.version_of_process(process.name) != version:
            world.tell("rollout", f"{process.name} is replaced: {version}")
            if self._chance.random() < 0.7:
                await self._strikes.terminate(process)
            else:
                process.die("is killed by the rollout")
        await self._until(lambda: not world.runs_other(slot, version))

    # --- the way back

    @property
    def _drained(self) -> dict[str, Callable[[], Callable[[], bool]]]:
        """Role -> what takes a snapshot of what it left, and then says whether its readers are through with that."""
        return {"collector": self._batches, "etl": self._rows, "sink": self._transactions}

    async def _drain(self, role: str) -> None:
        await asyncio.sleep(GONE_S)
        await self._until(self._drained[role]())
        self._world.tell("rollout", f"nothing newer of {role} is left")

    def _batches(self) -> Callable[[], bool]:
        items = self._world.registry._items
        waiting = [item.batch_id for item in items.values() if item.state is BatchState.OPEN]
        return lambda: all(items[batch_id].state is BatchState.COMPLETE for batch_id in waiting)

    def _rows(self) -> Callable[[], bool]:
        world, topic = self._world, self._world.topics.rows.name
        ends = {(topic, p): len(world.logs.messages.get((topic, p), [])) for p in range(world.settings.partitions)}
        return lambda: all((world.groups["sink"].state.committed(place) or 0) >= end for place, end in ends.items())

    def _transactions(self) -> Callable[[], bool]:
        world = self._world
        prefixes = {p: chain_prefix(1, p) for p in range(world.settings.partitions)}
        there = {p: sum(key.startswith(prefix) for key in world.objects._objects) for p, prefix in prefixes.items()}

        def loaded() -> bool:
            return all(
                max((row.number for row in world.warehouse.log if row.partition == p), default=0) >= count
                for p, count in there.items()
            )

        return loaded

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():  # noqa: ASYNC110 - it is asked of stores, as an operator asks
            await asyncio.sleep(LOOK_S)

    async def _pause(self, most_s: float) -> None:
        await asyncio.sleep(self._chance.uniform(0.1, most_s))
