"""The hooks of a role: run when it gets partitions and before it loses them, under Faust or in a simulation."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import structlog
from faust.types import TP

from app.shell.ports import Crashes

log = structlog.get_logger(__name__)

LEAVE_TIMEOUT_S: Final = 12.0
"""Longest time for the hooks that run before partitions are lost; well below the group's rebalance timeout."""

AssignedHook = Callable[[frozenset[TP]], Awaitable[None]]
LeavingHook = Callable[[], Awaitable[None]]


class Member(Crashes, Protocol):
    """The member of a consumer group that has these hooks."""

    def is_current(self, generation_id: int) -> bool:
        """Whether this member still owns the partitions of this generation of the group."""


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
        """Run every hook before partitions go, even if another one fails; one leave after the other.

        A stop may come while a revoke drains, or a revoke during a stop. The second one must wait until the first is done,
        because it takes stores and partitions away.
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
