"""The rounds of an audit process between owning the turn and losing it, whatever runs it (rules A1, A2)."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog
from faust.types import TP

from agents.audit.auditor import Auditor
from app.shell.role_process import RoleProcess
from app.topics import topics_of

log = structlog.get_logger(__name__)


class AuditRounds:
    """Round by round, AUDIT_INTERVAL_S between them, while topic `audit`'s only partition is owned."""

    def __init__(self, process: RoleProcess, open_auditor: Callable[[], AbstractAsyncContextManager[Auditor]]) -> None:
        self._process = process
        self._open_auditor = open_auditor
        self._turn = TP(topics_of(process.settings).audit.name, 0)
        self._task: asyncio.Task[None] | None = None
        self._auditor: Auditor | None = None

    def waits_for(self) -> str | None:
        """What /ready answers."""
        return None if self._auditor is None else self._auditor.waits_for()

    async def begin(self, assignment: frozenset[TP]) -> None:
        """Go round by round if the turn is ours."""
        await self.end()
        if self._turn in assignment:
            self._task = asyncio.ensure_future(self._go())

    async def end(self) -> None:
        """Stop where it is: what a round did stays right, what it did not do the next one does."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._auditor = None

    async def _go(self) -> None:
        try:
            async with self._open_auditor() as self._auditor:
                while True:
                    await self._auditor.round()
                    await asyncio.sleep(self._process.settings.audit_interval_s)
        except Exception as exc:
            log.exception("audit failed")
            await self._process.crash(exc)
        finally:
            if self._auditor is not None:
                self._auditor.close()
