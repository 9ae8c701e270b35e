"""S3 is away for longer than a worker may stand still: the sink ends once, waits for S3 at its next start, loses nothing."""

import asyncio
import signal
import uuid
from pathlib import Path
from urllib.request import urlopen

import pytest

from app.adapters.kafka import ensure_topics
from tests.faults.stalling import MODULE, SETTINGS, Watch
from tests.faults.test_sink_worker import SinkStack, SinkWorker
from tests.worlds.etl_workers import aws, broker
from tests.worlds.waiting import HANGS_S
from tests.worlds.warehouse import AWS_ENVIRONMENT

pytestmark = pytest.mark.stack


class Gate:
    """A way to S3 that can be closed: connections are refused, those that are open break."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def let_through(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, backward = await asyncio.open_connection("127.0.0.1", self._target)
        pair = {writer, backward}
        self._open |= pair
        try:
            await asyncio.gather(self._copy(reader, backward), self._copy(onward, writer))
        finally:
            self._open -= pair

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass  # one side is gone, and so is the other
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()


class OutageStack(SinkStack):
    """Its workers reach S3 by the gate, and may stand still for a few seconds."""

    def __init__(self, home: Path, kafka_port: int, aws_url: str, gate: Gate) -> None:
        self.gate = gate
        super().__init__(home, kafka_port, aws_url)

    def _worker(self, number: int) -> SinkWorker:
        worker = super()._worker(number)
        worker._environment |= {
            **SETTINGS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.gate.port}", "WATCH": str(worker.home),
        }  # fmt: skip
        worker.module = MODULE
        return worker

    def retries(self) -> float:
        """Calls to S3 that the first worker has tried again since it started."""
        try:
            with urlopen(f"http://127.0.0.1:{self.workers[0].port}/metrics", timeout=HANGS_S) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0
        return sum(float(line.split()[-1]) for line in lines if line.startswith("instream_sink_retries_total{"))


async def run(home: Path, kafka_port: int, aws_url: str) -> None:
    gate = Gate(int(aws_url.rpartition(":")[2]))
    await gate.let_through()
    async with OutageStack(home, kafka_port, aws_url, gate) as stack:
        await ensure_topics(stack.settings)
        worker = stack.workers[0]
        watch = Watch(worker.home)
        worker.start()
        await stack.until(worker.ready, "the worker is ready")
        await stack.feed(3)
        await gate.close()
        await stack.feed(3)
        await stack.until(lambda: stack.retries() >= 4, "every partition's commit meets the outage")
        await stack.feed(3)  # this waits in the log

        def has_ended() -> bool:
            watch.pass_s()
            return worker.poll() is not None

        await stack.until(has_ended, "the worker ends, for its input waits")
        assert worker.poll() == 1
        assert "worker stalled" in worker.log()
        worker.start()
        await stack.until(lambda: stack.retries() >= 4 * 3, "it tries again and again")
        await watch.look_long()
        assert worker.poll() is None, worker.tail()
        await gate.let_through()
        await stack.until(worker.ready, "the worker is ready again")
        await stack.feed_ticks()
        await stack.until(stack.all_committed, "every message is in a transaction")
        for part in stack.parts:
            part.check_complete()
        assert worker.end(signal.SIGTERM) == 0
        await gate.close()


def test_an_outage_of_s3_restarts_the_sink_once_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker(tmp_path / f"kafka-{uuid.uuid4().hex[:8]}") as port, aws() as url:
        for name, value in (AWS_ENVIRONMENT | {"AWS_ENDPOINT_URL": url}).items():
            monkeypatch.setenv(name, value)
        asyncio.run(run(tmp_path, port, url))
