"""The audit: one worker, the owner of topic `audit`'s only partition, goes round by round (rules A1, A2)."""

import asyncio
from typing import Any, Final

import structlog
from faust.types import TP

from agents.audit_ports import real_ports
from agents.auditor import Auditor
from app.adapters.loaded_ledger import WarehouseLedger
from app.apps import audit as app
from app.crash.proxies import around
from app.topics import topics_of

log = structlog.get_logger(__name__)

topics: Final = topics_of(app.settings)
turns = app.source_topic(topics.audit.name, topics.audit.partitions)


class Rounds:
    """The rounds of this process, from owning the partition to losing it."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def begin(self, assignment: frozenset[Any]) -> None:
        """Go round by round if the partition is ours."""
        await self.end()
        if TP(topics.audit.name, 0) in assignment:
            self._task = asyncio.ensure_future(self._go())

    async def end(self) -> None:
        """Stop where it is: what a round did stays right, what it did not do the next one does."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _go(self) -> None:
        warehouse = around(app.ports.points, "ledger", WarehouseLedger(app.settings.warehouse_url))
        try:
            auditor = Auditor(real_ports(app.settings, app.ports, warehouse), app.settings)
            while True:
                await auditor.round()
                await asyncio.sleep(app.settings.audit_interval_s)
        except Exception as exc:
            log.exception("audit failed")
            await app.crash(exc)
        finally:
            await warehouse.close()


rounds: Final = Rounds()
app.when_assigned(rounds.begin)
app.when_leaving(rounds.end)


@app.agent(turns)  # type: ignore[untyped-decorator]
async def hold_the_turn(stream: Any) -> None:
    """Be a member of the group: nobody writes to this topic, who owns its partition audits."""
    async for event in stream.noack().events():
        event.ack()
