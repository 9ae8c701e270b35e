"""`instream init`: make the missing services' objects of the pipeline, and migrate the warehouse's schema."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json

if TYPE_CHECKING:
    from app.core.delivery.schema_plan import SchemaPlan, SchemaStep
    from app.settings import Settings

NOTHING_TO_DO = "the warehouse's schema is the catalogue's: nothing is to be done"


async def make_all(settings: "Settings", told: "Callable[[SchemaStep], None]") -> "tuple[list[str], list[SchemaStep]]":
    """Make bucket, stream, registry table, topics and schema; what exists stays, and protection is turned on.

    Returns: their names, and the changes to the schema; `told` gets each change as soon as it is made.

    Raises:
        WrongPartitionCount: a topic exists with another number of partitions.
        SchemaRefused: the schema has a difference that only an operator may change.
        ServiceUnavailable: one of the services does not answer; things already made stay.
        WarehouseError: the warehouse refused a change; those before it stay.
    """
    from app.adapters.kafka import ensure_topics  # noqa: PLC0415 - commands load what they need
    from app.adapters.kinesis import KinesisBlockStream  # noqa: PLC0415
    from app.adapters.registry import DynamoRegistry  # noqa: PLC0415
    from app.adapters.s3 import S3ObjectStore  # noqa: PLC0415
    from app.adapters.warehouse_login import login_of  # noqa: PLC0415
    from app.adapters.warehouse_schema import migrate  # noqa: PLC0415
    from app.topics import topics_of  # noqa: PLC0415

    for adapter in (S3ObjectStore(settings), DynamoRegistry(settings), KinesisBlockStream(settings)):
        await adapter.ensure()
        await adapter.close()
    await ensure_topics(settings)
    changed = await migrate(settings.warehouse_url, told, login_of(settings))
    topics = [f"topic {topic.name}" for topic in topics_of(settings)]
    present = [
        f"bucket {settings.bucket}", f"stream {settings.stream}", f"table {settings.registry_table}", *topics,
        "schema analytics",
    ]  # fmt: skip
    return present, changed


def init(
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would change in the warehouse, and change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make bucket, stream, registry table, topics and warehouse schema where they are missing; safe to run again.

    New tables and columns of this version are added to an existing warehouse. Nothing is removed. A change that could lose
    data is refused: then nothing at all is made. `instream up` does it for the local stack by itself. Exit codes: 0 done or
    planned, 1 refused or failed.
    """
    from app.adapters.warehouse_login import login_of  # noqa: PLC0415
    from app.adapters.warehouse_schema import read_plan  # noqa: PLC0415

    settings = settings_to_ask(*([Asks.WAREHOUSE] if plan else Asks))
    planned = asyncio.run(read_plan(settings.warehouse_url, login_of(settings)))
    if plan or planned.refused:
        _show_plan(planned, as_json=as_json)
        if planned.refused:
            raise typer.Exit(Exit.FAILURE)
        return
    present, changed = asyncio.run(make_all(settings, lambda step: None if as_json else _say(_sql(step))))
    if as_json:
        print_json({"present": present, "changed": changed, "left_alone": planned.left_alone})
        return
    if not changed:
        _say(NOTHING_TO_DO)
    _say(*_left_alone(planned), *present)


def _show_plan(plan: "SchemaPlan", *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    for refusal in plan.refused:
        _say(f"refused: {refusal.place} {refusal.reason}. At your own risk, one by one:")
        _say(*(f"    {statement};" for statement in refusal.statements))
    if plan.refused:
        _say("nothing is changed while anything is refused" + ("; then these changes are made:" if plan.steps else ""))
    _say(*(_sql(step) for step in plan.steps), *_left_alone(plan))
    if not plan.steps and not plan.refused:
        _say(NOTHING_TO_DO)


def _sql(step: "SchemaStep") -> str:
    return f"-- {step.reason}\n{step.statement};"


def _left_alone(plan: "SchemaPlan") -> list[str]:
    return [f"left alone: {place} is not in the catalogue" for place in plan.left_alone]


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)
