"""`instream athena ddl | init | missing`: SQL over the files of the bucket, without the warehouse."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import msgspec
import typer

from agents.audit.lake import MissingBatch, find_missing, judge, lake_of, make_tables
from agents.audit.ports import open_ports
from agents.audit.report import AuditReport
from app.adapters.athena import Athena, SqlEngine
from app.adapters.registry_export import export_registry
from app.adapters.s3 import S3ObjectStore
from app.cli.options import MomentMs, given, moment
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json, print_table
from app.clock import SystemClock
from app.core.formats.athena import statements
from app.core.formats.decoding import LATEST_MS
from app.errors import ConfigurationError
from app.progress import ProgressLines
from app.settings import Settings
from app.shell.ports import Ports

app = typer.Typer(
    help="SQL over the files of the bucket: Athena's tables, and the batches that are missing.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip
SHOWN = 50
"""Most batches of the table; --json has all."""


class Missing(NamedTuple):
    """The answer of `missing`."""

    export: str
    batches: list[MissingBatch]
    audit: AuditReport | None


@app.callback()
def athena() -> None:
    """Read the bucket's files with SQL."""


@app.command("ddl")
def ddl() -> None:
    """Print the statements that make the tables in Hive or Athena: raw lines, flows, ledger, exports of the registry."""
    for statement in statements(lake_of(settings_to_ask(Asks.AWS))):
        print(f"{statement.sql};\n")


@app.command("init")
def init(as_json: JsonOption = False) -> None:
    """Make the tables and views in Athena; safe to repeat. The local stack needs no such step."""
    made = asyncio.run(_init(settings_to_ask(Asks.AWS)))
    if as_json:
        print_json({"made": made})
    else:
        print(f"{len(made)} tables and views are made: {', '.join(made)}")


@app.command("missing")
def missing(
    since: Annotated[MomentMs | None, moment("Only batches received from this moment on.")] = None,
    until: Annotated[MomentMs | None, moment("Only batches received up to this moment.", ends=True)] = None,
    export: Annotated[
        str | None, typer.Option(help="An earlier export of the registry; without it a new one is made.", parser=given)
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Let the audit judge these batches now: complete, or send again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List every batch that is missing or not completed, by the registry's export and the ledger's files in S3.

    The warehouse is not asked, so a batch in a quarantined transaction counts as covered and is `uncompleted`. Exit codes:
    0 no batch is missing, 3 some are, 1 a service does not answer.
    """
    settings = settings_to_ask(Asks.AWS, *([Asks.WAREHOUSE] if audit else []))
    found = asyncio.run(_missing(settings, since or 0, LATEST_MS if until is None else until, export, audit=audit))
    if as_json:
        print_json(msgspec.to_builtins(found._asdict()))
    else:
        show(found)
    if found.batches:
        raise typer.Exit(Exit.INCOMPLETE)


def show(found: Missing) -> None:
    """Print the answer for people."""
    if found.batches:
        rows = [
            (one.batch_id, one.finding, one.covered_lines, one.line_count, one.attempts, _clock(one.received_at_ms))
            for one in found.batches[:SHOWN]
        ]
        print_table("batches", ("batch", "finding", "covered", "lines", "attempts", "received"), rows)
    more = f"; the first {SHOWN} are shown" if len(found.batches) > SHOWN else ""
    print(f"{len(found.batches)} batches are missing or not completed{more} (export {found.export})")
    if found.audit is not None:
        judged = found.audit
        print(f"the audit completed {judged.completed}, sent {judged.replayed} again, and waits with {judged.waiting}")
        for reason in found.audit.waits_for:
            print(f"waits for {reason}")


def _clock(moment_ms: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime(form)


@asynccontextmanager
async def open_engine(settings: Settings, objects: S3ObjectStore) -> AsyncIterator[SqlEngine]:
    """Athena; on the local stack its stand-in, with the tables made.

    Raises:
        ConfigurationError: nothing says where Athena writes its results, and this is no local stack.
    """
    if settings.athena_output or settings.athena_workgroup:
        real = Athena(settings)
        try:
            yield real
        finally:
            real.close()
        return
    if "AWS_ENDPOINT_URL" not in os.environ:
        raise ConfigurationError("set INSTREAM_ATHENA_OUTPUT to s3://bucket/prefix/, or INSTREAM_ATHENA_WORKGROUP")
    from app.local.athena.engine import LocalAthena  # noqa: PLC0415 - of the extra `local`

    engine = LocalAthena(objects)
    await make_tables(engine, settings)
    yield engine


async def _init(settings: Settings) -> list[str]:
    objects = S3ObjectStore(settings)
    try:
        async with open_engine(settings, objects) as engine:
            return await make_tables(engine, settings)
    finally:
        await objects.close()


async def _missing(settings: Settings, since_ms: int, until_ms: int, export: str | None, *, audit: bool) -> Missing:
    say = ProgressLines()
    objects = S3ObjectStore(settings)
    try:
        if export is None:
            say("exporting the registry (on AWS this takes some minutes)")
            export = await export_registry(settings, objects, _clock(SystemClock().now_ms(), "%Y%m%dT%H%M%S%f"))
        async with open_engine(settings, objects) as engine:
            found = await find_missing(engine, settings, export, since_ms, until_ms)
        report = None
        if audit and found:
            async with open_ports(Ports(settings)) as ports:
                report = await judge(ports, settings, [one.batch_id for one in found])
        return Missing(export, found, report)
    finally:
        await objects.close()
