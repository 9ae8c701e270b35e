"""The events that bring a role to a point; for a point without an entry, traffic is enough."""

from enum import Enum
from typing import Final

import msgspec

from app.crash.catalogue import Point


class Event(Enum):
    """The acts of the sweep besides traffic."""

    RESTART = "the worker dies elsewhere before, for only one that starts makes this call"
    STOPPED = "the worker is told to stop before: only what it closed in good order is still there when it starts"
    ORPHAN = "a batch is in S3 and registry, and not in Kinesis, as a collector leaves it"
    OLD_HOUR = (
        "a batch of an hour that is over is in S3 and registry, as a collector left it; once complete, it is certified"
    )
    UNREADABLE = "a batch is in S3 and registry, and its blocks reach Kinesis cut short"
    RESHARD = "a shard is split, or two are merged"
    FIRST_START = "the stack is new: the point is armed before it starts"
    REPLAY = "a batch is put to Kinesis once more"
    BAD_FILE = "a file of a transaction that is not loaded yet is spoilt, and mended afterwards"
    REPAIRED = "steps of the log have replacements in S3, equal to them, and then the worker is told to stop"
    LOST_READY = "ready.json of a transaction that is not loaded yet is deleted; a later transaction exists"
    LOST_READY_STAGED = "so it is, and the sink died before it cleared that transaction's staged files"
    MANY_ROUNDS = "traffic goes on for as many rounds of the audit as segments of the index are merged at once"
    FOREIGN = "another program writes to topic audit, which has no messages of ours"
    SHORT_MEMORY = "the stack has a dedup window of seconds, so that what is remembered expires"
    STALE_STORE = "an older copy of the ETL's store is put back, and the log is cut behind what it had read"


class History(msgspec.Struct, frozen=True):
    """The history that leads to a point."""

    events: tuple[Event, ...] = ()
    companions: tuple[str, ...] = ()
    """Points at which other workers, or this one before, die to bring the role to the point, as often as needed."""


_START: Final = History((Event.RESTART,))
_NEW: Final = History((Event.FIRST_START,))
_STALE: Final = History((Event.STALE_STORE,))
_FORGETFUL: Final = History((Event.SHORT_MEMORY,))
_SPLIT: Final = History((Event.RESHARD,))
_OLD_HOUR: Final = History((Event.OLD_HOUR,))
_ORPHAN: Final = History((Event.ORPHAN,))
_MANY_ROUNDS: Final = History((Event.MANY_ROUNDS,))
_UNREADABLE: Final = History((Event.UNREADABLE,))
_REPAIRED: Final = History((Event.REPAIRED,))
_LOST_READY: Final = History((Event.LOST_READY,))
_LOST_READY_STAGED: Final = History((Event.LOST_READY_STAGED,))
_FOREIGN: Final = History((Event.FOREIGN,))
_BEHIND: Final = History(companions=("etl.kafka.send.rows.after",))
"""The ETL dies when its step is in the log and not in its store."""
_CLOSING: Final = History((Event.STOPPED,))
"""The ETL writes what it gathered when it closes its stores, else only after many steps."""
_NOT_LOADED: Final = History((Event.ORPHAN,), ("delivery.s3.list.transactions.before",))
"""Delivery dies before it loads anything: the sink's transactions stay unloaded, and the audit must read them."""

_HISTORIES: Final = {
    "bridge.kafka.earliest": _START,
    "bridge.kafka.highwaters": _START,
    "bridge.kafka.send.barrier": _START,
    "bridge.kinesis.iterator": _START,
    "bridge.logs.committed": _START,
    "bridge.logs.bounds": _START,
    "bridge.kafka.send.end": _SPLIT,
    "bridge.kafka.send.finished": _SPLIT,
    "etl.kafka.earliest": _START,
    "etl.kafka.highwaters": _START,
    "etl.s3.list.repairs": _START,
    "etl.s3.get.repairs": _REPAIRED,
    "etl.logs.first_offsets": _START,
    "etl.logs.message_at": History((Event.STOPPED,)),  # a store that was flushed is compared with the log
    "etl.logs.bounds": _START,
    "etl.s3.list.transactions": _NEW,
    "etl.logs.committed": _NEW,
    "etl.store.follow": _BEHIND,
    "etl.rocksdb.ingest": _CLOSING,
    "etl.rocksdb.write": _CLOSING,
    "etl.rocksdb.flush": _CLOSING,
    "etl.kafka.send.dead_letter": _UNREADABLE,
    "etl.rocksdb.wipe": _STALE,
    "etl.rocksdb.create": _FORGETFUL,
    "etl.rocksdb.drop": _FORGETFUL,
    "sink.s3.list.repairs": _START,
    "sink.s3.get.repairs": _REPAIRED,
    "sink.s3.list.transactions": _START,
    "sink.s3.get.transactions": _START,
    "sink.s3.list.jobdata": _START,
    "sink.logs.bounds": _START,
    "sink.s3.get.data": History(companions=("sink.s3.delete.jobdata.after",)),  # finished once more with nothing staged
    "delivery.warehouse.connect": _START,
    "delivery.warehouse.columns": _START,
    "delivery.warehouse.prune_log": _START,
    "delivery.warehouse.copy.replays": History((Event.REPLAY,)),
    "delivery.warehouse.copy.dead_letters": _UNREADABLE,
    "delivery.warehouse.load_error": History((Event.BAD_FILE,)),
    "delivery.s3.copy.data": _LOST_READY_STAGED,
    "delivery.s3.get.data": _LOST_READY,
    "delivery.s3.put.manifests": _LOST_READY,
    "delivery.s3.put.ready": _LOST_READY,
    "audit.s3.get.raw": _ORPHAN,
    "audit.kinesis.put": _ORPHAN,
    "audit.registry.record_attempt": _ORPHAN,
    "audit.s3.list.transactions": _NOT_LOADED,
    "audit.s3.get.transactions": _NOT_LOADED,
    "audit.s3.get.data": _NOT_LOADED,
    "audit.s3.get.jobdata": History((Event.ORPHAN,), ("sink.s3.copy.data.before",)),
    "audit.s3.list.certificates": _START,
    "audit.ledger.batches_between": _OLD_HOUR,
    "audit.registry.get": _OLD_HOUR,
    "audit.s3.put_if_absent.certificates": _OLD_HOUR,
    "audit.kafka.lags": _NOT_LOADED,
    "audit.s3.get_range.index": _START,
    "audit.s3.get.index": _MANY_ROUNDS,
    "audit.s3.delete.index": _MANY_ROUNDS,
    "audit.kafka.commit": _FOREIGN,
    "audit.logs.committed": _FOREIGN,
}


def history_of(point: Point) -> History:
    """The history that leads to `point`."""
    if point.call == "kafka.topics":
        return _START
    return _HISTORIES.get(f"{point.role}.{point.call}", History())


def restart_of(point: Point) -> str:
    """The point at which a worker dies so that it starts again: every worker asks for messages several times a second."""
    return f"{point.role}.kafka.poll.before"
