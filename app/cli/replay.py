"""`instream replay`: send batches through the pipeline once more."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.options import MomentMs, given, moment, number
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json
from app.progress import Bar, ProgressLines

if TYPE_CHECKING:
    from agents.audit.replay import Chosen, ReplayReport, Terms
    from app.settings import Settings

NAMED: Final = 20
"""Most batches that a line names."""
MOST_LINES_PER_S: Final = 100_000_000


async def send_again(settings: "Settings", chosen: "Chosen", terms: "Terms", bar: Bar) -> "ReplayReport":
    """Cut batches again from their raw files and put them to Kinesis.

    If it is interrupted, a line says how to go on.
    """
    from agents.audit.ports import open_ports  # noqa: PLC0415 - commands load what they need
    from agents.audit.replay import replay as send  # noqa: PLC0415
    from app.shell.ports import Ports  # noqa: PLC0415

    last = ""

    def show(report: "ReplayReport", total: int) -> None:
        nonlocal last
        last = report.last
        bar(len(report.replayed) + len(report.held) + len(report.refused) + len(report.damaged), total)

    try:
        async with open_ports(Ports(settings)) as ports:
            return await send(ports, settings, chosen, terms, show)
    except BaseException:
        if last:
            ProgressLines()(f"batches up to {last} are done: --after {last} goes on behind it")
        raise


def replay(  # noqa: PLR0913, PLR0917 - the options of a command
    batch: Annotated[list[str] | None, typer.Argument(help="Batch ids, from the collector's answers.", parser=given)] = None,
    every: Annotated[bool, typer.Option("--all", help="Every registered batch.")] = False,
    since: Annotated[MomentMs | None, moment("Every batch received from this moment on.")] = None,
    until: Annotated[MomentMs | None, moment("... and up to this moment.", ends=True)] = None,
    after: Annotated[str | None, typer.Option(help="Go on behind this batch, where a replay ended.", parser=given)] = None,
    rate: Annotated[
        float | None, number("Most lines a second; as fast as it goes without it.", 0.1, MOST_LINES_PER_S)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; say what would be sent.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send whole batches once more, from their raw files: the pipeline drops the blocks that it has, and takes the others.

    Batches go in the order of their times. Returns when Kinesis has them. Exit codes: 0 all are sent, 3 Kinesis did not take
    some or a quarantined transaction holds them, 1 some are unknown, damaged or of another epoch.
    """
    from agents.audit.replay import Chosen, Terms  # noqa: PLC0415 - commands load what they need
    from app.core.formats.decoding import LATEST_MS  # noqa: PLC0415

    if (bool(batch), every, since is not None or until is not None).count(True) != 1:
        raise typer.BadParameter("name batches, or say --all, or a time range by --since and --until")
    settings = settings_to_ask(Asks.WAREHOUSE, Asks.AWS)
    until_ms = LATEST_MS if until is None else until
    chosen = Chosen(batch_ids=batch or None, since_ms=since or 0, until_ms=until_ms, after=after or "")
    with Bar(ProgressLines(), "batches are sent again") as bar:
        report = asyncio.run(send_again(settings, chosen, Terms(dry_run=dry_run, lines_per_s=rate), bar))
    if as_json:
        print_json(report)
    else:
        show_report(report)
    if report.unknown or report.damaged or report.other_epoch or report.unreadable:
        raise typer.Exit(Exit.FAILURE)
    if report.refused or report.held:
        raise typer.Exit(Exit.INCOMPLETE)


def show_report(report: "ReplayReport") -> None:
    """Print the result for people."""
    done = "would be sent again" if report.dry_run else "are sent again"
    print(f"{len(report.replayed)} batches ({report.blocks} blocks, {report.lines} lines) {done}")
    for what in ("refused", "unknown", "damaged", "other_epoch", "unreadable"):
        found = getattr(report, what)
        if found:
            print(f"{what}: {len(found)}: {', '.join(found[:NAMED])}{', ...' if len(found) > NAMED else ''}")
    for held in report.held:
        print(f"held: {held.batch_id}: `instream delivery release {held.txn_id}` loads its lines")
