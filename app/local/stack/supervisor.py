"""The process behind `instream up`: starts everything, restarts what dies, takes everything down.

    python -m app.local.stack.supervisor LOCK_FD

`app.local.stack.control` starts it, detached, with HOME's lock in that descriptor.

`app.local.stack.start_order` has the order of the start. The AWS stand-in has no disk: its death or its reset
ends the life. Everything else is started again, on the same data and port, each role from the code tree that trees.json
names (`app.local.stack.trees`); the collector by a spare that is warm (`app.local.stack.spare`).
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import psutil
import structlog

from app.clock import Clock, SystemClock
from app.local.services.aws_faults import FAULTS_PATH
from app.local.stack.aws_state import until_gone
from app.local.stack.environment import (
    ROLES,
    SERVICES,
    WORKERS,
    process_environment,
    stack_variables,
)
from app.local.stack.keeper import Keeper, ProcessSpec
from app.local.stack.life import Home, Life, State, end_leftovers, started
from app.local.stack.ports import HOST, Claim, claim_ports, release
from app.local.stack.settings import read_local_settings
from app.local.stack.spare import SPARE, Spare
from app.local.stack.stack_file import Stack, StackProcess, StackSettings
from app.local.stack.start_order import READY_TIMEOUT_S, StartOrder
from app.local.stack.trees import Trees
from app.settings import Settings, read_settings
from app.telemetry import configure_logging

log = structlog.get_logger(__name__)

INFRASTRUCTURE: Final = ("aws", "kafka", "postgres", "warehouse")


class Supervisor:
    """One life of the stack in `home`."""

    def __init__(self, home: Home, caller: Mapping[str, str], clock: Clock) -> None:
        """Prepare a life; nothing starts before `run`.

        Args:
            home: where it lives; its lock is held by this process.
            caller: the environment of whoever said `up`.
            clock: measures how long processes live.
        """
        self._home = home
        self._caller = caller
        self._clock = clock
        self._life = Life(state=State.STARTING, supervisor=started("supervisor", os.getpid()))
        self._claims: dict[str, Claim] = {}
        self._keepers: dict[str, Keeper] = {}
        self._spare: Spare | None = None
        self._trees = Trees(home.path)
        self._end = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._environment: dict[str, str] = {}
        self._variables: dict[str, str] = {}

    async def run(self) -> int:
        """Start, keep, and at the end take down. Returns: the exit code, 1 where nobody asked for the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        starting = asyncio.create_task(self._start())
        ending = asyncio.create_task(self._end.wait())
        try:
            await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await ending
        except Exception as exc:
            log.exception("start failed")
            self._fail("; ".join(_reasons(exc)))
        finally:
            starting.cancel()
            await asyncio.wait({starting})
            await self._take_down()
        return 1 if self._life.failure else 0

    @property
    def _endpoint(self) -> str:
        """Where the AWS stand-in answers."""
        return self._variables["AWS_ENDPOINT_URL"]

    # --- start

    async def _start(self) -> None:
        await self._begin_life()
        ports = self._take_ports()
        self._variables = stack_variables(self._home.path, ports, self._caller)
        self._environment = process_environment(self._caller, self._variables)
        os.environ.clear()
        os.environ.update(self._environment)
        settings = read_settings()
        order = StartOrder(self._home, settings, ports, self._trees, self._keep)
        self._say("starting Kafka, PostgreSQL and the AWS stand-in")
        await order.start_services()
        self._say("starting the workers: " + ", ".join(WORKERS))
        await order.start_workers()
        self._life.state = State.READY
        self._write_stack()
        self._keep_spare()
        self._watch = asyncio.create_task(self._watch_aws(settings.bucket))
        self._say(f"ready: events go to http://{HOST}:{ports['collector']}/v1/events")

    async def _begin_life(self) -> None:
        """Leave nothing of an earlier life running or readable."""
        previous = self._home.read_life()
        if previous:
            self._life.processes = previous.processes
            if ended := await asyncio.to_thread(end_leftovers, previous):
                self._say("ended what an earlier supervisor left running: " + ", ".join(ended))
        if self._home.wipe():
            self._say("removed the data of the last life (its S3 was in memory only)")
        self._life.processes = []
        self._record()

    def _take_ports(self) -> dict[str, int]:
        self._claims = claim_ports(SERVICES, read_local_settings().set_ports)
        for service in SERVICES:
            if self._claims[service.name].moved:
                port = self._claims[service.name].port
                self._say(f"port {service.usual} is taken: {service.name} listens on {port}")
        return {name: held.port for name, held in self._claims.items()}

    async def _keep(
        self, name: str, command: list[str], *, extra: Mapping[str, str] | None = None, fatal: bool = False,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Keeper:  # fmt: skip
        spec = ProcessSpec(
            name=name, command=command, environment=self._environment | dict(extra or {}), folder=self._home.path,
            log=self._home.logs / f"{name}.log", fatal=fatal, stop_signal=stop_signal,
            healthy_s=read_local_settings().restart_healthy_s,
        )  # fmt: skip
        keeper = Keeper(spec, self._clock, self._record, self._fail)
        if name in ROLES:
            keeper.variables = partial(self._trees.variables, name)
        keeper.died = self._record
        self._keepers[name] = keeper
        await keeper.start()
        return keeper

    def _keep_spare(self) -> None:
        """From now on a warm collector follows one that dies. Not before: `up` would take longer."""
        collector = self._keepers["collector"]
        self._spare = Spare(collector.spec, self._clock, self._record)
        self._spare.variables = collector.variables
        collector.successor = self._spare.take
        self._spare.start()

    async def _watch_aws(self, bucket: str) -> None:
        """End this life if the AWS stand-in was reset: Kafka and the warehouse would go on with half of the data."""
        await until_gone(self._endpoint, bucket)
        self._fail(f"the AWS stand-in was reset: its bucket {bucket} is gone; `instream up` begins anew")

    # --- record

    def _say(self, line: str) -> None:
        log.info(line)
        self._life.progress.append(line)
        self._home.write_life(self._life)

    def _fail(self, reason: str) -> None:
        """End this life for a reason that nobody asked for."""
        if self._life.failure is None and not self._end.is_set():
            self._life.failure = reason
            log.error("the stack ends", reason=reason)
        self._end.set()

    def _record(self) -> None:
        """Write down which processes run, and, once the stack is up, where it answers."""
        records = []
        pids = {name: keeper.pid for name, keeper in self._keepers.items()}
        if self._spare:
            pids[SPARE] = self._spare.pid
        for name, pid in pids.items():
            with contextlib.suppress(psutil.NoSuchProcess):  # died meanwhile: its restart records it again
                if pid is not None:
                    records.append(started(name, pid))
        self._life.processes = records
        try:
            self._home.write_life(self._life)
            if self._life.state is State.READY:
                self._write_stack()
        except OSError as exc:  # a full disk must not stop the restarts; the next change is recorded with this one
            log.error("processes cannot be recorded", error=str(exc))

    def _write_stack(self) -> None:
        settings = read_settings()
        ports = {name: held.port for name, held in self._claims.items()}
        collector = f"http://{HOST}:{ports['collector']}"
        processes = {
            name: StackProcess(name, keeper.pid or 0, str(keeper.spec.log)) for name, keeper in self._keepers.items()
        }
        Stack(
            home=str(self._home.path),
            supervisor_pid=os.getpid(),
            collector_url=collector,
            warehouse_url=settings.warehouse_url,
            kafka=settings.kafka,
            aws_endpoint=self._endpoint,
            bucket=settings.bucket,
            stream=settings.stream,
            registry_table=settings.registry_table,
            metrics={role: f"http://{HOST}:{ports[f'{role}-web']}/metrics" for role in ROLES},
            processes=[processes[role] for role in ROLES],
            infrastructure=[processes[name] for name in INFRASTRUCTURE],
            restarts={name: keeper.restarts for name, keeper in self._keepers.items()},
            deaths={name: list(keeper.last_deaths) for name, keeper in self._keepers.items() if keeper.last_deaths},
            postgres=f"{HOST}:{ports['postgres']}",
            controls={
                "aws": self._endpoint + FAULTS_PATH,
                "warehouse": f"http://{HOST}:{ports['warehouse-control']}/faults",
            },
            settings=StackSettings.of(settings),
            environment=self._variables,
        ).write(self._home)

    # --- end

    async def _take_down(self) -> None:
        """Stop everything, in the order of the events' way.

        The collector first, so that what it acknowledged is put, before it its spare; then the workers, told in order and
        awaited together; then what they stand on. Every wait is bounded by a kill.
        """
        self._life.state = State.STOPPING
        self._home.stack_file.unlink(missing_ok=True)
        self._say("stopping what was started" if self._life.failure else "stopping")
        if self._watch:
            self._watch.cancel()
        if self._spare:
            await self._spare.stop()
        for group in (("collector",), WORKERS, ("warehouse",), INFRASTRUCTURE):
            stopping = [asyncio.create_task(self._keepers[name].stop()) for name in group if name in self._keepers]
            await asyncio.gather(*stopping)
        release(self._claims.values())
        self._life.processes = []
        self._life.state = State.ENDED
        self._say("everything is stopped")


def _reasons(exc: BaseException) -> list[str]:
    """The texts of an exception, or of each one in a group."""
    if isinstance(exc, BaseExceptionGroup):
        return [reason for inner in exc.exceptions for reason in _reasons(inner)]
    if isinstance(exc, TimeoutError):
        return [f"the stack was not ready after {READY_TIMEOUT_S} s"]
    return [str(exc) or type(exc).__name__]


def main() -> int:
    """Run one life; the lock's descriptor, inherited open, stays this process's until it ends."""
    os.set_inheritable(int(sys.argv[1]), False)
    caller = dict(os.environ)
    home = Home(Path(caller["INSTREAM_HOME"]))
    configure_logging(Settings(log_format="json"), "supervisor")
    return asyncio.run(Supervisor(home, caller, SystemClock()).run())


if __name__ == "__main__":
    sys.exit(main())
