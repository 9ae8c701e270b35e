"""`instream audit --deep`: compare everything that is stored twice."""

import asyncio
from typing import TYPE_CHECKING, Final

import typer

from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, print_answer
from app.progress import Bar, ProgressLines

if TYPE_CHECKING:
    from agents.audit.deep.report import DeepReport, Show, Span
    from app.settings import Settings

TELL_EVERY_S: Final = 10


async def look(settings: "Settings", span: "Span", show: "Show") -> "DeepReport":
    """Run the deep audit on the real services."""
    from agents.audit.deep.audit import audit_deep  # noqa: PLC0415 - commands load what they need
    from agents.audit.deep.ports import open_ports  # noqa: PLC0415

    async with open_ports(settings) as ports:
        return await audit_deep(ports, settings, span, show)


def span_of(since_ms: int | None, until_ms: int | None) -> "Span":
    """The span between two options; without them everything."""
    from agents.audit.deep.report import Span  # noqa: PLC0415

    everything = Span()
    return Span(
        everything.since_ms if since_ms is None else since_ms, everything.until_ms if until_ms is None else until_ms
    )  # fmt: skip


def run_deep(since_ms: int | None, until_ms: int | None, *, as_json: bool) -> None:
    """Run the command with its answer and exit code."""
    settings = settings_to_ask(*Asks)
    span = span_of(since_ms, until_ms)
    with Bar(ProgressLines(), "checks are done", TELL_EVERY_S) as bar:
        report = asyncio.run(look(settings, span, bar))
    print_answer(report, lines_of, as_json=as_json)
    if not report.is_clean:
        raise typer.Exit(Exit.INCOMPLETE)


def lines_of(report: "DeepReport") -> list[str]:
    """The answer in words."""
    from app.core.audit.differences import place_in_words  # noqa: PLC0415

    said = []
    for one in report.differences:
        said.append(f"{one.kind.value}: {place_in_words(one.batch_id, one.flow, one.lines, one.txn_id)}: {one.detail}")
    said += [f"not looked at: {what}" for what in report.unchecked]
    said += [f"never registered, so never acknowledged: {key}" for key in report.unregistered]
    said.append(
        f"{report.batches} batches, {report.raw_files} raw files, {report.transactions} transactions, {report.files} data "
        f"files, {report.rows} rows, {report.steps} steps looked at; late: {report.late_batches} batches, "
        f"{report.late_transactions} transactions"
    )
    said.append("no difference" if report.is_clean else f"{len(report.differences)} differences")
    return said
