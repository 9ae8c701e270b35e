"""`instream rebuild` and `instream plan-rules`: raw files through the core once more, offline."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import OLDEST_S, MomentMs, given, moment, number, whole
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json, print_table
from app.progress import Bars, ProgressLines

if TYPE_CHECKING:
    from agents.audit.rebuild.report import RebuildComparison, RebuildReport
    from agents.audit.rebuild.run import RebuildPlan
    from app.core.enrich.enrich import DimensionRows
    from app.settings import Settings

MOST_NAMED = 100_000
LOOK_BACK_S = 3600
DIMENSIONS_WITHIN_S = 15
"""Kafka is asked so long for the tables of articles and campaigns."""
OF_ARTICLES = ("article_title", "author_id", "section", "campaign_name", "campaign_network")
"""The columns that come from these tables."""

Since = Annotated[MomentMs, moment("First moment in UTC, as 2026-11-28T14.")]
Until = Annotated[MomentMs | None, moment("Last moment; now if it is not given.", ends=True)]
LookBack = Annotated[
    float,
    number("Know the ids of so many seconds before: a copy of an older event is no duplicate.", 0, OLDEST_S),
]
Most = Annotated[int, whole("Name so many differences.", 0, MOST_NAMED)]


async def dimensions(settings: "Settings") -> "tuple[DimensionRows, DimensionRows] | None":
    """Articles and campaigns; None if Kafka does not answer."""
    from app.adapters.kafka import LogReader  # noqa: PLC0415 - commands load what they need
    from app.cli.repair_log import read_dimension  # noqa: PLC0415
    from app.errors import ServiceUnavailable  # noqa: PLC0415
    from app.topics import topics_of  # noqa: PLC0415

    topics = topics_of(settings)
    try:
        async with asyncio.timeout(DIMENSIONS_WITHIN_S), LogReader(settings) as logs:
            return await read_dimension(logs, topics.articles.name), await read_dimension(logs, topics.campaigns.name)
    except (ServiceUnavailable, TimeoutError):
        return None


async def run(settings: "Settings", plan: "RebuildPlan") -> "RebuildReport":
    """A rebuild on the real services.

    Raises: as `agents.audit.rebuild.run.rebuild`.
    """
    from functools import partial  # noqa: PLC0415

    from agents.audit.rebuild.run import RebuildPorts, rebuild  # noqa: PLC0415
    from app.adapters.enrichment import open_enricher  # noqa: PLC0415
    from app.adapters.registry import DynamoRegistry  # noqa: PLC0415
    from app.adapters.s3 import S3ObjectStore  # noqa: PLC0415
    from app.adapters.warehouse import connect  # noqa: PLC0415
    from app.adapters.warehouse_login import login_of  # noqa: PLC0415
    from app.clock import SystemClock  # noqa: PLC0415

    known = await dimensions(settings)
    if known is None:
        plan = plan._replace(not_compared=OF_ARTICLES)
    articles, campaigns = known or ({}, {})
    enricher = open_enricher(settings, articles, campaigns)
    store, registry = S3ObjectStore(settings), DynamoRegistry(settings)
    to_warehouse = partial(connect, settings.warehouse_url, login_of(settings))
    try:
        with Bars(ProgressLines()) as bars:
            return await rebuild(
                RebuildPorts(store, registry, to_warehouse, enricher, SystemClock()), settings, plan, bars.of
            )
    finally:
        await store.close()
        await registry.close()


def _plan(since: int, until: int | None, look_back: float, most: int) -> "RebuildPlan":
    from agents.audit.rebuild.run import RebuildPlan  # noqa: PLC0415
    from app.clock import SystemClock  # noqa: PLC0415
    from app.core.rebuild.span import BatchSpan  # noqa: PLC0415

    span = BatchSpan(since, SystemClock().now_ms() if until is None else until)
    if span.since_ms >= span.until_ms:
        raise typer.BadParameter("--since must be before --until")
    return RebuildPlan(span, look_back, most=most)


def rebuild(  # noqa: PLR0913, PLR0917 - the options of a command
    since: Since, until: Until = None,
    schema: Annotated[str | None, typer.Option(help="Load the rows into this schema; its rows of that time are replaced.",
                                               parser=given)] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Compare the rows with schema analytics.")] = False,
    look_back: LookBack = LOOK_BACK_S, most: Most = 20, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Run the raw files of a span of time through the ETL's core again, without Kafka, with this version's rules.

    Nothing of the pipeline changes. The span is that of the batches' ids, as in the raw files' keys. Exit codes: 0 done and
    nothing differs, 3 something differs, or a batch could not be rebuilt or compared, 1 failure.
    """
    if schema is None and not diff:
        raise typer.BadParameter("say --schema, --diff or both")
    settings = settings_to_ask(Asks.WAREHOUSE, Asks.AWS)
    plan = _plan(since, until, look_back, most)._replace(schema=schema, diff=diff)
    _answer(asyncio.run(run(settings, plan)), as_json=as_json)


def plan_rules(
    since: Since, until: Until = None, look_back: LookBack = LOOK_BACK_S, most: Most = 20, as_json: JsonOption = False
) -> None:
    """Show what this environment's bot list, networks and enrichment would have changed; no row is written anywhere.

    Set INSTREAM_BOT_AGENTS, INSTREAM_CRAWLER_NETWORKS or INSTREAM_GEO_DATABASE for this command before you give them to the
    ETL. Exit codes: 0 nothing would have changed, 3 something would, or a batch could not be compared, 1 failure.
    """
    settings = settings_to_ask(Asks.WAREHOUSE, Asks.AWS)
    _answer(asyncio.run(run(settings, _plan(since, until, look_back, most)._replace(diff=True))), as_json=as_json)


def _answer(report: "RebuildReport", *, as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        for line in lines_of(report):
            print(line)
        if report.difference is not None:
            _show(report.difference)
    if not report.is_whole:
        raise typer.Exit(Exit.INCOMPLETE)


def lines_of(report: "RebuildReport") -> list[str]:
    """The rebuild in words."""
    said = [f"{report.batches} batches with {report.lines} lines of {report.since} to {report.until}, {report.took_s} s"]
    said += ["  ".join(f"{outcome} {lines}" for outcome, lines in sorted(report.outcomes.items()))]
    if report.without_outcome:
        said.append(f"{report.without_outcome} lines have no outcome: their events lie outside of the raw files")
    said += [f"left out, never acknowledged: {key}" for key in report.unregistered]
    said += [f"left out, not the registered file: {key}" for key in report.damaged]
    if report.schema is not None:
        said.append(f"schema {report.schema} has {report.loaded} rows of it")
    return said


def _show(found: "RebuildComparison") -> None:
    print(f"{found.compared} batches are compared with schema analytics" + ("; nothing differs" if found.is_equal else ""))
    if found.not_compared:
        print(f"not compared, Kafka does not answer: {', '.join(found.not_compared)}")
    if found.uncovered:
        print(f"{found.uncovered} batches are not complete in the ledger: {', '.join(found.named_uncovered)}")
    if found.moved:
        print_table("lines with another outcome", ("now", "then", "lines", "first"), [
            (each.before, each.after, each.lines, ", ".join(f"{batch} {line}" for batch, line in each.first[:1]))
            for each in found.moved
        ])  # fmt: skip
    if found.flows:
        print_table("rows", ("flow", "missing", "extra", "doubled", "changed", "columns"), [
            (flow, each.missing, each.extra, each.doubled, each.changed,
             ", ".join(f"{name} {rows}" for name, rows in sorted(each.columns.items())))
            for flow, each in found.flows.items()
        ])  # fmt: skip
    for each in found.first:
        values = "; ".join(f"{name}: {before!r} -> {after!r}" for name, (before, after) in each.columns.items())
        print(f"{each.kind} {each.flow} {each.batch_id} {each.line}" + (f": {values}" if values else ""))
