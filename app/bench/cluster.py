"""A real broker, the AWS stand-in and faust workers for the stages that need them; the broker runs on the other cores."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from app.adapters.kafka import ensure_topics
from app.adapters.s3 import S3ObjectStore
from app.bench.measure import WORK_CORE, pin
from app.errors import LocalStackError
from app.local.services import kafka
from app.local.services.aws import HEALTH_PATH
from app.local.stack.environment import process_environment
from app.local.stack.ports import own_port
from app.settings import Settings
from app.variables import take_on

ROOT = Path(__file__).parents[2]
READY_S = 60.0


class BenchWorker:
    """A faust worker on a core of its own."""

    def __init__(self, role: str, home: Path, variables: dict[str, str]) -> None:
        self._port = own_port()
        home.mkdir(parents=True)
        mine = {"INSTREAM_HOME": str(home), "INSTREAM_WEB_PORT": str(self._port), "INSTREAM_LOG_FORMAT": "json"}
        with (home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "faust"), "-A", f"app.worker:{role}", "worker", "-l", "warn"],
                env=process_environment(os.environ, variables | mine), cwd=ROOT, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        self._log = home / "log"
        self.pid = self._process.pid
        pin(self.pid, WORK_CORE)

    def await_ready(self) -> None:
        """Return when /ready answers that the worker is ready.

        Raises:
            LocalStackError: the worker ends, or is not ready in time.
        """
        deadline_s = time.monotonic() + READY_S
        while not _answers(f"http://127.0.0.1:{self._port}/ready"):
            self.check()
            if time.monotonic() > deadline_s:
                raise LocalStackError(f"the worker is not ready after {READY_S:.0f} s: {self._log.read_text()[-500:]}")
            time.sleep(0.02)

    def check(self) -> None:
        """Raises LocalStackError if the worker has ended."""
        if (code := self._process.poll()) is not None:
            raise LocalStackError(f"the worker ended with {code}: {self._log.read_text()[-500:]}")

    def stop(self) -> None:
        """End the worker in good order."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class BenchCluster:
    """Broker and AWS stand-in, with the topics made."""

    def __init__(self, folder: Path, settings: Settings, variables: dict[str, str]) -> None:
        self.settings = settings
        self._folder = folder
        self._variables = variables

    @contextmanager
    def worker(self, role: str, name: str) -> Iterator[BenchWorker]:
        """A worker with a folder of its own."""
        worker = BenchWorker(role, self._folder / name, self._variables)
        try:
            yield worker
        finally:
            worker.stop()


@contextmanager
def cluster(partitions: int, *, aws: bool = True) -> Iterator[BenchCluster]:
    """Start the services of a worker; after the block they are gone, with their folder."""
    with tempfile.TemporaryDirectory(prefix="instream-bench-", ignore_cleanup_errors=True) as name:
        folder, processes = Path(name), list[subprocess.Popen[bytes]]()
        broker_port, aws_port = own_port(), own_port()
        variables = {
            "INSTREAM_KAFKA": f"127.0.0.1:{broker_port}", "INSTREAM_PARTITIONS": str(partitions),
            "INSTREAM_REPLICATION_FACTOR": "1", "INSTREAM_MIN_INSYNC_REPLICAS": "1", "POLARS_MAX_THREADS": "1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws_port}", "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost",
        }  # fmt: skip
        take_on(variables)
        settings = Settings(home=folder)
        kafka.prepare(folder / "kafka", kafka.KafkaPorts(broker_port, own_port()), settings.max_message_bytes)
        try:
            commands = [kafka.command(folder / "kafka")]
            if aws:
                commands.append([sys.executable, "-m", "app.local.services.aws", "--port", str(aws_port)])
            for number, command in enumerate(commands):
                with (folder / f"{number}.log").open("wb") as log:
                    processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT))
                pin(processes[-1].pid, None)
            asyncio.run(kafka.wait_ready(broker_port))
            asyncio.run(ensure_topics(settings))
            if aws:
                _await(f"http://127.0.0.1:{aws_port}{HEALTH_PATH}")
                asyncio.run(_make_bucket(settings))
            yield BenchCluster(folder, settings, variables)
        finally:
            for process in processes:
                process.kill()
                process.wait()


async def _make_bucket(settings: Settings) -> None:
    objects = S3ObjectStore(settings)
    await objects.ensure()
    await objects.close()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _await(url: str) -> None:
    deadline_s = time.monotonic() + READY_S
    while not _answers(url):
        if time.monotonic() > deadline_s:
            raise LocalStackError(f"{url} does not answer after {READY_S:.0f} s")
        time.sleep(0.05)
