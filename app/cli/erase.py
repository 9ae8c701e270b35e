"""`instream erase`: take a visitor out of the warehouse, the data files and the raw files."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.audit_deep import span_of
from app.cli.options import MomentMs, given, moment
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_answer
from app.progress import Bar, ProgressLines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.audit.deep.report import Show, Span
    from agents.audit.erase.ports import EraseReport
    from app.settings import Settings

TELL_EVERY_S = 10
SHOWN = 20
"""The answer in words names at most so many batches."""


async def run(
    settings: "Settings", visitor_ids: "Sequence[str]", span: "Span", *, apply: bool, show: "Show"
) -> "EraseReport":  # fmt: skip
    """An erasure on the real services.

    Raises:
        ServiceUnavailable: S3, the registry or the warehouse does not answer.
    """
    from agents.audit.deep.ports import open_ports  # noqa: PLC0415 - commands load what they need
    from agents.audit.erase.erase import ErasureRequest  # noqa: PLC0415
    from agents.audit.erase.erase import erase as carry_out  # noqa: PLC0415
    from agents.audit.erase.ports import ErasePorts  # noqa: PLC0415
    from app.adapters.warehouse import to_warehouse  # noqa: PLC0415

    async with open_ports(settings) as deep:
        ports = ErasePorts(deep, to_warehouse(settings))
        return await carry_out(ports, settings, ErasureRequest(visitor_ids, span), apply=apply, show=show)


def erase(
    visitors: Annotated[
        list[str], typer.Argument(metavar="VISITOR_ID...", help="Field visitor_id of the events.", parser=given)
    ],
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without it nothing is written.")] = False,
    since: Annotated[MomentMs | None, moment("Only batches from this time on, UTC.")] = None,
    until: Annotated[MomentMs | None, moment("... and up to this time.", ends=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which lines are those of a visitor; --apply erases them from the warehouse, the data files and the raw files.

    A line is the visitor's if it names the visitor, or has a page view id that such a line has. In the ledger its outcome
    becomes `erased`, so the books balance. Batches that the audit has not marked as complete wait: run it again. An erasure
    that died is finished by the next run. Every raw file of the span is read. Exit codes: 0 done, or a dry run that has
    nothing to wait for; 3 lines are on their way, or an erasure has not finished; 1 something cannot be erased until it is
    mended.
    """
    settings = settings_to_ask(*Asks)
    with Bar(ProgressLines(), "raw files are read", TELL_EVERY_S) as bar:
        report = asyncio.run(run(settings, visitors, span_of(since, until), apply=apply, show=bar))
    print_answer(report, lines_of, as_json=as_json)
    if code := exit_code_of(report):
        raise typer.Exit(code)


def exit_code_of(report: "EraseReport") -> Exit:
    """The command's exit code."""
    if report.refused:
        return Exit.FAILURE
    return Exit.INCOMPLETE if report.waiting or (report.resumed and not report.applied) else Exit.OK


def lines_of(report: "EraseReport") -> list[str]:
    """The answer in words."""
    done = "finished" if report.applied else "not finished: --apply goes on with it"
    said = [f"erasure {erasure_id} of an earlier run: {done}" for erasure_id in report.resumed]
    for batch_id, lines in list(report.lines.items())[:SHOWN]:
        said.append(f"batch {batch_id}: {lines} lines")
    if len(report.lines) > SHOWN:
        said.append(f"... and {len(report.lines) - SHOWN} more batches (--json names all)")
    said += [f"    {outcome}: {lines}" for outcome, lines in report.outcomes.items()]
    for word, some in (("waiting", report.waiting), ("NOT erased", report.refused)):
        for left in some:
            place = left.batch_id and f"batch {left.batch_id}, {left.lines} lines: "
            place = place or (left.txn_id and f"transaction {left.txn_id}: ")
            said.append(f"{word}: {place}{left.reason}")
    total = sum(report.lines.values())
    if not total:
        said.append("no line to erase" if not report.waiting else "no line can be erased yet")
    elif report.applied:
        said.append(f"{total} lines, {report.files} data files, {report.raw_files} raw files: erasure {report.erasure_id}")
    else:
        said.append(f"{total} lines, {report.files} data files, {report.raw_files} raw files would be erased: --apply")
    return said
