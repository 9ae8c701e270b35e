"""`instream audit --since --until`: the states of batches, and their history; nothing is changed."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from app.cli.audit_deep import span_of
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, print_json

if TYPE_CHECKING:
    from agents.audit.deep.report import Span
    from agents.audit.states import AuditStates, BatchShown
    from app.settings import Settings


async def read(settings: "Settings", span: "Span") -> "AuditStates":
    """The states of a span's batches, on the real services."""
    from agents.audit.ports import open_ports  # noqa: PLC0415 - commands load what they need
    from agents.audit.states import read_states  # noqa: PLC0415
    from app.shell.ports import Ports  # noqa: PLC0415

    async with open_ports(Ports(settings)) as ports:
        return await read_states(ports, settings, span)


def run_states(since_ms: int | None, until_ms: int | None, *, as_json: bool) -> None:
    """Run the command with its answer and exit code."""
    states = asyncio.run(read(settings_to_ask(*Asks), span_of(since_ms, until_ms)))
    if as_json:
        print_json(states)
    else:
        for line in lines_of(states):
            print(line)
    if states.is_off:
        raise typer.Exit(Exit.INCOMPLETE)


def lines_of(states: "AuditStates") -> list[str]:
    """The answer in words."""
    said = [line for shown in states.shown for line in _lines_of_batch(shown)]
    if states.not_shown:
        said.append(f"and {states.not_shown:,} more batches")
    said += [f"unreadable: {reason}" for reason in states.unreadable]
    said.append(
        f"{states.batches:,} batches with {states.lines:,} lines: {states.complete:,} complete, {states.open:,} open; "
        f"sent again {states.attempts:,} times"
    )
    if states.open:
        told = [f"{count:,} {verdict}" for verdict, count in sorted(states.verdicts.items())]
        told += [f"{states.other_epoch:,} of another epoch"] if states.other_epoch else []
        said.append(f"open batches: {', '.join(told)}; {states.young:,} of them are younger than the grace")
    return said


def _lines_of_batch(shown: "BatchShown") -> list[str]:
    verdict = f"{shown.verdict.value}: {shown.reason}" if shown.reason else shown.verdict.value
    since = f" since {_clock(shown.completed_at_ms)}" if shown.completed_at_ms else ""
    what = f"{shown.lines} lines, {shown.state.value}{since}; {verdict}"
    said = [f"batch {shown.batch_id} of {_clock(shown.received_at_ms)}, {what}"]
    for each in shown.history:
        said.append(f"  attempt {each.number} at {_clock(each.at_ms)}, because {each.reason}; {each.result}")
    if shown.attempts > len(shown.history):
        said.append(f"  {shown.attempts - len(shown.history)} earlier attempts have no history")
    return said


def _clock(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
