"""Prometheus over the shared stack: it takes every query of boards and runbooks, and two runbooks end their faults.

`make runbook-drill` plants the faults of the other runbooks.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.local.boards.__main__ import BOARDS
from app.local.boards.prometheus import RULES, Prometheus, prometheus
from app.settings import read_settings
from tests.e2e.live_stack import LiveStack
from tests.rig.chaos.services import Services
from tests.rig.runbooks.ground import EVERY_S, Ground
from tests.rig.runbooks.pace import quick, write_quick_rules
from tests.rig.runbooks.play import play
from tests.worlds.boards import RUNBOOKS, names_in, read_runbook
from tests.worlds.waiting import PAUSE_S, until

pytestmark = pytest.mark.stack
BOOKS = {file.stem: read_runbook(file) for file in RUNBOOKS}
HEALTHY = (
    "RoleDown", "RoleMissing", "RoleWaits", "BridgeStands", "StreamTimeStands", "SinkStands", "DeliveryDefers",
    "StorageFault", "KinesisRefuses", "ClockSkew", "WriteKeysFault", "WaitsForUpgrade",
)  # fmt: skip
"""Their ends hold on a stack where all is well, whatever other tests did to it before."""
PLAYED = ("RoleDown", "DeliveryDefers")
"""Their faults do not touch each other, so they are there at the same time. Nothing of them stays."""
ON_EVERY_PAGE = {"Ready", "CPU", "Memory", "Open files", "Code"}


@pytest.fixture
async def ground(stack: LiveStack, tmp_path: Path) -> AsyncIterator[Ground]:
    rules = tmp_path / "rules"
    rules.mkdir()
    write_quick_rules(RULES, rules)
    services = Services(stack.stack)
    try:
        with prometheus(tmp_path, stack.stack.metrics, EVERY_S, rules) as running:
            yield Ground(lambda: stack.stack, read_settings(), running, services, tmp_path)
    finally:
        await services.close()


def unanswered(running: Prometheus) -> list[str]:
    """The panels that every page of a role has, and that show nothing."""
    return [
        f"{board.title}: {panel.title}"
        for board in BOARDS
        for section in board.sections
        for panel in section.panels
        if panel.title in ON_EVERY_PAGE
        and not any(running.query(query.expr.replace("$__rate_interval", "8s")) for query in panel.queries)
    ]


def metric_of(series: str) -> str:
    return re.sub(r"_(?:bucket|count|sum|total|created|info)$", "", series)


async def test_boards_and_runbooks_on_a_running_stack(ground: Ground) -> None:
    running = ground.prometheus
    await until(lambda: asyncio.to_thread(lambda: not unanswered(running)), PAUSE_S)
    shown = [
        query.expr for board in BOARDS for section in board.sections for panel in section.panels for query in panel.queries
    ]
    for expr in [*shown, *(query for book in BOOKS.values() for query in book.queries())]:
        running.query(quick(expr.replace("$__rate_interval", "5m")))  # raises if Prometheus refuses it

    scraped = {series["metric"]["__name__"] for series in running.query('{__name__=~"instream_.+"}')}
    asked = {name for expr in shown for name in names_in(expr)}
    assert scraped
    assert {metric_of(name) for name in scraped} <= {metric_of(name) for name in asked}, "a role exports what no page shows"

    for name in HEALTHY:
        for query in BOOKS[name].queries("It is over when"):
            await until(
                lambda query=query: asyncio.to_thread(running.query, quick(query)), PAUSE_S, lambda query=query: query
            )

    for played in await asyncio.gather(*(play(ground, BOOKS[name]) for name in PLAYED)):
        assert played.faults == []
        assert played.ran
