"""Faults of processes and services, one for each alert. A plant is there within its block, and mended behind it.

It yields the words that an operator reads off the alert or the commands: BATCH_ID, TXN_ID, EVENT_ID. What the runbook's
commands mend, the plant leaves as it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from app.local.services.aws_faults import Rates
from tests.rig.chaos.quarantine import quarantined
from tests.rig.runbooks.ground import Ground
from tests.worlds.waiting import PAUSE_S, until

Plant = Callable[[Ground], AbstractAsyncContextManager[Mapping[str, str]]]
KILLS: Final = 3
KEYS_FILE: Final = "drill-write-keys"
"""The name of WRITE_KEYS_FILE in a drill's HOME."""


def frozen(role: str) -> Plant:
    """A role is stopped."""

    @asynccontextmanager
    async def plant(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
        async with ground.frozen(role):
            yield {}

    return plant


@asynccontextmanager
async def role_missing(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Prometheus loses the target of the audit."""
    pages = ground.stack().metrics
    ground.scrape({role: url for role, url in pages.items() if role != "audit"})
    try:
        yield {}
    finally:
        ground.scrape(pages)


@asynccontextmanager
async def column_missing(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """The warehouse lacks a column; the operator runs `instream init`."""
    await ground.sql("ALTER TABLE analytics.ad_clicks DROP COLUMN creative_id")
    await ground.posted()
    try:
        yield {}
    finally:
        done = await ground.run("instream init", ["init"])
        assert done.code == 0, done.errors


@asynccontextmanager
async def killed_again_and_again(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """The audit is killed; and again, each time that Prometheus has seen the new process."""
    began = 'process_start_time_seconds{role="audit"}'

    async def start() -> str:
        found = await asyncio.to_thread(ground.prometheus.query, began)
        return str(found[0]["value"][1]) if found else ""

    for _ in range(KILLS):
        before = await start()
        ground.kill("audit")

        async def is_another(before: str = before) -> bool:
            return await start() not in {"", before}

        await until(is_another, PAUSE_S)
    yield {}


@asynccontextmanager
async def warehouse_full(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """The warehouse's disk is full, and lines wait for it."""
    await ground.services.fail_warehouse("disk_full", 1_000_000)
    await ground.posted()
    try:
        yield {}
    finally:
        await ground.services.mend_warehouse()


@asynccontextmanager
async def kinesis_refuses(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Kinesis throttles every call, and clients post."""
    await ground.services.fail_aws(KINESIS_FAILS)
    try:
        async with ground.traffic():
            yield {}
    finally:
        await ground.services.fail_aws(Rates())


@asynccontextmanager
async def aws_frozen(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """No call to S3, DynamoDB or Kinesis is answered, and clients post."""
    async with ground.frozen("aws"), ground.traffic():
        yield {}


@asynccontextmanager
async def keys_file_broken(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """A line of the file of keys is no key."""
    file = Path(ground.stack().home) / KEYS_FILE
    before = file.read_text()
    file.write_text("no key at all\n")
    try:
        yield {}
    finally:
        file.write_text(before)


@asynccontextmanager
async def file_unreadable(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """The warehouse cannot read a data file, and delivery sets its transaction aside; behind the block it is readable."""
    await ground.services.fail_warehouse("unreadable", 1)
    batch_id = await ground.posted()
    await until(lambda: quarantined(ground.settings), PAUSE_S)
    (txn_id, *_) = await quarantined(ground.settings)
    try:
        yield {"TXN_ID": txn_id, "BATCH_ID": batch_id}
    finally:
        await ground.services.mend_warehouse()


KINESIS_FAILS: Final = Rates(seed=1, throttled=1.0)
OF_PROCESSES: Final[Mapping[str, Plant]] = {
    "RoleDown": frozen("audit"),
    "RoleMissing": role_missing,
    "RoleWaits": column_missing,
    "CrashLoop": killed_again_and_again,
    "BridgeStands": kinesis_refuses,
    "StreamTimeStands": kinesis_refuses,
    "SinkStands": aws_frozen,
    "DeliveryDefers": warehouse_full,
    "StorageFault": aws_frozen,
    "CollectorRefuses": aws_frozen,
    "KinesisRefuses": kinesis_refuses,
    "WriteKeysFault": keys_file_broken,
    "Quarantine": file_unreadable,
    "WarehouseLate": warehouse_full,
    "FreshnessUnknown": frozen("delivery"),
}
