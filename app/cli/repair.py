"""`instream repair`: mend what the deep audit finds."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.audit_deep import span_of
from app.cli.options import MomentMs, moment
from app.cli.rebuild import dimensions
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_answer
from app.progress import Bar, ProgressLines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agents.audit.deep.report import Show, Span
    from agents.audit.repair.report import RepairReport
    from app.settings import Settings

TELL_EVERY_S = 10


async def run(settings: "Settings", span: "Span", *, apply: bool, show: "Show") -> "RepairReport":
    """A repair on the real services.

    Raises:
        ServiceUnavailable: S3, the registry or the warehouse does not answer.
    """
    from agents.audit.deep.ports import open_ports  # noqa: PLC0415 - commands load what they need
    from agents.audit.repair.ports import RepairPorts  # noqa: PLC0415
    from agents.audit.repair.repair import repair as mend  # noqa: PLC0415
    from app.adapters.enrichment import open_enricher  # noqa: PLC0415
    from app.adapters.kinesis import KinesisBlockStream  # noqa: PLC0415
    from app.adapters.known_events import WarehouseEvents  # noqa: PLC0415
    from app.adapters.warehouse import to_warehouse  # noqa: PLC0415
    from app.adapters.warehouse_login import login_of  # noqa: PLC0415

    async def replace_steps(partition: int) -> "Mapping[int, str]":
        from app.cli.repair_log import repair_all  # noqa: PLC0415

        (found,) = await repair_all(settings, [partition], apply=True, etl_is_stopped=False)
        return {} if found.refused is None else {-1: found.refused}

    articles, campaigns = (await dimensions(settings) if apply else None) or ({}, {})
    enricher = open_enricher(settings, articles, campaigns)
    stream, events = KinesisBlockStream(settings), WarehouseEvents(settings.warehouse_url, login_of(settings))
    try:
        async with open_ports(settings) as deep:
            ports = RepairPorts(deep, to_warehouse(settings), stream, enricher, events, replace_steps)
            return await mend(ports, settings, span, apply=apply, show=show)
    finally:
        await stream.close()
        await events.close()


def repair(
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without it nothing is written.")] = False,
    since: Annotated[MomentMs | None, moment("Only what was received or committed from this time on, UTC.")] = None,
    until: Annotated[MomentMs | None, moment("... and up to this time.", ends=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Find what is lost, doubled or damaged, as `audit --deep` does, and say how each difference is mended; --apply does it.

    Each copy is made again from its source, which proves it: rows from their files, files from topic `rows`, manifests and
    delivery_log from commit records, registry items from raw files. Safe beside the running pipeline, beside another repair,
    and to run twice. Exit codes: 0 nothing is damaged, or all of it is mended; 3 damage was found and --apply is missing, or
    something could not be looked at; 1 some of it is not mended.
    """
    settings = settings_to_ask(*Asks)
    with Bar(ProgressLines(), "checks are done", TELL_EVERY_S) as bar:
        report = asyncio.run(run(settings, span_of(since, until), apply=apply, show=bar))
    print_answer(report, lines_of, as_json=as_json)
    if code := exit_code_of(report):
        raise typer.Exit(code)


def exit_code_of(report: "RepairReport") -> Exit:
    """The command's exit code."""
    if report.applied and (report.left or any(not each.done for each in report.differences)):
        return Exit.FAILURE
    return Exit.INCOMPLETE if report.unchecked or (report.differences and not report.applied) else Exit.OK


def lines_of(report: "RepairReport") -> list[str]:
    """The answer in words."""
    from app.core.audit.differences import place_in_words  # noqa: PLC0415
    from app.core.repair.plan import MEANINGS  # noqa: PLC0415

    said = []
    for each in report.differences:
        place = place_in_words(each.batch_id, each.flow, each.lines, each.txn_id)
        told = f"{each.action.value}: {MEANINGS[each.action]}"
        if report.applied:
            told = f"{each.action.value}: done" if each.done else f"{each.action.value}: NOT done: {each.reason}"
        said += [f"{each.kind.value}: {place}: {each.detail}", f"    {told}"]
    said += [f"not looked at: {what}" for what in report.unchecked]
    done = sum(each.done for each in report.differences)
    if not report.differences:
        said.append("nothing is damaged" if not report.unchecked else "no damage was found in what was looked at")
    elif report.applied:
        said.append(f"{done} of {len(report.differences)} differences are mended")
    else:
        said.append(f"{len(report.differences)} differences can be mended: --apply")
    return said
