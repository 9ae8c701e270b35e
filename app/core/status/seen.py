"""What was seen of a pipeline from outside: its processes, the roles' own answers, the services, and the way of the data."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

ROLES: Final = ("collector", "bridge", "etl", "sink", "delivery", "audit")
"""In the order in which events pass them."""
STAGES: Final = ("bridge", "etl", "sink", "delivery")
"""The stages that have a lag: how old the oldest thing is that the stage has not passed."""


class ProcessDeath(msgspec.Struct, frozen=True):
    """An end of a process that nobody asked for."""

    at_ms: int
    why: str
    """Its exit code or signal, in words."""
    lived_s: float


class ProcessSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the local stack; None of this is known elsewhere."""

    pid: int | None
    """None while it does not run."""
    is_frozen: bool = False
    """It was stopped by a signal (SIGSTOP) and does not run on."""
    age_s: float = 0
    restarts: int = 0
    deaths: tuple[ProcessDeath, ...] = ()
    """The last ones, the oldest first."""
    log: str = ""
    last_error: str = ""
    """The last error in its log, in one line."""


class Worker(NamedTuple):
    """A worker to ask."""

    role: str
    url: str
    """Of its pages, without a slash at the end."""
    process: ProcessSeen | None = None


class Installation(NamedTuple):
    """Where a pipeline runs: its workers, and what the local stack knows of itself."""

    workers: Sequence[Worker]
    is_local: bool = False
    state: str = "ready"
    """Of the local stack: absent, starting, ready, stopping, ended, abandoned."""
    failure: str | None = None
    services: Mapping[str, ProcessSeen] = {}
    """Service of the local stack -> its process."""
    postgres: str = ""
    """Host and port of the engine behind the local warehouse."""


class RoleSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One worker of a role."""

    role: str
    url: str = ""
    """Its pages; empty where it is not known."""
    answers: bool = True
    """Whether /ready answered in time."""
    is_refused: bool = False
    """Nobody listens at its address."""
    waits_for: str | None = None
    """The reason that /ready gives; None if it is ready or did not answer."""
    process: ProcessSeen | None = None


class ServiceSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A service that the roles stand on."""

    name: str
    """s3, registry, kinesis, kafka, warehouse; of the local stack also aws and postgres, which are behind them."""
    fault: str | None = None
    """Why it is of no use now; None if it answered as it must."""
    process: ProcessSeen | None = None


class UncoveredBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch whose lines are not all in the warehouse's ledger."""

    batch_id: str
    received_at_ms: int
    stage: str | None = None
    """The stage that holds it (`app.core.audit.stages.Stage`); None if it could not be found out."""
    until_ms: int | None = None
    """Stage `join`: the moment at which its last line leaves the window."""
    detail: str = ""


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """How far the warehouse is complete."""

    complete_up_to_ms: int | None = None
    """Every batch received before this moment is in the warehouse, line by line; None if that is not known."""
    at_once_up_to_ms: int | None = None
    """The same for the rows that do not wait for a second event."""
    is_bound: bool = False
    """The warehouse could not be asked: it is complete at least up to there."""
    oldest: UncoveredBatch | None = None
    """The oldest batch that is not covered."""
    held: UncoveredBatch | None = None
    """The oldest batch that is not covered for another reason than the join."""
    quarantined: tuple[str, ...] = ()
    """Transactions that the warehouse refused."""
    lost: int = 0
    """Batches with lines that no stage has, or that the audit's last round called lost, damaged, or doubled."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was seen at one moment."""

    now_ms: int
    is_local: bool = True
    stack_state: str = "ready"
    """Of the local stack: absent, starting, ready, stopping, ended, abandoned."""
    stack_failure: str | None = None
    roles: tuple[RoleSeen, ...] = ()
    services: tuple[ServiceSeen, ...] = ()
    lags_s: Mapping[str, float] = {}
    """Stage -> the age (s) of the oldest thing that it has not passed; a stage that could not be measured is absent."""
    freshness: Freshness = Freshness()
    unread: tuple[str, ...] = ()
    """What could not be found out, and why."""
