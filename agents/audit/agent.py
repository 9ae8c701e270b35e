"""The audit: one worker, the owner of topic `audit`'s only partition, does one round after another (rules A1, A2).

Beside its rounds it writes the index of ids, from which `instream trace` finds an event, and the certificates of hours.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any, Final

from agents.audit.auditor import Auditor
from agents.audit.certifier import Certifier
from agents.audit.ports import open_ports
from agents.audit.trace.indexer import Indexer
from app.apps import audit as app
from app.shell.owned_loop import OwnedLoop
from app.topics import topics_of

topics: Final = topics_of(app.settings)
turns = app.source_topic(topics.audit.name, topics.audit.partitions)


@asynccontextmanager
async def open_auditor(_: list[int]) -> AsyncIterator[Auditor]:
    """The auditor of one turn."""
    async with open_ports(app.ports) as ports:
        with closing(Auditor(ports, app.settings)) as auditor:
            yield auditor


@asynccontextmanager
async def open_indexer(_: list[int]) -> AsyncIterator[Indexer]:
    """The indexer of one turn."""
    with closing(Indexer(app.ports.objects, app.ports.clock, app.settings)) as indexer:
        yield indexer


@asynccontextmanager
async def open_certifier(_: list[int]) -> AsyncIterator[Certifier]:
    """The certifier of one turn."""
    async with open_ports(app.ports) as ports:
        with closing(Certifier(ports, app.settings)) as certifier:
            yield certifier


rounds: Final = OwnedLoop(app, topics.audit, open_auditor, Auditor.run)
indexing: Final = OwnedLoop(app, topics.audit, open_indexer, Indexer.run)
certifying: Final = OwnedLoop(app, topics.audit, open_certifier, Certifier.run)
for loop in (rounds, indexing, certifying):  # apart, so that a long past without an index keeps no batch waiting
    app.when_assigned(loop.begin)
    app.when_leaving(loop.end)
app.ready_when(lambda: None if rounds.worker is None else rounds.worker.waits_for())
app.ready_when(lambda: None if indexing.worker is None else indexing.worker.waits_for())
app.ready_when(lambda: None if certifying.worker is None else certifying.worker.waits_for())


@app.agent(turns)  # type: ignore[untyped-decorator]
async def hold_the_turn(stream: Any) -> None:
    """Be a member of the group: the topic has no messages, and the owner of its partition audits."""
    async for event in stream.noack().events():
        event.ack()
