"""A collector on a free port, over the in-memory twins of S3, the registry and Kinesis."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from app.clock import Clock, SystemClock
from app.collector.batcher import CollectorPorts
from app.collector.connections import Connections
from app.collector.server import COLLECTOR, create_app, new_runner
from app.collector.sparse_log import SparseLog
from app.collector.storage_health import StorageHealth
from app.core.formats.block import decode_header, frame_of, open_frame
from app.core.formats.registry_item import RegistryItem
from app.settings import Settings
from app.testing.memory import MemoryBlockStream, MemoryObjectStore, MemoryRegistry
from tests.builders.events import event, text
from tests.worlds.waiting import until

KEY = {"X-Write-Key": "demo"}
NDJSON = {**KEY, "Content-Type": "application/x-ndjson"}


class Answer(msgspec.Struct):
    status: int
    body: dict[str, Any]
    headers: Any


class CollectorWorld:
    """A collector and its storage, as a test sees them."""

    def __init__(self, clock: Clock | None = None, **changes: Any) -> None:
        defaults: dict[str, Any] = {
            "write_keys": {"demo": "browser", "back": "server"}, "partitions": 4, "linger_ms": 10, "request_timeout_s": 60.0,
        }  # fmt: skip
        self.settings = Settings(**{**defaults, **changes})
        self.store = MemoryObjectStore()
        self.registry = MemoryRegistry()
        self.stream = MemoryBlockStream(shards=2)
        self.ports = CollectorPorts(self.store, self.registry, self.stream, clock or SystemClock(), os.urandom)
        self.calls: list[str] = []
        """Names of the calls that changed something, in order."""
        for twin in (self.store, self.registry, self.stream):
            twin.after = self._note

    async def _note(self, call: str, _: str) -> None:
        if call in {"put", "register"}:
            self.calls.append(call)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["CollectorWorld"]:
        app = create_app(self.settings, self.ports)
        self.app = app
        self.runner = new_runner(app, self.settings)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        async with aiohttp.ClientSession() as self.session:
            try:
                yield self
            finally:
                await self.runner.cleanup()

    @property
    def connections(self) -> Connections:
        return self.runner.connections

    @property
    def health(self) -> StorageHealth:
        return self.app[COLLECTOR]._health

    @property
    def app_faults(self) -> SparseLog:
        return self.app[COLLECTOR].faults

    @property
    def parsing(self) -> int:
        """Requests that wait for the parser or are parsed."""
        return self.app[COLLECTOR]._parsing._waiting

    @property
    def buffered_bytes(self) -> int:
        return self.app[COLLECTOR].buffered_bytes

    @property
    def resend_bytes(self) -> int:
        return self.app[COLLECTOR].resend_bytes

    @property
    def gathered_lines(self) -> int:
        """Lines of the batch that lingers."""
        batcher = self.app[COLLECTOR]._batcher
        return batcher._open.lines if batcher and batcher._open else 0

    async def call(self, method: str, path: str, data: Any = None, headers: Any = NDJSON) -> Answer:
        options: Any = {"skip_auto_headers": ["Content-Type"]}
        async with self.session.request(method, self.url + path, data=data, headers=headers, **options) as answer:
            text = await answer.text()
            return Answer(answer.status, json.loads(text) if text else {}, answer.headers)

    async def post(self, data: Any, headers: Any = NDJSON, path: str = "/v1/events") -> Answer:
        return await self.call("POST", path, data, headers)

    async def items(self) -> list[RegistryItem]:
        return [item async for item in self.registry.all_batches()]

    async def blocks(self) -> list[bytes]:
        """Everything in Kinesis."""
        out = []
        for shard in await self.stream.shards():
            page = await self.stream.records(await self.stream.iterator(shard.shard_id, None), 10_000)
            out += [record.data for record in page.records]
        return out

    async def stored_lines(self) -> list[dict[str, Any]]:
        """Every line in Kinesis, by batch and number."""
        blocks = sorted(await self.blocks(), key=lambda b: (decode_header(b).batch_id, decode_header(b).first_line))
        return [json.loads(line) for block in blocks for line in open_frame(frame_of(block)).splitlines()]


def body(*ids: str) -> bytes:
    return b"\n".join(text(event(event_id=name, page_view_id=f"p-{name}")) for name in ids)


async def lingering(world: CollectorWorld, *bodies: bytes) -> "list[asyncio.Task[Answer]]":
    """Posts whose lines are all in the batch that lingers."""
    posts = [asyncio.create_task(world.post(each)) for each in bodies]
    lines = sum(each.count(b"\n") + 1 for each in bodies)
    await until(lambda: world.gathered_lines == lines)
    return posts
