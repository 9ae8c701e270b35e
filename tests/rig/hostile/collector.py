"""A real collector process over an AWS stand-in of its own, and what it costs: CPU time, memory, descriptors, log."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import psutil

from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.local.services.aws import wait_ready
from app.local.stack.ports import own_port
from app.settings import Settings
from app.variables import take_on
from tests.worlds.waiting import HANGS_S, PAUSE_S, until

MIB: Final = 1024**2
KEY: Final = "hostile-key"
SETTINGS: Final = {"INSTREAM_WRITE_KEYS": f"{KEY}:browser", "INSTREAM_LINGER_MS": "50", "INSTREAM_LOG_FORMAT": "json"}


class HostileCollector:
    """A collector under attack, as an operator sees it."""

    def __init__(self, process: psutil.Process, services: subprocess.Popen[bytes], settings: Settings, log: Path) -> None:
        self.process = process
        self.settings = settings
        self.log = log
        self._services = services
        self.port = settings.collector_port
        self.url = f"http://127.0.0.1:{settings.collector_port}"
        self.ops = f"http://127.0.0.1:{settings.web_port}"

    def cpu_s(self) -> float:
        """CPU time of the process since its start."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def resident_bytes(self) -> int:
        """Resident memory now."""
        return int(self.process.memory_info().rss)

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.ops}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    async def ready(self) -> str:
        """The reason on /ready, empty if it is ready."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.ops}/ready") as answer:
            return str((await answer.json()).get("reason", ""))

    def freeze_services(self) -> None:
        """S3, the registry and Kinesis take connections and do not answer."""
        self._services.send_signal(signal.SIGSTOP)

    def thaw_services(self) -> None:
        """They go on."""
        self._services.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def hostile_collector(descriptors: int | None = None, **changes: str) -> AsyncIterator[HostileCollector]:
    """A collector that is ready; it and its services end with the context.

    Args:
        descriptors: RLIMIT_NOFILE of the collector.
        changes: more settings, by their names without the prefix.
    """
    services_port = own_port()
    variables = {
        **SETTINGS,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{services_port}",
        "AWS_ACCESS_KEY_ID": "stand-in",
        "AWS_SECRET_ACCESS_KEY": "stand-in",
        "AWS_DEFAULT_REGION": "us-east-1",
        "INSTREAM_COLLECTOR_PORT": str(own_port()),
        "INSTREAM_WEB_PORT": str(own_port()),
        **{f"INSTREAM_{name}": value for name, value in changes.items()},
    }
    before = dict(os.environ)
    for name in [name for name in os.environ if name.upper().startswith(("AWS_", "INSTREAM_"))]:
        del os.environ[name]
    take_on(variables)
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        log = Path(folder) / "log"
        services = _start("app.local.services.aws", "--port", str(services_port))
        try:
            wait_ready(variables["AWS_ENDPOINT_URL"], HANGS_S)
            settings = Settings()
            for adapter in (S3ObjectStore(settings), DynamoRegistry(settings), KinesisBlockStream(settings)):
                await adapter.ensure()
            process = _start("app.collector", log=log)
            if descriptors is not None:  # the process reads its limit after its imports, hundreds of milliseconds later
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))
            try:
                found = HostileCollector(psutil.Process(process.pid), services, settings, log)
                await until(lambda: _is_ready(found, process), PAUSE_S)
                yield found
            finally:
                process.kill()
                process.wait()
        finally:
            services.send_signal(signal.SIGCONT)
            services.terminate()
            services.wait()
            os.environ.clear()
            os.environ.update(before)


def _start(module: str, *arguments: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as files:
        errors = None if log is None else files.enter_context(log.open("wb"))
        return subprocess.Popen([sys.executable, "-m", module, *arguments], stderr=errors)


async def _is_ready(found: HostileCollector, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, found.log.read_text()
    try:
        return await found.ready() == ""
    except (TimeoutError, aiohttp.ClientError):
        return False
