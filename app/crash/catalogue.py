"""Every call that a role makes to something outside its process, and the point before and after each.

A call's name is `<port>.<method>`. If one method touches different things, their name follows: `s3.put.raw` and
`s3.put.jobdata` fail in different histories. A point is `<role>.<call>.<before|after>`:

    sink.s3.put_if_absent.transactions.after      the sink's commit record is there, and the sink does not know it yet

A worker with crash points turned on refuses a call that is not listed here, so every call has its two points. Heartbeats,
joins of a group, new connections and retries belong to the client libraries and are not calls of ours.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from app.core.formats.flows import BY_NAME
from app.errors import ConfigurationError

BEFORE: Final = "before"
AFTER: Final = "after"
SIDES: Final = (BEFORE, AFTER)

_WORKER: Final = ("kafka.topics", "kafka.poll")
"""Every worker makes or checks the topics when it starts, and asks for messages."""

CALLS: Final[Mapping[str, tuple[str, ...]]] = {
    "collector": (
        "s3.head.raw",  # the clock's probe
        "s3.put.raw",
        "registry.get",  # the probe of /ready
        "registry.register",
        "kinesis.put",
        "http.answer",
    ),
    "bridge": (
        *_WORKER,
        "kafka.earliest",  # recovery of table `checkpoints`
        "kafka.highwaters",
        "kafka.send.barrier",
        "kinesis.shards",
        "kinesis.iterator",
        "kinesis.records",
        "kafka.send.block",
        "kafka.send.tick",
        "kafka.send.end",
        "kafka.send.checkpoint",
        "kafka.send.finished",
        "kafka.send.changelog",
        "kafka.commit",
        "logs.end_offsets",  # the watchdog's question
        "logs.committed",  # where the group reads `checkpoints` on
        "logs.bounds",
    ),
    "etl": (
        *_WORKER,
        "s3.list.repairs",
        "s3.get.repairs",  # a damaged step of `rows` was replaced
        "logs.first_offsets",
        "logs.end_offsets",
        "logs.message_at",
        "s3.list.transactions",  # an empty log: is it a first start?
        "logs.committed",
        "kafka.earliest",
        "kafka.highwaters",
        "rocksdb.wipe",  # a store that the log cannot continue
        "rocksdb.create",  # a new generation of the tables that expire
        "store.follow",  # recovery
        "rocksdb.ingest",  # the puts of many steps
        "rocksdb.flush",
        "logs.bounds",
        "kafka.send.dead_letter",
        "kafka.send.rows",
        "rocksdb.write",
        "rocksdb.drop",  # an expired generation
        "kafka.commit",
    ),
    "sink": (
        *_WORKER,
        "s3.list.repairs",
        "s3.get.repairs",  # a damaged step of `rows` was replaced
        "s3.list.transactions",
        "s3.get.transactions",
        "s3.list.jobdata",  # the daily sweep
        "logs.bounds",
        "s3.put.jobdata",
        "s3.put_if_absent.transactions",
        "s3.copy.data",
        "s3.get.data",  # a staged file is gone: is its copy the file that was staged?
        "s3.put.manifests",
        "s3.put.ready",
        "kafka.send.manifests",
        "s3.delete.jobdata",
        "kafka.commit",
        "logs.end_offsets",  # the watchdog's questions
        "logs.committed",
    ),
    "delivery": (
        *_WORKER,
        "s3.list.transactions",
        "s3.get.transactions",
        "s3.head.ready",
        "s3.copy.data",  # a transaction with a successor has lost its ready.json: it is finished again
        "s3.get.data",
        "s3.put.manifests",
        "s3.put.ready",
        "warehouse.connect",
        "warehouse.columns",  # before the first load
        "warehouse.positions",
        "warehouse.lock",
        "s3.put.loads",
        *(f"warehouse.copy.{output}" for output in BY_NAME),
        "warehouse.copied",
        "warehouse.load_error",  # a COPY failed
        "warehouse.insert_log",
        "warehouse.prune_log",  # once a day, first in the first round
        "warehouse.commit",
        "warehouse.rollback",
        "kafka.commit",
        "logs.first_offsets",  # the watchdog's questions
        "logs.end_offsets",
        "logs.committed",
    ),
    "audit": (
        *_WORKER,
        "registry.open_batches",
        "ledger.delivery",
        "ledger.entries",
        "ledger.replayed_blocks",
        "ledger.dead_letters",
        "registry.complete",
        "s3.get.raw",
        "kinesis.put",
        "registry.record_attempt",
        "s3.list.transactions",  # transactions that are committed behind delivery
        "s3.get.transactions",
        "s3.get.data",
        "s3.get.jobdata",  # committed, and not moved yet
        "s3.list.raw",  # the index of ids, from here on
        "s3.list.index",
        "s3.get_range.index",  # the batches of a segment that another process, or an earlier life, wrote
        "s3.put.index",
        "s3.get.index",  # small segments are merged
        "s3.delete.index",
        "s3.list.certificates",
        "ledger.batches_between",
        "registry.get",  # the batches of an hour that is over
        "s3.put_if_absent.certificates",
        "kafka.lags",
        "kafka.commit",  # of a foreign message: its topic has none of ours
        "logs.committed",  # the watchdog's question: did that commit reach the broker?
    ),
}
"""Role -> the calls that it makes."""


COMMANDS_ONLY: Final = frozenset({
    "registry.all_batches", "registry.restore", "registry.amend",
    "warehouse.log_status", "warehouse.ledger_of", "warehouse.mark_released",
    "warehouse.count_rows", "warehouse.delete_rows", "warehouse.log_rows", "warehouse.delete_log",
})  # fmt: skip
"""Calls that only commands make. A command that died is not started again, so it needs no points."""


class Point(NamedTuple):
    """A place at which a test can end a worker."""

    role: str
    call: str
    side: str

    def __str__(self) -> str:
        return f"{self.role}.{self.call}.{self.side}"


POINTS: Final = tuple(Point(role, call, side) for role, calls in CALLS.items() for call in calls for side in SIDES)
"""All points."""
_BY_NAME: Final = {str(point): point for point in POINTS}


def read_point(name: str) -> Point:
    """The point of that name.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ConfigurationError(f"{name!r} is no crash point: `make crash-points` lists them") from None
