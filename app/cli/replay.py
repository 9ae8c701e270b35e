"""`instream replay`: send batches through the pipeline once more."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.options import given
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from agents.audit.replay import ReplayReport
    from app.settings import Settings

NAMED: Final = 20
"""Most batches that a line names."""


async def send_again(settings: "Settings", batch_ids: "Collection[str] | None") -> "ReplayReport":
    """Cut batches again from their raw files and put them to Kinesis; None for all of this epoch."""
    from agents.audit.ports import open_ports  # noqa: PLC0415 - commands load what they need
    from agents.audit.replay import replay as send  # noqa: PLC0415
    from app.shell.ports import Ports  # noqa: PLC0415

    async with open_ports(Ports(settings)) as ports:
        return await send(ports, settings, batch_ids)


def replay(
    batch: Annotated[list[str] | None, typer.Argument(help="Batch ids, from the collector's answers.", parser=given)] = None,
    every: Annotated[bool, typer.Option("--all", help="Every registered batch.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send whole batches once more, from their raw files: the pipeline drops the blocks that it has, and takes the others.

    Returns when Kinesis has them. Exit codes: 0 all are sent, 3 Kinesis did not take some or a quarantined transaction holds
    them, 1 some are unknown, damaged or of another epoch.
    """
    if bool(batch) == every:
        raise typer.BadParameter("name batches, or say --all")
    settings = settings_to_ask(Asks.WAREHOUSE, Asks.AWS)
    report = asyncio.run(send_again(settings, None if every else batch))
    if as_json:
        print_json(report)
    else:
        print(f"{len(report.replayed)} batches ({report.blocks} blocks) are sent again")
        for what in ("refused", "unknown", "damaged", "other_epoch", "unreadable"):
            found = getattr(report, what)
            if found:
                print(f"{what}: {len(found)}: {', '.join(found[:NAMED])}{', ...' if len(found) > NAMED else ''}")
        for held in report.held:
            print(f"held: {held.batch_id}: `instream delivery release {held.txn_id}` loads its lines")
    if report.unknown or report.damaged or report.other_epoch or report.unreadable:
        raise typer.Exit(Exit.FAILURE)
    if report.refused or report.held:
        raise typer.Exit(Exit.INCOMPLETE)
