"""The ground of a drill: a running stack, Prometheus over it, and the deeds of which faults are made."""

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
from aiokafka import AIOKafkaProducer

from app.adapters import kafka_clients
from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import connect
from app.clock import SystemClock
from app.core.events.parse import parse_line
from app.core.formats.batch import SealedBatch, new_batch_id, seal
from app.local.boards.prometheus import Prometheus
from app.local.stack.stack_file import Stack
from app.settings import Settings
from tests.rig.chaos.services import Services
from tests.worlds.waiting import HANGS_S, PAUSE_S, until

INSTREAM: Final = Path(sys.executable).with_name("instream")
AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0"
ANSWER_S: Final = 30.0
CLIENTS: Final = 4
EVERY_S: Final = 1.0
"""Seconds between two looks of a drill's Prometheus."""


class Ran(NamedTuple):
    """A command that ran to its end."""

    line: str
    code: int
    output: str
    errors: str


class Ground:
    """One stack under drill. This process has the stack's environment."""

    def __init__(
        self, stack: Callable[[], Stack], settings: Settings, running: Prometheus, services: Services, folder: Path
    ) -> None:
        self.stack = stack
        """Reads stack.json: pids change."""
        self.settings = settings
        self.prometheus = running
        self.services = services
        self.folder = folder
        """Commands run here, and may write here."""
        self.event_id = ""
        """The event that was posted last."""

    # --- what an operator does

    async def run(self, line: str, words: list[str]) -> Ran:
        """Run an `instream` command to its end."""
        process = await asyncio.create_subprocess_exec(
            INSTREAM, *words, cwd=self.folder, env=os.environ | {"INSTREAM_HOME": self.stack().home},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate()
        return Ran(line, process.returncode or 0, output.decode(), errors.decode())

    async def sql(self, *statements: str) -> None:
        """Run statements in one transaction of the warehouse."""
        async with await connect(self.stack().warehouse_url) as connection:
            for statement in statements:
                await connection.execute(statement.encode())

    async def fires(self, alert: str) -> bool:
        """Whether Prometheus says that an alert fires."""
        return any(one.name == alert for one in await asyncio.to_thread(self.prometheus.alerts))

    # --- traffic

    async def post(self) -> str:
        """Post an event that no join holds back. Returns: the id of its batch; empty if it was not acknowledged."""
        self.event_id = f"drill-{secrets.token_hex(8)}"
        event = {
            "event_id": self.event_id, "event_type": "ad_click",
            "page_view_id": secrets.token_hex(8), "occurred_at": SystemClock().now_ms(),
            "user_agent": AGENT, "ip": "203.0.113.9",
        }  # fmt: skip
        with suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session,
                session.post(
                    f"{self.stack().collector_url}/v1/events", json=event, headers={"X-Write-Key": "demo-server"}
                ) as answer,
            ):
                if answer.status == 200:
                    return str(json.loads(await answer.read())["batch_id"])
        return ""

    async def posted(self) -> str:
        """Post an event until it is acknowledged. Returns: the id of its batch."""
        found = [await self.post()]

        async def acknowledged() -> bool:
            found[0] = found[0] or await self.post()
            return bool(found[0])

        await until(acknowledged, PAUSE_S)
        return found[0]

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Within the block clients post, whatever the answer."""

        async def client() -> None:
            while True:
                await self.post()
                await asyncio.sleep(PAUSE_S)

        tasks = [asyncio.create_task(client()) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def batch(self, age_s: float, lines: int = 4) -> SealedBatch:
        """A batch of so many lines that was received so long ago; nobody has it yet."""
        received_ms = SystemClock().now_ms() - round(age_s * 1000)
        events = [
            {"event_id": f"drill-{secrets.token_hex(8)}", "event_type": "ad_click", "page_view_id": secrets.token_hex(8),
             "occurred_at": received_ms}
            for _ in range(lines)
        ]  # fmt: skip
        stored = [parse_line(json.dumps(e).encode(), "browser", received_ms, "203.0.113.9", AGENT) for e in events]
        return seal(new_batch_id(received_ms, os.urandom(10)), self.settings.epoch, self.settings.partitions, stored)

    async def orphan(self, age_s: float) -> SealedBatch:
        """A batch as a collector leaves it that dies before Kinesis: stored and registered."""
        sealed = self.batch(age_s)
        async with self.store() as store, self.registry() as registry:
            await store.put(sealed.item.raw_key, sealed.raw)
            await registry.register(sealed.item)
        return sealed

    # --- services

    def scrape(self, pages: Mapping[str, str]) -> None:
        """Let Prometheus ask these pages from now on."""
        self.prometheus.scrape(pages, EVERY_S, self.folder / "rules")

    def kill(self, role: str) -> None:
        """End a role or service at once."""
        os.kill(self.stack().running_pid(role), signal.SIGKILL)

    @asynccontextmanager
    async def frozen(self, role: str) -> AsyncIterator[None]:
        """Within the block a role or service is stopped."""
        pid = self.stack().running_pid(role)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[S3ObjectStore]:
        """The bucket."""
        store = S3ObjectStore(self.settings)
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[DynamoRegistry]:
        """The registry."""
        registry = DynamoRegistry(self.settings)
        try:
            yield registry
        finally:
            await registry.close()

    async def put(self, blocks: list[bytes]) -> None:
        """Put records to Kinesis."""
        stream = KinesisBlockStream(self.settings)
        try:
            assert all(outcome.error is None for outcome in await stream.put(blocks))
        finally:
            await stream.close()

    async def send(self, topic: str, value: bytes) -> None:
        """Send a message to partition 0 of a topic."""
        producer: Any = AIOKafkaProducer(**kafka_clients.producer(self.settings))
        async with asyncio.timeout(HANGS_S), producer:
            await producer.send_and_wait(topic, value, key=b"\xff no key of ours", partition=0)
