"""The audit: one worker, the owner of topic `audit`'s only partition, does one round after another (rules A1, A2)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from agents.audit.auditor import Auditor
from agents.audit.ports import open_ports
from app.apps import audit as app
from app.shell.owned_loop import OwnedLoop
from app.topics import topics_of

topics: Final = topics_of(app.settings)
turns = app.source_topic(topics.audit.name, topics.audit.partitions)


@asynccontextmanager
async def open_auditor(_: list[int]) -> AsyncIterator[Auditor]:
    """The auditor of one turn."""
    async with open_ports(app.ports) as ports:
        auditor = Auditor(ports, app.settings)
        try:
            yield auditor
        finally:
            auditor.close()


rounds: Final = OwnedLoop(app, topics.audit, open_auditor, Auditor.run)
app.when_assigned(rounds.begin)
app.when_leaving(rounds.end)
app.ready_when(lambda: None if rounds.worker is None else rounds.worker.waits_for())


@app.agent(turns)  # type: ignore[untyped-decorator]
async def hold_the_turn(stream: Any) -> None:
    """Be a member of the group: the topic has no messages, and the owner of its partition audits."""
    async for event in stream.noack().events():
        event.ack()
