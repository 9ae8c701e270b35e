"""Our Faust app: the settings and hooks under which it neither loses messages nor hangs.

Faust's own defaults drop messages that were fetched while tables recover, skip a message whose agent raised, and wait for
ever on one unacknowledged message at shutdown. This app changes the following, for every role alike:

- flow stays stopped from the end of recovery until Faust has put the consumer at its offsets (`_hold_flow`);
- an agent's exception ends the worker (CrashingSupervisor), and so does an exception of a task of ours (`crash`);
- on revoke and on stop the hooks of `when_leaving` run before partitions, stores and consumer go (`app.shell.hooks`);
- once partitions are owned and tables recovered the hooks of `when_assigned` run (`on_rebalance_end`);
- a shutdown that hangs is cut short (`app.shell.deadline`);
- a worker ends itself if its input waits, if its acknowledgements are not committed, or if the recovery of its tables makes
  no progress (`app.shell.watchdog`).
"""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, cast

import faust
import structlog
from faust.types import TP

from app.adapters.kafka import LogReader
from app.crash.points import crash_points
from app.crash.proxies import around
from app.settings import Settings
from app.shell.deadline import CRASH_GRACE_S, STOP_GRACE_S, Deadline
from app.shell.hooks import AssignedHook, LeavingHook, OwnershipHooks, by_topic
from app.shell.ops import OpsServer
from app.shell.outside_calls import noted
from app.shell.ports import Ports
from app.shell.transport import Consumer, Transport
from app.shell.watchdog import Watchdog

log = structlog.get_logger(__name__)


class InstreamApp(faust.App):
    """A Faust app of one role.

    Attributes:
        role: bridge, etl, sink, delivery or audit.
        settings: The process's settings.
        ports: The adapters, built when first asked for.
        watchdog: Ends the worker when a watched partition stands still.
    """

    def __init__(self, role: str, settings: Settings, **options: Any) -> None:
        self.role = role
        self.settings = settings
        self.ports = Ports(settings, crash_points(role, settings))
        self.watchdog = Watchdog(self, settings.stall_timeout_s)
        self.ops = OpsServer(settings, self.readiness)
        self.starting_hooks: list[Callable[[], object]] = []
        self.hooks = OwnershipHooks(self)
        self._readiness_checks: list[Callable[[], str | None]] = []
        self._waiting_for: str | None = "start"
        self._deadline = Deadline()
        self._logs: LogReader | None = None
        self._logs_lock = asyncio.Lock()
        super().__init__(f"instream-{role}-e{settings.epoch}", **options)
        self._web_server_service = self.ops  # Faust then never builds its own web server
        self.on_rebalance_complete.connect(self._hold_flow)
        self.on_partitions_revoked.connect(self._on_revoked)

    # --- hooks of agents

    def when_starting(self, hook: Callable[[], object]) -> Callable[[], object]:
        """Call `hook()` before the worker starts; an InstreamError from it is a refusal to start, shown in one line."""
        self.starting_hooks.append(hook)
        return hook

    def when_assigned(self, hook: AssignedHook) -> AssignedHook:
        """Call `hook(assignment)` each time partitions are assigned, tables recovered and the flow resumed."""
        self.hooks.assigned.append(hook)
        return hook

    def when_leaving(self, hook: LeavingHook) -> LeavingHook:
        """Call `hook()` before partitions are revoked and before the app stops; bounded by `LEAVE_TIMEOUT_S`."""
        self.hooks.leaving.append(hook)
        return hook

    def ready_when(self, check: Callable[[], str | None]) -> None:
        """Let /ready ask `check` too: None, or in a few words the reason to wait."""
        self._readiness_checks.append(check)

    def readiness(self) -> str | None:
        """None when this worker owns its partitions and works; else the reason why it waits.

        A service that does not answer is one, or that refused this worker's last call.
        """
        if self._waiting_for is not None:
            return self._waiting_for
        own = next((reason for check in self._readiness_checks if (reason := check()) is not None), None)
        return self.ports.calls.reason() if own is None else own

    def recovery_progress(self) -> Hashable | None:
        """None while partitions are owned and recovered; until then a value that changes with every progress."""
        if self._waiting_for is None and not self.rebalancing:
            return None
        recovery = cast(Any, self.tables).recovery
        return self.consumer_generation_id, tuple(sorted(recovery.active_offsets.items()))

    def is_current(self, generation_id: int) -> bool:
        """Whether this process may still work on a message of this generation of the group."""
        return not (self.should_stop or self.rebalancing or generation_id != self.consumer_generation_id)

    def source_topic(self, name: str, partitions: int) -> Any:
        """A Faust topic of raw bytes that already exists (`ensure_topics` made it)."""
        return self.topic(
            name, partitions=partitions, internal=False, allow_empty=True, key_type=bytes, value_type=bytes,
            key_serializer="raw", value_serializer="raw",
        )  # fmt: skip

    @property
    def group(self) -> str:
        """The name of the consumer group."""
        name: str = self.conf.id
        return name

    async def reposition(self, tp: TP, offset: int) -> None:
        """Read and commit `tp` from `offset` on (`app.shell.transport.Consumer.reposition`)."""
        await self._consumer_of_ours.reposition(tp, offset)

    def acknowledged(self) -> dict[TP, int]:
        """Owned partition -> the offset behind the last message that was acknowledged here."""
        return self._consumer_of_ours.acknowledged

    def ask_consumer(self) -> "Future[None]":
        """A future that the consumer's thread fulfils (`app.shell.transport.Consumer.ask`)."""
        return self._consumer_of_ours.ask()

    @property
    def _consumer_of_ours(self) -> Consumer:
        consumer = self.consumer
        if not isinstance(consumer, Consumer):
            raise TypeError(f"consumer is {type(consumer).__name__}, not {Consumer.__name__}")
        return consumer

    async def logs(self) -> LogReader:
        """The app's reader of log bounds and single messages, connected at the first call.

        Faust's consumer answers such questions only between two long polls, seconds later.
        """
        async with self._logs_lock:
            if self._logs is None:
                reader = LogReader(self.settings)
                await reader.start()
                self._logs = noted(self.ports.calls, "kafka", around(self.ports.points, "logs", reader))
        return self._logs

    # --- called by Faust

    def _new_transport(self) -> Transport:
        if self.ports.points is None:
            return Transport(self.conf.broker_consumer, self)
        from app.shell import crash_transport  # noqa: PLC0415 - in tests of recovery alone

        return crash_transport.CrashTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        self.conf.tabledir.mkdir(parents=True, exist_ok=True)

    async def on_started_init_web_server(self) -> None:
        """Nothing: the worker started the operations pages before everything else."""

    async def on_started(self) -> None:
        """Start the watchdog before Faust waits for the recovery of the tables."""
        await self.add_runtime_dependency(self.watchdog)
        await super().on_started()

    async def on_stop(self) -> None:
        """Let the hooks finish first: Faust closes the stores before it sends any signal."""
        self._waiting_for = "shutdown"
        self._end_within(STOP_GRACE_S, "stop")
        await self.hooks.leave("stop")
        await super().on_stop()
        if self._logs is not None:
            await self._logs.stop()
            self._logs = None

    def _crash(self, reason: BaseException) -> None:
        """Mark the app and its services as crashed (called for a crash anywhere below the worker)."""
        self._end_within(CRASH_GRACE_S, "crash")
        super()._crash(reason)

    def _end_within(self, seconds: float, why: str) -> None:
        if self.in_worker:  # a test's process must not end
            self._deadline.set(seconds, why)

    def on_rebalance_start(self) -> None:
        """Not ready from here (called in the consumer's thread)."""
        self._waiting_for = "rebalance"
        super().on_rebalance_start()

    def on_rebalance_end(self) -> None:
        """Recovered and flowing: run the hooks of `when_assigned`."""
        super().on_rebalance_end()
        self._waiting_for = None
        self.add_future(self.hooks.run_assigned(frozenset(self.consumer.assignment()), self.consumer_generation_id))

    # --- inside

    async def _hold_flow(self, *_: Any, **__: Any) -> None:
        """Leave messages in Kafka for now: Faust clears its queues once more before it goes on."""
        self.consumer.stop_flow()
        self.flow_control.suspend()

    async def _on_revoked(self, *args: Any, **_: Any) -> None:
        revoked: set[TP] = args[-1]
        if not revoked:
            return
        log.info("partitions revoked", partitions=by_topic(revoked))
        await self.hooks.leave("revoke")
        await self.consumer.commit()
