"""`recovery`: an empty ETL store follows `rows` from its start, like a standby or an owner without its folder.

An event is a remembered id. Fetching messages from Kafka is not included.
"""

import tempfile
from pathlib import Path

from app.bench.measure import BenchRun, Meter, like_a_worker, peak_rss_bytes
from app.bench.plan import BenchPlan
from app.bench.stages.etl_core import Preloaded, run_once
from app.core.formats.flows import DUPLICATE
from app.errors import BenchmarkWrong
from app.settings import Settings
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, RocksEngine


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage.

    Raises:
        BenchmarkWrong: the store remembers another number of ids than the traffic has.
    """
    log = Preloaded(plan.events, plan.block_lines, warm_up_s=0)
    messages: list[bytes] = []
    run_once(log, keep=messages)
    ids = sum(log.outcomes.values()) - log.outcomes[DUPLICATE]
    like_a_worker()
    with plan.profiled():
        return [_run_once(messages, ids) for _ in range(plan.repeats)]


def _run_once(messages: list[bytes], ids: int) -> BenchRun:
    settings = Settings(partitions=1)
    with tempfile.TemporaryDirectory() as folder:
        db = PartitionStore(RocksEngine(Path(folder) / "db", Memory(settings.state_cache_bytes)), settings.dedup_window_ms)
        meter = Meter()
        meter.start()
        for offset, message in enumerate(messages):
            db.follow(message, offset)
        db.write()
        meter.stop()
        found = sum(1 for _ in db.scan("seen"))
        db.close()
    if found != ids:
        raise BenchmarkWrong(f"the store remembers {found} of {ids} ids")
    size = sum(map(len, messages))
    return BenchRun(events=ids, cpu_s=meter.cpu_s, wall_s=meter.wall_s, peak_rss_bytes=peak_rss_bytes(), bytes_in=size)
