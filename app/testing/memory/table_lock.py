"""The lock of one table, like PostgreSQL's and Redshift's: it lasts until the transaction ends, and waits are in order."""

import asyncio
from typing import Final, NamedTuple

from app.errors import WarehouseError

DEADLOCK: Final = "40P01"


class Waiter(NamedTuple):
    """A session that waits for a lock."""

    holder: object
    exclusive: bool
    given: "asyncio.Future[None]"


class TableLock:
    """Shared by sessions that read or write rows; exclusive for LOCK TABLE."""

    def __init__(self) -> None:
        self._shared: dict[object, None] = {}  # a dict keeps the order, a set does not
        self._exclusive: object | None = None
        self.waiting: list[Waiter] = []
        """Waiting sessions, the next one first."""

    def holds(self, holder: object) -> bool:
        """Whether `holder` has the lock exclusively."""
        return self._exclusive is holder

    async def acquire(self, holder: object, *, exclusive: bool) -> None:
        """Take the lock, or wait for it behind all waiting sessions.

        A session that shares the lock and now wants it alone goes to the front: no session behind could pass it anyway.

        Raises:
            WarehouseError: another sharing session waits to have it alone too (a deadlock), or `holder` is gone meanwhile.
        """
        if self._exclusive is holder or (not exclusive and holder in self._shared):
            return
        shares = holder in self._shared
        if self._free_for(holder, exclusive=exclusive) and (shares or not self.waiting):
            self._give(holder, exclusive=exclusive)
            return
        if shares and any(waiter.exclusive and waiter.holder in self._shared for waiter in self.waiting):
            raise WarehouseError(DEADLOCK, "deadlock detected")
        waiter = Waiter(holder, exclusive, asyncio.get_running_loop().create_future())
        self.waiting.insert(0 if shares else len(self.waiting), waiter)
        try:
            await waiter.given
        finally:
            if waiter in self.waiting:
                self.waiting.remove(waiter)
                self._go_on()

    def release(self, holder: object) -> None:
        """Give back the lock of `holder`, or its place in the queue."""
        self._shared.pop(holder, None)
        if self._exclusive is holder:
            self._exclusive = None
        for waiter in [waiter for waiter in self.waiting if waiter.holder is holder]:
            self.waiting.remove(waiter)
            if not waiter.given.done():
                waiter.given.set_exception(WarehouseError(None, "the connection is lost"))
        self._go_on()

    def _free_for(self, holder: object, *, exclusive: bool) -> bool:
        if self._exclusive is not None and self._exclusive is not holder:
            return False
        return not exclusive or all(other is holder for other in self._shared)

    def _give(self, holder: object, *, exclusive: bool) -> None:
        if exclusive:
            self._exclusive = holder
        else:
            self._shared[holder] = None

    def _go_on(self) -> None:
        """Give the lock to waiting sessions, in their order, while that is possible."""
        while self.waiting and self._free_for(self.waiting[0].holder, exclusive=self.waiting[0].exclusive):
            waiter = self.waiting.pop(0)
            if not waiter.given.done():
                self._give(waiter.holder, exclusive=waiter.exclusive)
                waiter.given.set_result(None)
