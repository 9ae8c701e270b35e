"""What a role does when it is given partitions, and before it loses them, whatever runs it: Faust, or a simulation."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import structlog
from faust.types import TP

from app.shell.ports import Crashes

log = structlog.get_logger(__name__)

LEAVE_TIMEOUT_S: Final = 12.0
"""Longest time that what runs before partitions are lost gets; well below the group's rebalance timeout."""

AssignedHook = Callable[[frozenset[TP]], Awaitable[None]]
LeavingHook = Callable[[], Awaitable[None]]


class Member(Crashes, Protocol):
    """The member of a consumer group whose hooks these are."""

    def is_current(self, generation_id: int) -> bool:
        """Whether what was assigned in this generation of the group is still ours."""


class OwnershipHooks:
    """The hooks of one member, in the order in which they were added."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.assigned: list[AssignedHook] = []
        self.leaving: list[LeavingHook] = []
        self._lock = asyncio.Lock()

    async def run_assigned(self, assignment: frozenset[TP], generation_id: int) -> None:
        """Run the hooks of an assignment, as long as it is the current one; one that raises ends the process."""
        log.info("partitions assigned", generation=generation_id, partitions=by_topic(assignment))
        for hook in self.assigned:
            if not self._member.is_current(generation_id):
                return
            try:
                await hook(assignment)
            except Exception as exc:
                log.exception("assignment failed", hook=getattr(hook, "__qualname__", repr(hook)))
                await self._member.crash(exc)
                return

    async def leave(self, why: str) -> None:
        """Run every hook before partitions go, whatever the others do; one leave after the other.

        A stop may come while a revoke drains, and the other way round: whoever comes second must not go on, and take stores
        and partitions away, before the first is done.
        """
        async with self._lock:
            await self._run_leaving(why)

    async def _run_leaving(self, why: str) -> None:
        hooks = [asyncio.ensure_future(hook()) for hook in self.leaving]
        if not hooks:
            return
        done, pending = await asyncio.wait(hooks, timeout=LEAVE_TIMEOUT_S)
        for task in pending:
            log.error("a hook did not finish in time", why=why, timeout_s=LEAVE_TIMEOUT_S)
            task.cancel()
        for task in done:
            if (exc := task.exception()) is not None:
                log.error("a hook failed", why=why, error=repr(exc))
                await self._member.crash(exc)


def by_topic(partitions: Iterable[TP]) -> dict[str, list[int]]:
    """Topic -> its partitions, for logs."""
    grouped: dict[str, list[int]] = {}
    for tp in sorted(partitions):
        grouped.setdefault(tp.topic, []).append(tp.partition)
    return grouped
