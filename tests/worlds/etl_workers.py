"""A real broker, the AWS stand-in and ETL worker processes, for tests of the ETL workers' faults."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from aiokafka import AIOKafkaProducer

from app.adapters import kafka_clients
from app.adapters.kafka import LogReader
from app.adapters.s3 import S3ObjectStore
from app.core.formats.step_history import Accepted, StepVerdict
from app.core.formats.step_message import StepMessage, decode_step
from app.local.services import kafka
from app.local.services.aws import new_server
from app.local.stack.ports import own_port
from app.settings import Settings
from app.topics import topics_of
from tests.worlds.waiting import HANGS_S, PAUSE_S, until

ROOT = Path(__file__).parents[2]
FAUST = str(Path(sys.executable).parent / "faust")


@contextmanager
def broker(home: Path) -> Iterator[int]:
    """A Kafka broker of its own; its port."""
    ports = kafka.KafkaPorts(own_port(), own_port())
    kafka.prepare(home, ports, 16 * 1024 * 1024)
    with (home / "out.log").open("wb") as out:
        process = subprocess.Popen(kafka.command(home), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        asyncio.run(kafka.wait_ready(ports.broker, HANGS_S))
        yield ports.broker
    finally:
        process.kill()
        process.wait()


@contextmanager
def aws() -> Iterator[str]:
    """The AWS stand-in in a thread; its URL."""
    server = new_server("127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        reset = Request(f"http://127.0.0.1:{server.server_port}/moto-api/reset", method="POST")
        urlopen(reset).close()  # its state belongs to the process, and would be there for the next test
        server.shutdown()
        thread.join()
        server.server_close()


class Worker:
    """One worker process with a home of its own."""

    role = "etl"
    module = "app.worker"

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self._environment = environment
        self.process: subprocess.Popen[bytes] | None = None
        self.port = own_port()

    def start(self) -> None:
        self.home.mkdir(exist_ok=True)
        environment = {
            **self._environment, "INSTREAM_HOME": str(self.home), "INSTREAM_WEB_PORT": str(self.port),
            "INSTREAM_LOG_FORMAT": "json",
        }  # fmt: skip
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [FAUST, "-A", f"{self.module}:{self.role}", "worker", "-l", "info"], env=environment, cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    def ready(self) -> bool:
        """Whether /ready answers that the worker is ready."""
        if self.process is not None and (code := self.process.poll()) is not None:
            raise AssertionError(f"worker ended with {code}:\n{self.tail()}")
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=HANGS_S) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def end(self, sign: signal.Signals) -> int:
        """Send a signal; the exit code."""
        assert self.process is not None
        self.process.send_signal(sign)
        return self.process.wait(HANGS_S)

    def poll(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def log(self) -> str:
        log = self.home / "log"
        return log.read_text() if log.exists() else ""

    def tail(self) -> str:
        return self.log()[-3000:]


class World:
    """The test's side: blocks in, steps out."""

    numbers: tuple[int, ...] = (1, 2)
    """Of its workers."""

    def __init__(self, home: Path, kafka_port: int, aws_url: str, access: dict[str, str] | None = None) -> None:
        """`access` has the settings with which clients get in, where the broker asks for more than its port."""
        access = access or {"kafka": f"127.0.0.1:{kafka_port}"}
        self.settings = Settings(
            **{"home": home, "partitions": 4, "replication_factor": 1, "min_insync_replicas": 1, **access}
        )
        credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        self.aws_environment = {"AWS_ENDPOINT_URL": aws_url, **credentials}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("INSTREAM_", "FAUST_"))},
            **self.aws_environment, "INSTREAM_PARTITIONS": "4", "INSTREAM_REPLICATION_FACTOR": "1",
            "INSTREAM_MIN_INSYNC_REPLICAS": "1", **{f"INSTREAM_{name.upper()}": value for name, value in access.items()},
        }  # fmt: skip
        self.topics = topics_of(self.settings)
        self.workers = [self._worker(n) for n in self.numbers]
        self.accepted: dict[int, Accepted] = dict.fromkeys(range(4), Accepted())
        self.steps: dict[int, list[StepMessage]] = {partition: [] for partition in range(4)}
        self.ignored = 0
        self._read: dict[int, int] = dict.fromkeys(range(4), 0)
        self._logs = LogReader(self.settings)
        self._producer: Any = None

    def _worker(self, number: int) -> Worker:
        return Worker(self.settings.home / f"worker-{number}", self._environment)

    async def __aenter__(self) -> "World":
        await S3ObjectStore(self.settings).ensure()
        await self._logs.start()
        self._producer = AIOKafkaProducer(**kafka_clients.producer(self.settings))
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.process is not None and worker.poll() is None:
                worker.end(signal.SIGKILL)
        await self._producer.stop()
        await self._logs.stop()

    async def send(self, topic: str, partition: int, value: bytes) -> None:
        await self._producer.send_and_wait(topic, value, partition=partition)

    async def look(self) -> int:
        """Read new messages of `rows` like a sink. Returns: the number of accepted steps."""
        ends = await self._logs.end_offsets(self.topics.rows.name, range(4))
        for partition, end in ends.items():
            for offset in range(self._read[partition], end):
                message = await self._logs.message_at(self.topics.rows.name, partition, offset)
                assert message is not None
                self._take(decode_step(message), offset)
            self._read[partition] = end
        return sum(map(len, self.steps.values()))

    def _take(self, step: StepMessage, offset: int) -> None:
        accepted = self.accepted[step.partition]
        verdict = accepted.judge(step.number, step.predecessor)
        assert verdict is not StepVerdict.GAP, f"partition {step.partition} offset {offset}"
        if verdict is StepVerdict.ACCEPT:
            self.accepted[step.partition] = accepted.advance(offset)
            self.steps[step.partition].append(step)
        else:
            self.ignored += 1

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition (a function, async or not); a wait that hangs fails with the workers' last log lines."""
        await until(condition, PAUSE_S, lambda: "\n".join([f"{what}:", *(worker.tail() for worker in self.workers)]))
