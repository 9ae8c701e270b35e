"""The audit: one worker, the owner of topic `audit`'s only partition, goes round by round (rules A1, A2)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from agents.audit.auditor import Auditor
from agents.audit.ports import real_ports
from agents.audit.rounds import AuditRounds
from app.adapters.loaded_ledger import WarehouseLedger
from app.apps import audit as app
from app.crash.proxies import around
from app.topics import topics_of

topics: Final = topics_of(app.settings)
turns = app.source_topic(topics.audit.name, topics.audit.partitions)


@asynccontextmanager
async def open_auditor() -> AsyncIterator[Auditor]:
    """What the rounds of one turn are judged with; closes its warehouse behind them."""
    warehouse = around(app.ports.points, "ledger", WarehouseLedger(app.settings.warehouse_url))
    try:
        yield Auditor(real_ports(app.settings, app.ports, warehouse), app.settings)
    finally:
        await warehouse.close()


rounds: Final = AuditRounds(app, open_auditor)
app.when_assigned(rounds.begin)
app.when_leaving(rounds.end)
app.ready_when(rounds.waits_for)


@app.agent(turns)  # type: ignore[untyped-decorator]
async def hold_the_turn(stream: Any) -> None:
    """Be a member of the group: nobody writes to this topic, who owns its partition audits."""
    async for event in stream.noack().events():
        event.ack()
