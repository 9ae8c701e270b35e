"""The order in which a stack starts.

A process that needs no other starts at once, each of the others as soon as the processes that it needs answer:

    AWS stand-in -> bucket, stream, registry table -> collector
    Kafka -> topics                                           }-> five workers
    PostgreSQL -> Redshift stand-in -> schema `analytics`
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Final, Protocol

from app.errors import LocalStackError
from app.local.services import kafka, postgres
from app.local.stack.environment import WORKERS, role_variables
from app.local.stack.keeper import AT_ONCE, Keeper
from app.local.stack.life import Home
from app.local.stack.ports import HOST
from app.local.stack.probe import answers_ok, await_true
from app.local.stack.trees import INIT, Trees
from app.settings import Settings

READY_TIMEOUT_S: Final = 600
"""How long the services, and then the workers, may take. Only a process that hangs takes so long; a death is seen before."""
HEALTH_PATH: Final = "/moto-api/health"
"""Of the AWS stand-in; its module is not imported for it, because it loads all of moto."""
BIN: Final = Path(sys.executable).parent
_MIGRATE: Final = (
    "import asyncio; from app.adapters.warehouse_schema import migrate; from app.settings import read_settings; "
    "asyncio.run(migrate(read_settings().warehouse_url))"
)
"""Makes the schema of the tree in which it runs."""


class Keep(Protocol):
    """Starts a process and keeps it running."""

    async def __call__(
        self, name: str, command: list[str], *, extra: Mapping[str, str] | None = None, fatal: bool = False,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Keeper:  # fmt: skip
        """Returns: the keeper of the process `name`."""


def worker_command(role: str) -> list[str]:
    """The command that runs a worker of `role`."""
    return [str(BIN / "faust"), "-A", f"app.worker:{role}", "worker", "-l", "info"]


class StartOrder:
    """Starts the services and the roles of one stack; the environment of this process is the stack's."""

    def __init__(self, home: Home, settings: Settings, ports: Mapping[str, int], trees: Trees, keep: Keep) -> None:
        """Prepare a start.

        Args:
            home: the stack's folder.
            settings: lead to its services.
            ports: service -> port, of every service.
            trees: say whose schema the warehouse begins with.
            keep: starts a process.
        """
        self._home = home
        self._settings = settings
        self._ports = ports
        self._trees = trees
        self._keep = keep

    async def start_services(self) -> None:
        """Start everything but the workers, and make the bucket, stream, tables and topics that the workers need.

        Raises:
            LocalStackError: a process does not answer; the text has the end of its log.
            TimeoutError: it takes too long.
        """
        async with asyncio.timeout(READY_TIMEOUT_S), asyncio.TaskGroup() as group:
            group.create_task(self._start_aws_then_collector())
            group.create_task(self._start_kafka())
            group.create_task(self._start_warehouse())

    async def start_workers(self) -> None:
        """Start the workers, all at once.

        Raises:
            LocalStackError, TimeoutError: as `start_services`.
        """
        async with asyncio.timeout(READY_TIMEOUT_S), asyncio.TaskGroup() as group:
            for role in WORKERS:
                group.create_task(self._start_worker(role))

    async def _start_aws_then_collector(self) -> None:
        from app.adapters.kinesis import KinesisBlockStream  # noqa: PLC0415 - boto3 loads while the stand-in starts
        from app.adapters.registry import DynamoRegistry  # noqa: PLC0415
        from app.adapters.s3 import S3ObjectStore  # noqa: PLC0415

        command = [sys.executable, "-m", "app.local.services.aws", "--port", str(self._ports["aws"])]
        keeper = await self._keep("aws", command, fatal=True)
        url = os.environ["AWS_ENDPOINT_URL"] + HEALTH_PATH
        await self._first_answer(keeper, await_true(lambda: answers_ok(url)))
        async with asyncio.TaskGroup() as group:
            for adapter in (
                S3ObjectStore(self._settings), DynamoRegistry(self._settings), KinesisBlockStream(self._settings)
            ):  # fmt: skip
                group.create_task(adapter.ensure())
        command = [sys.executable, "-m", "app.collector"]
        keeper = await self._keep("collector", command, extra=self._variables_of("collector"))
        await self._first_answer(keeper, self._ready("collector"))

    async def _start_kafka(self) -> None:
        folder = self._home.data / "kafka"
        kafka_ports = kafka.KafkaPorts(self._ports["kafka"], self._ports["kafka-controller"])
        await asyncio.to_thread(kafka.prepare, folder, kafka_ports, self._settings.max_message_bytes)
        keeper = await self._keep("kafka", kafka.command(folder))
        await self._first_answer(keeper, kafka.wait_ready(kafka_ports.broker, READY_TIMEOUT_S))
        from app.adapters.kafka import ensure_topics  # noqa: PLC0415 - aiokafka loads while the broker starts

        await ensure_topics(self._settings)

    async def _start_warehouse(self) -> None:
        from app.local import redshift  # noqa: PLC0415

        folder = self._home.data / "postgres"
        await asyncio.to_thread(postgres.init, folder)
        command = postgres.command(folder, self._ports["postgres"])
        keeper = await self._keep("postgres", command, stop_signal=signal.SIGINT)
        await self._first_answer(keeper, postgres.wait_ready(self._ports["postgres"], READY_TIMEOUT_S))
        port, postgres_port = self._ports["warehouse"], self._ports["postgres"]
        command = redshift.command(port, postgres_port, control_port=self._ports["warehouse-control"])
        keeper = await self._keep("warehouse", command)
        await self._first_answer(keeper, redshift.wait_ready(self._settings.warehouse_url, READY_TIMEOUT_S))
        await self._make_schema()

    async def _make_schema(self) -> None:
        """Make the schema of the tree that the roles begin with; a newer one would hide that an older tree needs `init`."""
        variables = self._trees.variables(INIT)
        if not variables:
            from app.adapters.warehouse_schema import migrate  # noqa: PLC0415

            await migrate(self._settings.warehouse_url)
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _MIGRATE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | variables, cwd=self._home.path,
        )  # fmt: skip
        said, _ = await process.communicate()
        if process.returncode:
            raise LocalStackError(f"the schema of {variables['PYTHONPATH']} cannot be made: {said.decode(errors='replace')}")

    async def _start_worker(self, role: str) -> None:
        keeper = await self._keep(role, worker_command(role), extra=self._variables_of(role))
        await self._first_answer(keeper, self._ready(role))

    def _variables_of(self, role: str) -> dict[str, str]:
        return role_variables(role, self._home.path, self._ports)

    def _ready(self, role: str) -> Awaitable[None]:
        port = self._ports["collector" if role == "collector" else f"{role}-web"]
        return await_true(lambda: answers_ok(f"http://{HOST}:{port}/ready"))

    async def _first_answer(self, keeper: Keeper, answer: Awaitable[None]) -> None:
        """Wait for a process that was just started; give it up when it dies again and again.

        Raises:
            LocalStackError: it never answered; the text has the end of its log.
        """
        waiting = asyncio.ensure_future(answer)
        try:
            while not waiting.done():
                if keeper.deaths.in_a_row >= AT_ONCE:
                    raise LocalStackError(f"{keeper.spec.name} dies again and again; {_end_of(keeper.spec.log)}")
                await asyncio.wait({waiting}, timeout=0.2)
            waiting.result()
        except TimeoutError as exc:
            raise LocalStackError(f"{keeper.spec.name} does not answer; {_end_of(keeper.spec.log)}") from exc
        finally:
            waiting.cancel()


def _end_of(path: Path) -> str:
    """The last words in a log that say something, for an error text."""
    lines = path.read_bytes()[-65_536:].decode(errors="replace").strip().splitlines()
    words = [word for line in lines[-20:] if (word := _gist(line))]
    return f"its last words in {path}:\n" + "\n".join(f"  {word[:300]}" for word in dict.fromkeys(words[-4:]))


def _gist(line: str) -> str:
    """A log line in short: of a JSON line the exception's end, or the event with its error."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line.strip()
    if not isinstance(entry, dict):
        return line.strip()
    if exception := entry.get("exception"):
        return str(exception).strip().splitlines()[-1]
    return " ".join(str(entry[name]) for name in ("event", "error", "reason") if name in entry)
