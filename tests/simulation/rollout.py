"""A rollout of the next version, and its way back: one process at a time, in the README's order or in a wrong one.

Up: `instream init`, then the readers before the writers. Down: the reverse, and behind collector, etl and sink what the
README says: a minute passes, so that no request of the newer processes is on its way any more; then `instream wait` answers
when every batch registered so far is in the warehouse, line by line. Hence no newer event, row or file is before the readers
that go back next, because each was made of lines of such a batch.
"""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from app.core.audit.reconcile import coverage
from tests.simulation.strikes import Strikes

if TYPE_CHECKING:
    from tests.simulation.upgrade import UpgradeWorld

UP: Final = ("init", "delivery", "sink", "etl", "bridge", "audit", "collector")
DOWN: Final = ("collector", "audit", "bridge", "etl", "sink", "delivery")
WAITED_BEHIND: Final = ("collector", "etl", "sink")
OLDER, NEWER = "older", "newer"
GONE_S: Final = 60.0
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
        await asyncio.sleep(self._chance.uniform(10.0, 25.0))  # by then rows are on their way at every stage
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
            if version == OLDER and role in WAITED_BEHIND:
                await self._wait()

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

    async def _wait(self) -> None:
        """What an operator does behind a writer before its reader goes back."""
        await asyncio.sleep(GONE_S)
        items = self._world.registry._items
        waiting = {batch_id: items[batch_id].line_count for batch_id in items}

        def covered() -> bool:
            entries = self._world.ledger_of(waiting)
            for batch_id in [b for b, lines in waiting.items() if not coverage(lines, entries.get(b, [])).missing]:
                del waiting[batch_id]
            return not waiting

        await self._until(covered)
        self._world.tell("rollout", "every batch is in the warehouse")

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():  # noqa: ASYNC110 - it is asked of stores, as an operator asks
            await asyncio.sleep(LOOK_S)

    async def _pause(self, most_s: float) -> None:
        await asyncio.sleep(self._chance.uniform(0.1, most_s))
