"""One runbook, played: plant the fault, await the alert, look, mend, do, await its end, and check that it is over."""

import asyncio
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from tests.rig.runbooks.data_plants import OF_DATA
from tests.rig.runbooks.ground import Ground, Ran
from tests.rig.runbooks.pace import quick
from tests.rig.runbooks.plants import OF_PROCESSES, Plant
from tests.worlds.boards import Runbook
from tests.worlds.waiting import PAUSE_S, until

PLANTS: Final[Mapping[str, Plant]] = {**OF_PROCESSES, **OF_DATA}
NOT_PLANTED: Final = {
    "SlaBurns": "its windows are hours of traffic; promtool plays them",
    "LagGrows": "a lag that grows for minutes needs more load than a laptop bears; promtool plays it",
    "BlocksDropped": "a block is dropped after ten minutes of refusals",
    "ClockSkew": "the machine's clock belongs to everybody on it",
    "StepFails": "it needs a bug",
    "BooksUnbalanced": "the audit reads an hour's books once in ten minutes",
}
"""Alerts whose faults no drill plants, and the reason."""
BEFORE: Final = timedelta(minutes=1)
"""SINCE of a command lies so long before the fault: clocks differ, and some plants make old batches."""
EXPECTED: Final = frozenset({0, 1, 3})
"""Exit codes that tell of a fault; 2 is a wrong use, and anything else is a crash."""


class Played(msgspec.Struct, kw_only=True):
    """What a runbook did."""

    alert: str
    fired_s: float = 0
    """Seconds from the plant to the alert."""
    ended_s: float = 0
    """Seconds from the mending to the alert's end."""
    ran: list[tuple[str, int]] = []
    """Command lines with their exit codes."""
    faults: list[str] = []


async def play(ground: Ground, book: Runbook) -> Played:
    """Play one runbook against its planted fault; the result names whatever was not as the runbook says."""
    played = Played(alert=book.name)

    async def fires() -> bool:
        return await ground.fires(book.name)

    async def is_over() -> bool:
        return not await fires()

    since = datetime.now(UTC) - BEFORE
    began_s = time.monotonic()
    async with PLANTS[book.name](ground) as found:
        words = {"SINCE": f"{since:%Y-%m-%dT%H:%M:%S}", "EVENT_ID": ground.event_id, **found}
        await until(fires, PAUSE_S, lambda: "the alert does not fire")
        played.fired_s = round(time.monotonic() - began_s, 1)
        await _ask(ground, book.queries("What it means") + book.queries("What to look at"), played)
        await _run(ground, book.commands("What to look at"), words, played)
    began_s = time.monotonic()
    await _run(ground, book.commands("What to do"), words, played)
    await until(is_over, PAUSE_S, lambda: "the alert does not end")
    played.ended_s = round(time.monotonic() - began_s, 1)
    for ran in await _run(ground, book.commands("It is over when"), words, played):
        if ran.code != 0:
            played.faults.append(
                f"`{ran.line}` says that it is not over: {ran.code} {ran.output[-300:]} {ran.errors[-300:]}"
            )
    for query in book.queries("It is over when"):
        asked = partial(asyncio.to_thread, ground.prometheus.query, quick(query))
        await until(asked, PAUSE_S, partial(str, query))
    return played


async def _run(ground: Ground, lines: Sequence[str], words: Mapping[str, str], played: Played) -> list[Ran]:
    """Run command lines, with the operator's words in them."""
    done = []
    for line in lines:
        ran = await ground.run(line, [words.get(word, word) for word in shlex.split(line)[1:]])
        played.ran.append((line, ran.code))
        if ran.code not in EXPECTED or "Traceback" in ran.errors:
            played.faults.append(f"`{line}` ended with {ran.code}: {ran.errors[-500:]}")
        done.append(ran)
    return done


async def _ask(ground: Ground, queries: Sequence[str], played: Played) -> None:
    """Ask Prometheus, as it stands and with short windows; an expression that it refuses raises."""
    for query in queries:
        await asyncio.to_thread(ground.prometheus.query, query)
        await asyncio.to_thread(ground.prometheus.query, quick(query))
    played.ran += [(query, 0) for query in queries]
