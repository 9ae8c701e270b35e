"""`instream repair-log`: find damaged steps in the log, and replace them (rule E2)."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import LAST_PARTITION, whole
from app.cli.services import Asks, insist_on
from app.cli.show import Exit, JsonOption, print_json

if TYPE_CHECKING:
    from agents.etl.log_repair import Findings, LogRepairPorts
    from app.adapters.ports import LogScan, ObjectStore
    from app.core.enrich.enrich import DimensionRows
    from app.settings import Settings


async def read_dimension(logs: "LogScan", topic: str) -> "DimensionRows":
    """The rows of a dimension table as they are now; messages that are none are passed over, as the ETL does.

    Raises:
        ServiceUnavailable: the brokers do not answer.
    """
    from app.errors import FormatInvalid  # noqa: PLC0415 - commands load what they need
    from tables.dimensions import read_attributes, read_id  # noqa: PLC0415

    rows = {}
    async for message in logs.scan(topic, 0, *(await logs.bounds(topic, 0))):
        try:
            key = read_id(message.key)
            if message.value:
                rows[key] = read_attributes(message.value)
            else:
                rows.pop(key, None)
        except FormatInvalid:
            continue
    return rows


async def repair(
    objects: "ObjectStore", ports: "LogRepairPorts", settings: "Settings", partition: int, *, apply: bool
) -> "Findings":
    """Look at one partition; store the replacements of its damaged steps if `apply`.

    Raises:
        NewerFormat: a newer version wrote a step.
        RepairRefused: another object lies at a replacement's key.
        ServiceUnavailable: Kafka or S3 does not answer.
    """
    from agents.etl.log_repair import find_damage, store_repairs, verify_chain  # noqa: PLC0415
    from app.core.formats.step_message import StepLog  # noqa: PLC0415
    from app.core.repair.replacements import Replacements  # noqa: PLC0415
    from app.core.sink.chain import ChainId  # noqa: PLC0415
    from app.shell.repairs import read_replacements  # noqa: PLC0415
    from tables.store.partition_store import PartitionStore  # noqa: PLC0415
    from tables.store.rocksdb import Memory, RocksEngine  # noqa: PLC0415

    stored = await read_replacements(objects, settings.epoch, {partition})
    replaced = stored.get(partition, Replacements())
    log, memory = StepLog(ports.rows, partition, settings.epoch), Memory(settings.state_cache_bytes)
    with TemporaryDirectory(prefix="instream-repair-") as folder:

        def open_store() -> PartitionStore:
            engine = RocksEngine(Path(mkdtemp(dir=folder)) / "state", memory)
            return PartitionStore(engine, settings.dedup_window_ms, step_log=log)

        found = await find_damage(ports, partition, open_store, replaced)
    chain_id = ChainId(settings.epoch, partition)
    if found.repairs:
        await verify_chain(objects, chain_id, found, replaced)
    if apply:
        await store_repairs(objects, chain_id, found.repairs)
    return found


async def repair_all(settings: "Settings", partitions: list[int], *, apply: bool, etl_is_stopped: bool) -> "list[Findings]":
    """Look at partitions one after the other, on the real services.

    Raises: as `repair`.
    """
    from agents.etl.log_repair import LogRepairPorts  # noqa: PLC0415
    from agents.etl.owner import etl_rules  # noqa: PLC0415
    from app.adapters.enrichment import open_enricher  # noqa: PLC0415
    from app.adapters.kafka import LogReader  # noqa: PLC0415
    from app.adapters.s3 import S3ObjectStore  # noqa: PLC0415
    from app.topics import topics_of  # noqa: PLC0415

    topics, objects = topics_of(settings), S3ObjectStore(settings)
    try:
        async with LogReader(settings) as logs:
            articles = await read_dimension(logs, topics.articles.name)
            campaigns = await read_dimension(logs, topics.campaigns.name)
            enricher = open_enricher(settings, articles, campaigns)
            ports = LogRepairPorts(logs, topics.rows.name, topics.blocks.name, etl_rules(settings), enricher, etl_is_stopped)
            return [await repair(objects, ports, settings, partition, apply=apply) for partition in partitions]
    finally:
        await objects.close()


def exit_code_of(found: "list[Findings]", *, apply: bool) -> Exit:
    """0 nothing is damaged or all is replaced, 3 damage was found and nothing was written, 1 some cannot be repaired."""
    if any(each.refused for each in found):
        return Exit.FAILURE
    return Exit.INCOMPLETE if not apply and any(each.repairs for each in found) else Exit.OK


def repair_log(
    partition: Annotated[
        int | None, whole("Partition of `rows` to look at; all if it is not given.", 0, LAST_PARTITION)
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Store the replacements; without it nothing is written.")] = False,
    etl_is_stopped: Annotated[
        bool, typer.Option("--etl-is-stopped", help="No etl worker runs: needed only if the answer says so.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find damaged steps on topic `rows`, decide them again from topic `blocks`, and replace them with --apply.

    The workers that stopped on the damage read the replacements when they start again. Safe to run twice, and beside running
    workers. Exit codes: 0 nothing is damaged or all of it is replaced, 3 damage was found and --apply is missing, 1 some of
    it cannot be repaired.
    """
    from app.settings import read_settings  # noqa: PLC0415

    settings = read_settings()
    if partition is not None and partition >= settings.partitions:
        raise typer.BadParameter(f"there are partitions 0 to {settings.partitions - 1}", param_hint="--partition")
    insist_on(settings, Asks.KAFKA, Asks.AWS)
    partitions = list(range(settings.partitions)) if partition is None else [partition]
    found = asyncio.run(repair_all(settings, partitions, apply=apply, etl_is_stopped=etl_is_stopped))
    if as_json:
        print_json([_as_json(each, applied=apply) for each in found])
    else:
        for line in lines_of(found, apply=apply):
            print(line)
    if code := exit_code_of(found, apply=apply):
        raise typer.Exit(code)


def lines_of(found: "list[Findings]", *, apply: bool) -> list[str]:
    """The answer in words."""
    said = []
    for each in found:
        where = f"rows[{each.partition}]"
        for one in each.repairs:
            proof = f"decided again, and {one.proofs} steps behind it prove it"
            said.append(f"{where} {one.offset}: step {one.number} is damaged; {proof}" + ("; replaced" if apply else ""))
        said += [f"{where} {one.offset}: foreign message, nothing to do: {one.reason}" for one in each.foreign]
        if each.refused:
            said.append(f"{where}: cannot be repaired: {each.refused}")
    repairs = sum(len(each.repairs) for each in found)
    refused = sum(each.refused is not None for each in found)
    before = sum(each.replaced for each in found)
    if repairs:
        done = "are replaced; workers that stopped go on when they start again" if apply else "can be replaced: --apply"
        said.append(f"{repairs} damaged steps {done}")
    elif not refused:
        said.append("no step is damaged" + (f"; {before} were replaced before" if before else ""))
    if refused:
        said.append(f"{refused} partitions have damage that cannot be repaired")
    return said


def _as_json(found: "Findings", *, applied: bool) -> dict[str, object]:
    return {
        "partition": found.partition, "applied": applied, "replaced_before": found.replaced, "refused": found.refused,
        "damaged": [{"offset": one.offset, "step": one.number, "proofs": one.proofs} for one in found.repairs],
        "foreign": [{"offset": one.offset, "reason": one.reason} for one in found.foreign],
    }  # fmt: skip
