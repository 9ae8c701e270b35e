"""`instream sink accept-gap`: let a sink that stopped on a gap go on without the gap's messages (rule S5)."""

import asyncio
import json
import secrets
from typing import Annotated, Final, NamedTuple

import typer

from agents.sink.chain_store import ChainStore
from app.adapters.kafka import LogReader
from app.adapters.ports import ObjectStore
from app.adapters.s3 import S3ObjectStore
from app.cli.options import given, whole
from app.cli.services import Asks, insist_on
from app.cli.show import say_why
from app.clock import SystemClock
from app.core.formats import object_keys
from app.core.formats.step_message import StepLog, decode_step
from app.core.formats.transaction_record import TransactionRecord
from app.core.repair.replacements import Replacements
from app.core.sink.accept_gap import Acceptance, Resumption, ResumptionSearch, bridge_record
from app.core.sink.chain import ChainEnd, ChainId, LogBounds, chain_end_after
from app.errors import ChainBroken, InstreamError, StepMessageInvalid
from app.settings import MOST_PARTITIONS, Settings, read_settings
from app.topics import topics_of

app = typer.Typer(
    help="The sink's transaction chains.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

FAILURE: Final = 1
INCOMPLETE: Final = 3
LOOK_AHEAD: Final = 10_000
"""Most messages searched for the place where the chain can go on; it is among the first few."""


class Undecided(NamedTuple):
    """The log does not show yet where the chain can go on."""

    looked_at: int


@app.callback()
def sink() -> None:
    """Repair the sink's transaction chains."""


@app.command("accept-gap")
def accept_gap(
    partition: Annotated[int, whole("Partition of `rows` whose sink stopped.", 0, MOST_PARTITIONS - 1)],
    reason: Annotated[str, typer.Option(help="Your name and the reason; kept in the record for good.", parser=given)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Commit a record that bridges the gap on one partition, so that its sink goes on behind it.

    The rows of the gap's messages are given up; the audit finds that their lines are missing in the ledger. Exit codes: 0
    the gap is bridged, 1 there is none or it failed, 3 the log does not show yet where to go on (let the ETL run).
    """
    settings = read_settings()
    if partition >= settings.partitions:
        raise typer.BadParameter(f"there are partitions 0 to {settings.partitions - 1}", param_hint="--partition")
    insist_on(settings, Asks.KAFKA, Asks.AWS)
    try:
        result = asyncio.run(_accept(settings, partition, reason))
    except InstreamError as exc:
        say_why(exc, "gap not accepted")
        raise typer.Exit(FAILURE) from exc
    if isinstance(result, Undecided):
        typer.echo(f"none of {result.looked_at} messages behind the gap continues another yet: let the ETL run", err=True)
        raise typer.Exit(INCOMPLETE)
    summary = {
        "txn_id": result.txn_id, "first_offset": result.first_offset, "last_offset": result.last_offset,
        "continues_step": result.step_number, "reason": result.accepted_gap,
    }  # fmt: skip
    typer.echo(json.dumps(summary) if as_json else _sentence(result))


def _sentence(record: TransactionRecord) -> str:
    return (
        f"{record.txn_id} answers for offsets {record.first_offset} to {record.last_offset}; "
        f"the sink of partition {record.partition} goes on at {record.last_offset + 1} when it starts again"
    )


async def _accept(settings: Settings, partition: int, reason: str) -> TransactionRecord | Undecided:
    objects = S3ObjectStore(settings)
    try:
        async with LogReader(settings) as logs:
            return await bridge(objects, logs, settings, partition, reason)
    finally:
        await objects.close()


async def bridge(
    objects: ObjectStore, logs: LogReader, settings: Settings, partition: int, reason: str
) -> TransactionRecord | Undecided:
    """Find the place where the partition's chain can go on, commit a record with it, and finish the record.

    Raises:
        ChainBroken: there is no gap, or another process committed meanwhile.
        ServiceUnavailable: the log cannot be read.
    """
    topic, chain_id = topics_of(settings).rows.name, ChainId(settings.epoch, partition)
    chain = ChainStore(objects, chain_id)
    last = await chain.find_end()
    if last is not None:  # number n + 1 is not committed before n is ready (rule S3)
        await chain.clear((await chain.finish(last)).deletes)
    end = chain_end_after(last)
    replaced = await chain.replacements()
    if next(replaced.between(end.accepted.offset, end.last_offset), None) is not None:
        raise ChainBroken(f"`instream repair-log` has replaced a step behind transaction {end.number}: start the sink")
    first, ends = await logs.first_offsets(topic, [partition]), await logs.end_offsets(topic, [partition])
    log = StepLog(topic, partition, settings.epoch)
    found = await _search(logs, log, end, LogBounds(first[partition], ends[partition]), replaced)
    if isinstance(found, Undecided):
        return found
    now_ms = SystemClock().now_ms()
    txn = object_keys.txn_id(*chain_id, end.number + 1, secrets.token_hex(4))
    record = bridge_record(chain_id, end, found, txn, Acceptance(reason, now_ms))
    if (holder := await chain.commit(record)).txn_id != txn:
        raise ChainBroken(f"{holder.txn_id} was committed meanwhile: look at the sink again")
    await chain.finish(record)
    return record


async def _search(
    logs: LogReader, log: StepLog, end: ChainEnd, bounds: LogBounds, replaced: Replacements
) -> Resumption | Undecided:
    search = ResumptionSearch(end)
    start = max(end.next_offset, bounds.earliest)
    looked_at = 0
    for offset in range(start, min(bounds.end, start + LOOK_AHEAD)):
        message = await logs.message_at(log.topic, log.partition, offset)
        if message is None:
            raise ChainBroken(f"offset {offset} of {log} is gone while it is looked for: try again")
        looked_at += 1
        try:
            step = decode_step(replaced.at(offset, message), log)
        except StepMessageInvalid:
            continue  # no reader takes it (rule E2)
        if (found := search.offer(offset, step)) is not None:
            return found
    return Undecided(looked_at)
