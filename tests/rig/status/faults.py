"""The planted faults: how each begins and ends, and what `instream status` must say of it."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

from app.adapters.warehouse import connect
from app.local.stack.life import Home
from app.local.stack.stack_file import Stack, read_stack

LASTING = 1_000_000
HTTP_S = 10
LOOP_EVERY_S = 1.0


class Planted(NamedTuple):
    """A fault."""

    name: str
    plant: Callable[[Home], AbstractAsyncContextManager[None]]
    stage: str | None
    """The stage that `status` must call the slowest."""
    codes: frozenset[int]
    """The exit codes that are right."""
    says: str
    """A part of what it must say."""


def stack_in(home: Home) -> Stack:
    """stack.json as it is now."""
    stack = read_stack(home)
    if stack is None:
        raise RuntimeError(f"no stack is up in {home.path}")
    return stack


def frozen(name: str) -> Callable[[Home], AbstractAsyncContextManager[None]]:
    """A process does not run on."""

    @asynccontextmanager
    async def plant(home: Home) -> AsyncIterator[None]:
        pid = stack_in(home).running_pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return plant


def killed_again_and_again(name: str) -> Callable[[Home], AbstractAsyncContextManager[None]]:
    """A process is killed whenever it runs."""

    async def loop(home: Home) -> None:
        while True:
            if pid := stack_in(home).pid_of(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(LOOP_EVERY_S)

    @asynccontextmanager
    async def plant(home: Home) -> AsyncIterator[None]:
        task = asyncio.create_task(loop(home))
        try:
            yield
        finally:
            task.cancel()

    return plant


def ordered(stand_in: str, order: dict[str, Any]) -> Callable[[Home], AbstractAsyncContextManager[None]]:
    """A stand-in fails on demand."""

    @asynccontextmanager
    async def plant(home: Home) -> AsyncIterator[None]:
        url = stack_in(home).controls[stand_in]
        await asyncio.to_thread(_call, Request(url, json.dumps(order).encode(), method="POST"))
        try:
            yield
        finally:
            await asyncio.to_thread(_call, Request(url, method="DELETE"))

    return plant


def _call(request: Request) -> None:
    urlopen(request, timeout=HTTP_S).close()


def warehouse(kind: str, statement: str = "") -> Callable[[Home], AbstractAsyncContextManager[None]]:
    """The warehouse refuses statements."""
    return ordered("warehouse", {"kind": kind, "times": LASTING, "statement": statement})


@asynccontextmanager
async def dropped_column(home: Home) -> AsyncIterator[None]:
    """The warehouse lacks a column."""
    url = stack_in(home).warehouse_url
    await _execute(url, "ALTER TABLE analytics.delivery_log DROP COLUMN detail")
    try:
        yield
    finally:
        await _execute(url, 'ALTER TABLE analytics.delivery_log ADD COLUMN "detail" VARCHAR(4096)')


async def _execute(url: str, statement: str) -> None:
    async with await connect(url) as connection:
        await connection.execute(statement.encode())
        await connection.commit()


BROKEN, WAITS, ANY = frozenset({1}), frozenset({3}), frozenset({1, 3})
FAULTS = (
    *(
        Planted(f"{role} is frozen", frozen(role), role, BROKEN, f"{role} is silent")
        for role in ("collector", "bridge", "etl", "sink", "delivery", "audit")
    ),
    Planted("Kafka is frozen", frozen("kafka"), "bridge", BROKEN, "kafka: process"),
    Planted("S3, DynamoDB and Kinesis are frozen", frozen("aws"), "collector", BROKEN, "aws: process"),
    Planted("the warehouse is frozen", frozen("warehouse"), "delivery", BROKEN, "warehouse: process"),
    Planted("the warehouse's database is frozen", frozen("postgres"), "delivery", BROKEN, "postgres: process"),
    Planted("the warehouse's disk is full", warehouse("disk_full"), "delivery", ANY, "disk"),
    Planted("the warehouse is locked", warehouse("lock_timeout"), "delivery", ANY, "delivery is waiting"),
    Planted("the warehouse cannot serialize", warehouse("serialization"), "delivery", ANY, "delivery is waiting"),
    Planted("the warehouse has internal errors", warehouse("internal"), "delivery", ANY, "delivery is waiting"),
    Planted("the warehouse refuses connections", warehouse("refuse"), "delivery", ANY, "warehouse"),
    Planted("the warehouse drops connections", warehouse("drop_mid_copy"), "delivery", ANY, "delivery is waiting"),
    Planted("a column is dropped", dropped_column, "delivery", ANY, "lacks column analytics.delivery_log.detail"),
    Planted("S3 fails", ordered("aws", {"s3": 1.0}), "collector", ANY, "s3"),
    Planted("Kinesis is throttled", ordered("aws", {"throttled": 1.0}), "bridge", ANY, "kinesis"),
    Planted("DynamoDB fails", ordered("aws", {"dynamodb": 1.0}), "collector", ANY, "registry"),
    *(
        Planted(f"{role} is killed again and again", killed_again_and_again(role), role, BROKEN, "crash loop")
        for role in ("etl", "sink", "delivery")
    ),
)
"""No fault leaves anything behind when it ends; crash loops come last, because the supervisor's pauses grow."""
