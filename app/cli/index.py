"""`instream index`: check and complete the index of ids, from which `instream trace` finds an event."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import MomentMs, moment
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json
from app.progress import Bar, ProgressLines

if TYPE_CHECKING:
    from agents.audit.trace.indexer import IndexReport
    from app.settings import Settings


async def complete(settings: "Settings", since_ms: int | None, until_ms: int | None) -> "IndexReport":
    """Check and complete the index of all hours between two moments.

    Raises:
        OutsideError: S3 does not answer.
    """
    from agents.audit.trace.hours import FIRST_HOUR, LAST_HOUR  # noqa: PLC0415 - commands load what they need
    from agents.audit.trace.indexer import Indexer  # noqa: PLC0415
    from app.adapters.s3 import S3ObjectStore  # noqa: PLC0415
    from app.clock import SystemClock  # noqa: PLC0415
    from app.core.formats.object_keys import hour_path  # noqa: PLC0415

    first = FIRST_HOUR if since_ms is None else hour_path(since_ms)
    last = LAST_HOUR if until_ms is None else hour_path(until_ms - 1)
    store = S3ObjectStore(settings)
    try:
        with Bar(ProgressLines(), "hours are indexed") as bar:
            return await Indexer(store, SystemClock(), settings).index_all(first, last, bar)
    finally:
        await store.close()


def index(
    since: Annotated[MomentMs | None, moment("First hour [default: that of the first raw file].")] = None,
    until: Annotated[MomentMs | None, moment("Behind the last hour [default: now].", ends=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Index the raw files that have no index yet, and make damaged parts of the index again.

    The audit's worker indexes raw files while they come; this command is for a long past, and for a damaged index. It may
    be stopped and started again. Exit codes: 0 every raw file is indexed, 1 some cannot be read.
    """
    report = asyncio.run(complete(settings_to_ask(Asks.AWS), since, until))
    if as_json:
        print_json(report)
    else:
        print(
            f"{report.batches:,} batches ({report.lines:,} lines) of {report.hours:,} hours are indexed now, "
            f"{report.damaged} damaged segments are made again, {report.settled} hours are settled"
        )
        for reason in report.unreadable:
            print(f"unreadable: {reason}")
    if report.unreadable:
        raise typer.Exit(Exit.FAILURE)
