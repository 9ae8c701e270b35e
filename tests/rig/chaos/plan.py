"""The faults and their times, drawn from the seed before the start."""

import random
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec


class Kind(StrEnum):
    """A kind of fault that the run must carry out; failures of single calls are in `app.local.services.aws_faults`."""

    TERM = "TERM of a role"
    KILL = "KILL of a role"
    ZOMBIE = "worker stopped past its session, then woken"
    BROKER = "broker killed"
    REBALANCE = "worker added or removed"
    STATE_DELETED = "RocksDB deleted"
    STATE_TRUNCATED = "RocksDB truncated"
    STATE_ROLLED_BACK = "RocksDB rolled back"
    SPLIT = "shard split"
    MERGE = "shards merged"
    S3_OUTAGE = "S3 down for seconds"
    DISK_FULL = "warehouse: disk full"
    LOCK_TIMEOUT = "warehouse: lock timeout"
    VACUUM = "warehouse: table locked as by VACUUM"
    SERIALIZATION = "warehouse: 1023"
    REFUSED = "warehouse: connection refused"
    DROP_MID_COPY = "warehouse: dropped mid-COPY"
    DROP_BEFORE_COMMIT = "warehouse: dropped before COMMIT"
    DROP_AFTER_COMMIT = "warehouse: dropped after COMMIT"
    UNREADABLE = "warehouse: file unreadable"
    FOREIGN_MESSAGE = "foreign messages on every topic, and in the stream"
    DAMAGED_MESSAGE = "damaged copy of a message on every topic"
    ITEM = "registry item that is no batch"
    RAW_FILE = "raw file damaged"
    READY = "ready.json deleted"
    RECORD = "transaction record damaged"
    DATA_FILE = "data file damaged"


class Fault(msgspec.Struct, frozen=True):
    """One fault to come."""

    at_s: float
    """Seconds after the faults begin."""
    kind: Kind
    target: str = ""
    """The worker that the fault should meet; another one of its kind if that one is down or stopped."""
    lasts_s: float = 0.0
    chance: int = 0
    """Decides about a file or a shard that the plan cannot know yet."""


SHORTEST_S: Final = 0.1
LONGEST_S: Final = 20.0
"""Seconds between two signals to roles; spread evenly over the logarithm, so that there are bursts and quiet times."""
SIGNALS_A_MINUTE: Final = 14.5
KILL_SHARE: Final = 0.27
ROLES: Final = ("collector", "bridge", "etl", "etl-2", "sink", "sink-2", "delivery", "audit")
EXTRA: Final = ("etl-2", "sink-2")
"""Workers beside the supervised ones, there from the start."""
STORM: Final = ("etl-2", "etl-3", "sink-2", "sink-3")
"""Workers that rebalance storms add or remove."""
STOPPABLE: Final = ("bridge", "etl", "etl-2", "sink", "sink-2", "delivery")
_STATEFUL: Final = ("etl", "etl-2")
_EVERY_S: Final = {
    Kind.ZOMBIE: 45, Kind.BROKER: 200, Kind.REBALANCE: 40, Kind.STATE_DELETED: 110, Kind.STATE_TRUNCATED: 110,
    Kind.STATE_ROLLED_BACK: 110, Kind.SPLIT: 70, Kind.MERGE: 70, Kind.S3_OUTAGE: 120, Kind.DISK_FULL: 90,
    Kind.LOCK_TIMEOUT: 120, Kind.VACUUM: 100, Kind.SERIALIZATION: 90, Kind.REFUSED: 120, Kind.DROP_MID_COPY: 60,
    Kind.DROP_BEFORE_COMMIT: 60, Kind.DROP_AFTER_COMMIT: 40, Kind.UNREADABLE: 120, Kind.FOREIGN_MESSAGE: 60,
    Kind.DAMAGED_MESSAGE: 60, Kind.ITEM: 60, Kind.RAW_FILE: 60, Kind.READY: 150, Kind.RECORD: 150, Kind.DATA_FILE: 150,
}  # fmt: skip
"""About so many seconds lie between two faults of a kind; each kind comes at least once."""
SLOW: Final = frozenset({Kind.READY, Kind.RECORD, Kind.DATA_FILE})
"""Kinds for which delivery stands still until the sink has committed twice: a run shorter than `SLOW_FROM_S` has none."""
SLOW_FROM_S: Final = 100.0
_LASTS_S: Final = {Kind.ZOMBIE: (7.5, 14.0), Kind.VACUUM: (5.0, 15.0), Kind.S3_OUTAGE: (1.0, 5.0)}
_TARGETS: Final = {
    Kind.ZOMBIE: STOPPABLE, Kind.REBALANCE: STORM, Kind.STATE_DELETED: _STATEFUL, Kind.STATE_TRUNCATED: _STATEFUL,
    Kind.STATE_ROLLED_BACK: _STATEFUL,
}  # fmt: skip


def kinds_of(seconds: float) -> list[Kind]:
    """The kinds of faults in a run of this length."""
    return [kind for kind in Kind if kind not in SLOW or seconds >= SLOW_FROM_S]


def plan(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run, in order of time.

    Args:
        seed: the same gives the same plan.
        seconds: length of the time with faults.

    Guarantees: every kind of `kinds_of` at least once; at least `SIGNALS_A_MINUTE` signals a minute, `KILL_SHARE` of them
    KILL.
    """
    rng = random.Random(f"chaos {seed}")
    faults = [*_signals(rng, seconds)]
    for kind in kinds_of(seconds):
        if (every_s := _EVERY_S.get(kind)) is None:
            continue  # a signal
        count = max(1, round(seconds / every_s))
        for number in range(count):
            at_s = (number + rng.uniform(0.1, 0.9)) * seconds / count
            low, high = _LASTS_S.get(kind, (0.0, 0.0))
            target = rng.choice(_TARGETS[kind]) if kind in _TARGETS else ""
            faults.append(Fault(round(at_s, 2), kind, target, round(rng.uniform(low, high), 1), rng.randrange(2**31)))
    return sorted(faults, key=lambda fault: fault.at_s)


def _signals(rng: random.Random, seconds: float) -> Iterator[Fault]:
    moments: list[float] = []
    at_s = 0.0
    while True:
        at_s += SHORTEST_S * (LONGEST_S / SHORTEST_S) ** rng.random()
        if at_s >= seconds:
            break
        moments.append(at_s)
    while len(moments) < SIGNALS_A_MINUTE * seconds / 60:
        moments.append(rng.uniform(0, seconds))
    kills = round(len(moments) * KILL_SHARE)
    kinds = [Kind.KILL] * kills + [Kind.TERM] * (len(moments) - kills)
    rng.shuffle(kinds)
    for moment, kind in zip(sorted(moments), kinds, strict=True):
        yield Fault(round(moment, 2), kind, rng.choice(ROLES), chance=rng.randrange(2**31))
