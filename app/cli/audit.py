"""`instream audit`: one round of the audit, now; or a look at batches that changes nothing."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from app.cli.audit_deep import run_deep
from app.cli.audit_states import run_states
from app.cli.options import OLDEST_S, MomentMs, moment, number
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json

if TYPE_CHECKING:
    from agents.audit.report import AuditReport
    from app.settings import Settings


async def run_round(settings: "Settings", grace_s: float | None) -> "AuditReport":
    """Judge every open batch older than the grace once, and send again what is missing."""
    from agents.audit.auditor import Auditor  # noqa: PLC0415
    from agents.audit.ports import open_ports  # noqa: PLC0415 - commands load what they need
    from app.shell.ports import Ports  # noqa: PLC0415

    async with open_ports(Ports(settings)) as ports:
        return await Auditor(ports, settings).round(grace_s)


def audit(
    grace: Annotated[
        float | None, number("Judge batches older than this many seconds [default: AUDIT_GRACE_S, 300].", 0, OLDEST_S)
    ] = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Compare all that is stored twice, and name each difference; changes nothing."),
    ] = False,
    since: Annotated[MomentMs | None, moment("Only batches and transactions from this moment on.")] = None,
    until: Annotated[MomentMs | None, moment("Only batches and transactions up to this moment.", ends=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the registry with the warehouse's ledger once: complete what is covered, send again what is missing.

    The audit's worker does the same every minute. Exit codes: 0 none of the batches judged is open, 3 some are (they wait,
    were sent again or are held), 1 an alarm: lines are lost, damaged, or in the ledger more than once.

    With --since or --until: show the batches received in that time, how many are in which state, and the history of each
    that is open or was sent again: when, why, and what came of it. Nothing is changed. Exit codes: 0 all are complete or
    younger than the grace, 3 some are not.

    With --deep: compare raw files, registry, ledger, transactions, data files, manifests, topic `rows` and every row of the
    warehouse, and name each difference by batch, line and flow. What is only late is no difference. Exit codes: 0 nothing
    differs, 3 something does, or could not be looked at.
    """
    is_look = deep or since is not None or until is not None
    if is_look and grace is not None:
        raise typer.BadParameter("--grace is for a round of the audit: leave out --deep, --since and --until")
    if is_look:
        (run_deep if deep else run_states)(since, until, as_json=as_json)
        return
    settings = settings_to_ask(*Asks)
    report = asyncio.run(run_round(settings, grace))
    if as_json:
        print_json(report)
    else:
        counts = {name: value for name, value in msgspec.structs.asdict(report).items() if isinstance(value, int)}
        print("  ".join(f"{name} {value}" for name, value in counts.items()))
        if not report.judged and not report.waits_for:
            age_s = settings.audit_grace_s if grace is None else grace
            print(f"no open batch is older than {age_s:g} s" + (" (--grace 0 judges every open batch)" if age_s else ""))
        for reason in report.waits_for:
            print(f"waits for {reason}")
        for reason in report.unreadable:
            print(f"unreadable: {reason}")
        for finding, batches in report.named.items():
            print(f"{finding}: {', '.join(batches)}")
    if report.alarms:
        raise typer.Exit(Exit.FAILURE)
    if report.still_open:
        raise typer.Exit(Exit.INCOMPLETE)
