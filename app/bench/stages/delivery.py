"""`delivery`: the cost of planning loads, without COPY; an event is a transaction of 32 partitions' chains."""

import msgspec

from app.bench.measure import BenchRun, Meter, like_a_worker, peak_rss_bytes
from app.bench.plan import BenchPlan
from app.core.delivery.load_plan import log_row, output_loads, plan_load
from app.core.formats.flows import OUTPUTS
from app.core.formats.object_keys import data_key, manifest_key, staged_key, txn_id
from app.core.formats.transaction_record import OutputObject, Ready
from app.errors import BenchmarkWrong

PARTITIONS = 32
ROWS = 1000
START_MS = 1_750_000_000_000


def _ready(partition: int, number: int) -> bytes:
    txn, at_ms = txn_id(1, partition, number, "00000000"), START_MS + number
    outputs = [
        OutputObject(
            output=flow.name, rows=ROWS, bytes=1 << 20, sha256="0" * 64, staged_key=staged_key(txn, flow.name),
            data_key=data_key(flow.name, txn, at_ms), manifest_key=manifest_key(flow.name, txn, at_ms),
            version=flow.version,
        )
        for flow in OUTPUTS
    ]  # fmt: skip
    ready = Ready(
        txn_id=txn, epoch=1, partition=partition, number=number, stream_time_ms=at_ms, committed_at_ms=at_ms, outputs=outputs
    )
    return msgspec.json.encode(ready)


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage.

    Raises:
        BenchmarkWrong: the loads do not hold every transaction once.
    """
    bodies = [_ready(n % PARTITIONS, n // PARTITIONS + 1) for n in range(plan.events)]
    like_a_worker()
    with plan.profiled():
        return [_run_once(bodies) for _ in range(plan.repeats)]


def _run_once(bodies: list[bytes]) -> BenchRun:
    positions: dict[int, int] = {}
    loaded: set[str] = set()
    rows = written = 0
    meter = Meter()
    meter.start()
    ready = [msgspec.json.decode(body, type=Ready) for body in bodies]
    while ready:
        planned = plan_load(positions, ready)
        load_id = f"load-{len(loaded)}"
        for load in output_loads(planned, load_id, "bench"):
            rows += load.rows
            written += len(load.manifest)
        for txn in planned:
            row = log_row(txn, load_id)
            positions[txn.partition] = row.number
            loaded.add(row.txn_id)
        ready = [txn for txn in ready if txn.txn_id not in loaded]
    meter.stop()
    if len(loaded) != len(bodies) or rows != len(bodies) * len(OUTPUTS) * ROWS:
        raise BenchmarkWrong(f"{len(loaded)} of {len(bodies)} transactions with {rows} rows are planned")
    return BenchRun(
        events=len(bodies), cpu_s=meter.cpu_s, wall_s=meter.wall_s, peak_rss_bytes=peak_rss_bytes(),
        bytes_in=sum(map(len, bodies)), bytes_out=written,
    )  # fmt: skip
