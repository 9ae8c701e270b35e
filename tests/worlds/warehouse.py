"""The real stack under delivery for tests: S3's stand-in, PostgreSQL and the Redshift stand-in, each in its own process."""

import json
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import psycopg
import pytest

from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import connect
from app.adapters.warehouse_schema import migrate
from app.core.formats import object_keys
from app.core.formats.flow_files import encode_output, frame_schema
from app.core.formats.flows import BY_NAME, OUTPUTS, ColumnKind
from app.core.formats.transaction_record import OutputObject, TransactionRecord
from app.local import redshift
from app.local.services import aws, postgres
from app.local.stack.ports import own_port
from app.settings import Settings
from tests.worlds.waiting import HANGS_S, until

AWS_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "stand-in", "AWS_SECRET_ACCESS_KEY": "stand-in", "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip
NOW_MS = 1_795_000_000_000


class WarehouseStack(NamedTuple):
    """The addresses of the processes."""

    aws_url: str
    backend_port: int
    port: int
    control_url: str

    def url(self, database: str = "instream") -> str:
        return f"postgresql://instream@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def warehouse_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarehouseStack]:
    """Started once for all tests."""
    aws_port, backend_port, port, control_port = (own_port() for _ in range(4))
    stack = WarehouseStack(f"http://127.0.0.1:{aws_port}", backend_port, port, f"http://127.0.0.1:{control_port}")
    data = tmp_path_factory.mktemp("warehouse") / "postgres"
    postgres.init(data)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PG"))}
    environment = clean | AWS_ENVIRONMENT | {"AWS_ENDPOINT_URL": stack.aws_url}
    with (data.parent / "log").open("wb") as log:
        commands = [
            [sys.executable, "-m", "app.local.services.aws", "--port", str(aws_port)],
            redshift.command(port, backend_port, control_port=control_port),
            postgres.command(data, backend_port),
        ]
        processes = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for command in commands]
    try:
        wait_for(stack, data.parent / "log")
        yield stack
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()


def wait_for(stack: WarehouseStack, log: Path) -> None:
    import asyncio

    try:
        asyncio.run(redshift.wait_ready(stack.url(), HANGS_S))
        asyncio.run(migrate(stack.url()))  # every test's database is a copy of this one
        aws.wait_ready(stack.aws_url, HANGS_S)
    except Exception as exc:
        raise RuntimeError(log.read_text()[-3000:]) from exc


@pytest.fixture
async def warehouse(warehouse_stack: WarehouseStack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator["Warehouse"]:
    """A database of its own with the schema, a bucket of its own, no faults."""
    yield await new_warehouse(warehouse_stack, monkeypatch)
    control(warehouse_stack, "DELETE")


@pytest.fixture(scope="module")
def kept_warehouse(warehouse_stack: WarehouseStack) -> Iterator["Warehouse"]:
    """The same, once for a module whose tests roll back their changes: making a database takes most of a short test."""
    import asyncio

    with pytest.MonkeyPatch.context() as monkeypatch:
        yield asyncio.run(new_warehouse(warehouse_stack, monkeypatch))
    control(warehouse_stack, "DELETE")


async def new_warehouse(stack: WarehouseStack, monkeypatch: pytest.MonkeyPatch) -> "Warehouse":
    """A database and a bucket."""
    for name, value in (AWS_ENVIRONMENT | {"AWS_ENDPOINT_URL": stack.aws_url}).items():
        monkeypatch.setenv(name, value)
    name = f"t{uuid.uuid4().hex[:12]}"
    async with await psycopg.AsyncConnection.connect(stack.url(), autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE instream")
    settings = Settings(bucket=name, warehouse_url=stack.url(name), partitions=2)
    store = S3ObjectStore(settings)
    await store.ensure()
    return Warehouse(stack, settings, store)


def control(stack: WarehouseStack, method: str, path: str = "", **fault: Any) -> Any:
    """One call of the stand-in's control port."""
    body = json.dumps(fault).encode() if method == "POST" else None
    request = urllib.request.Request(stack.control_url + "/faults" + path, data=body, method=method)
    with urllib.request.urlopen(request, timeout=HANGS_S) as answer:
        return json.loads(answer.read())


class Warehouse(NamedTuple):
    """One test's warehouse and bucket."""

    stack: WarehouseStack
    settings: Settings
    store: S3ObjectStore

    def fail(self, kind: str, **more: Any) -> None:
        control(self.stack, "POST", kind=kind, **more)

    def faults_left(self) -> int:
        return len(control(self.stack, "GET"))

    async def query(self, sql: str) -> list[tuple[Any, ...]]:
        async with await connect(self.settings.warehouse_url) as connection:
            return await (await connection.execute(sql.encode())).fetchall()

    async def put_file(self, key: str, body: bytes) -> str:
        await self.store.put(key, body)
        return f"s3://{self.store.bucket}/{key}"

    async def put_manifest(self, key: str, *urls: str, **more: Any) -> str:
        entries = [{"url": url, "mandatory": True} | more for url in urls]
        return await self.put_file(key, json.dumps({"entries": entries}).encode())


async def until_locked_out(warehouse: Warehouse, sessions: int) -> None:
    """Return once so many sessions wait for a lock. Time may stand meanwhile."""

    async def are_waiting() -> bool:
        return (await warehouse.query("SELECT count(*) FROM pg_locks WHERE NOT granted"))[0][0] >= sessions

    await until(are_waiting)


def rows_of(output: str, count: int, **columns: Any) -> pl.DataFrame:
    """A frame of `count` rows: columns that are not given are NULL; a callable is called with the row's number."""

    def values(name: str, given: Any) -> list[Any]:
        return [given(n) if callable(given) else given for n in range(count)]

    data = {name: values(name, columns.get(name)) for name in BY_NAME[output].names}
    return pl.DataFrame(data, schema=frame_schema(output))


def filler(output: str, txn: str, batch_id: str, count: int) -> pl.DataFrame:
    """Rows with something in every column."""
    numbers = {"line": lambda n: n, "txn_id": txn, "batch_id": batch_id, "ad_slot": 1, "scroll_pct": 50}
    kinds = {ColumnKind.STRING: "x", ColumnKind.TIMESTAMP: NOW_MS, ColumnKind.INTEGER: 7, ColumnKind.BOOLEAN: True}
    given = {column.name: kinds[column.kind] for column in BY_NAME[output].columns}
    return rows_of(output, count, **(given | numbers))


async def put_transaction(
    warehouse: Warehouse,
    number: int,
    frames: dict[str, pl.DataFrame],
    partition: int = 0,
    *,
    ready: bool = True,
    damage: dict[str, bytes] | None = None,
) -> TransactionRecord:
    """A committed transaction in S3 as the sink leaves it: record, data files, manifests, ready.json.

    `damage` replaces the bytes of some outputs' files.
    """
    import hashlib

    import msgspec

    from app.core.formats.transaction_record import ready_of

    epoch = warehouse.settings.epoch
    txn = object_keys.txn_id(epoch, partition, number, f"{number:08x}")
    outputs = []
    for flow in OUTPUTS:
        frame = frames.get(flow.name)
        if frame is None or frame.height == 0:
            outputs.append(OutputObject(output=flow.name, rows=0))
            continue
        body = encode_output(flow.name, frame.with_columns(txn_id=pl.lit(txn)))
        body = (damage or {}).get(flow.name, body)
        data_key = object_keys.data_key(flow.name, txn, NOW_MS)
        manifest_key = object_keys.manifest_key(flow.name, txn, NOW_MS)
        await warehouse.put_file(data_key, body)
        await warehouse.put_manifest(manifest_key, f"s3://{warehouse.store.bucket}/{data_key}")
        outputs.append(OutputObject(
            output=flow.name, rows=frame.height, bytes=len(body), sha256=hashlib.sha256(body).hexdigest(),
            staged_key=object_keys.staged_key(txn, flow.name), data_key=data_key, manifest_key=manifest_key,
            version=msgspec.UNSET if flow.version == 1 else flow.version,
        ))  # fmt: skip
    record = TransactionRecord(
        txn_id=txn, epoch=epoch, partition=partition, number=number, first_offset=number, last_offset=number,
        step_number=number, step_offset=number, step_digest="00", stream_time_ms=NOW_MS + number * 1000,
        committed_at_ms=NOW_MS, outputs=outputs, ready_key=object_keys.ready_key(txn, NOW_MS),
    )  # fmt: skip
    await warehouse.store.put(object_keys.record_key(epoch, partition, number), msgspec.json.encode(record))
    if ready:
        await warehouse.store.put(record.ready_key, msgspec.json.encode(ready_of(record)))
    return record
