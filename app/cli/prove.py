"""`instream prove`: the proof of a batch, or of all batches of an hour."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.options import MomentMs, given, moment
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json
from app.progress import Bar, ProgressLines

if TYPE_CHECKING:
    from agents.audit.deep.ports import DeepPorts
    from agents.audit.prove.hour import HourProof
    from agents.audit.prove.prover import Prover
    from app.core.audit.proof import Proof
    from app.settings import Settings

TELL_EVERY_S: Final = 10
HOUR_MS: Final = 3_600_000


async def _open(settings: "Settings", stack: AsyncExitStack) -> "tuple[DeepPorts, Prover]":
    """The services; if Kafka does not answer, what is not loaded cannot be placed."""
    from agents.audit.deep.ports import open_ports  # noqa: PLC0415 - commands load what they need
    from agents.audit.prove.prover import Prover  # noqa: PLC0415
    from agents.audit.stages.stages import open_stages  # noqa: PLC0415
    from app.errors import ServiceUnavailable  # noqa: PLC0415

    ports = await stack.enter_async_context(open_ports(settings))
    try:
        stages = await stack.enter_async_context(open_stages(settings))
    except ServiceUnavailable:
        stages = None
    return ports, Prover(ports, stages, settings)


async def prove_batch(settings: "Settings", batch_id: str) -> "Proof":
    """The proof of one batch, on the real services."""
    async with AsyncExitStack() as stack:
        _, prover = await _open(settings, stack)
        (proof,) = await prover.of([batch_id], find_offsets=True)
        return proof


async def prove_all(settings: "Settings", hour_ms: int, bar: Bar) -> "HourProof":
    """The proof of an hour, on the real services."""
    from agents.audit.prove.hour import prove_hour  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        ports, prover = await _open(settings, stack)
        return await prove_hour(ports, prover, hour_ms, settings.certificate_key, bar)


def prove(
    batch: Annotated[
        str | None, typer.Argument(metavar="BATCH", help="Batch id, from the collector's answer.", parser=given)
    ] = None,
    hour: Annotated[MomentMs | None, moment("All batches of this hour, UTC, like 2026-11-28T03.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that every line of a batch is in the warehouse once: from the registry to the rows, link by link.

    The answer is PROVEN, WAITING (lines are on their way, and it says for what they wait) or BROKEN (it names the link and
    the lines). With --hour all batches of the hour are proven, and the answer has the hour's certificate: lines in = rows by
    flow + joined + duplicates + rejected. Exit codes: 0 PROVEN, 3 WAITING, 1 BROKEN.
    """
    from app.core.formats.registry_item import is_batch_id  # noqa: PLC0415

    if (batch is None) == (hour is None):
        raise typer.BadParameter("name a batch, or an hour with --hour")
    if batch is not None and not is_batch_id(batch):
        raise typer.BadParameter(f"{batch} is no batch id: a batch id has the form 01a1ee56-5e00-7f00-b0c4-2e7df4eee3a3")
    if hour is not None and hour % HOUR_MS:
        raise typer.BadParameter("--hour takes a whole hour, like 2026-11-28T03")
    settings = settings_to_ask(*Asks)
    if batch is not None:
        answer: Proof | HourProof = asyncio.run(prove_batch(settings, batch))
    else:
        with Bar(ProgressLines(), "batches are looked at", TELL_EVERY_S) as bar:
            answer = asyncio.run(prove_all(settings, hour or 0, bar))
    if as_json:
        print_json(answer)
    else:
        print("\n".join(lines_of(answer)))
    if code := _CODES[answer.verdict.value]:
        raise typer.Exit(code)


def lines_of(answer: "Proof | HourProof") -> list[str]:
    """The answer in words."""
    from app.core.audit.proof import Proof  # noqa: PLC0415

    return lines_of_batch(answer) if isinstance(answer, Proof) else lines_of_hour(answer)


_CODES: Final = {"PROVEN": Exit.OK, "WAITING": Exit.INCOMPLETE, "BROKEN": Exit.FAILURE}


def lines_of_batch(proof: "Proof") -> list[str]:
    """The answer for one batch in words."""
    from app.core.audit.differences import in_ranges  # noqa: PLC0415

    marks = {True: "ok", False: "BROKEN"}
    said = [f"batch {proof.batch_id}: {proof.lines} lines"]
    for link in proof.links:
        said.append(f"  {link.name.value:<13} {'waits' if link.waits else marks[link.ok]:<7} {link.detail}")
    if proof.lines_broken:
        said.append(f"lines broken: {in_ranges(proof.lines_broken)}")
    until = f" until stream time {_clock(proof.until_ms)}" if proof.until_ms is not None else ""
    said.append(proof.verdict.value + (f" for {proof.waits_for}{until}" if proof.waits_for else ""))
    return said


def lines_of_hour(proven: "HourProof") -> list[str]:
    """The answer for an hour in words."""
    made = proven.certificate
    said = [line for proof in proven.not_proven for line in lines_of_batch(proof)]
    counts = f"{proven.proven} proven, {proven.waiting} wait, {proven.broken} broken"
    said.append(f"hour {proven.hour}: {proven.batches} batches, {counts}")
    said.append(f"  {'lines in':<16} {made.lines:>14,}")
    said += [f"  {name:<16} {count:>14,}" for name, count in made.outcomes.items()]
    said.append(f"  {'difference':<16} {made.difference:>14,}")
    said.append(f"  digest {made.digest}, {made.signed_with.value} {made.signature}")
    said.append(f"  the audit's certificate: {proven.stored_certificate}")
    said += [f"  {why}" for why in proven.waits_for]
    said.append(proven.verdict.value)
    return said


def _clock(moment_ms: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%H:%M:%S")
