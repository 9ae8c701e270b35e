"""`sink`: step messages become committed transactions of six files and a ledger, against S3 in memory: our own cost.

The messages are those of an ETL that took the benchmark's traffic; a transaction has the rows of about ten seconds.
"""

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Final

from agents.sink.encoder import encoder
from agents.sink.partition import SinkPartition, SinkPorts
from app.bench.measure import BenchRun, Meter, like_a_worker, peak_rss_bytes
from app.bench.phases import Phases
from app.bench.plan import BenchPlan
from app.bench.stages.etl_core import Preloaded, run_once
from app.bench.traffic import RATE_PER_S
from app.clock import SystemClock
from app.core.formats.flows import FLOWS
from app.core.formats.object_keys import chain_prefix
from app.core.formats.step_message import decode_step
from app.core.sink.chain import ChainId, LogBounds, decode_record
from app.core.sink.open_transaction import CommitRules
from app.errors import BenchmarkWrong
from app.settings import Settings
from app.testing.memory import MemoryObjectStore

PHASES: Final = {
    "app.core.formats.flow_files": "read rows",
    "app.core.formats.flow_files:_tsv": "tsv",
    "app.core.formats.kernel_files": "files by kernels",
    "app.core.formats.file_codecs": "compress",
    "app.core.formats.flow_files:_avro": "avro",
    "app.core.formats.avro_file": "avro",
    "app.core.sink.seconds": "seconds",
    "app.core.formats.flow_files:ledger_frame": "ledger",
    "app.core.sink.open_transaction": "take and digest",
    "app.core.formats.step_message": "take and digest",
    "agents.sink.chain_store": "store",
    "app.testing.memory.s3": "store",
}
TRANSACTION_S: Final = 10


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage.

    Raises:
        BenchmarkWrong: the transactions hold other rows than the traffic makes.
    """
    log = Preloaded(plan.events, plan.block_lines)
    messages: list[bytes] = []
    run_once(log, keep=messages)
    expected = {flow.name: log.outcomes[flow.name] for flow in FLOWS if log.outcomes[flow.name]}
    lines = sum(log.outcomes.values())
    like_a_worker()
    with plan.profiled():
        return [asyncio.run(_run_once(messages, expected, lines)) for _ in range(plan.repeats)]


async def _run_once(messages: list[bytes], expected: dict[str, int], lines: int) -> BenchRun:
    objects, marks_s = MemoryObjectStore(), list[float]()
    announced: list[bytes] = []

    async def announce(ready: bytes) -> None:
        announced.append(ready)

    async def bounds() -> LogBounds:
        return LogBounds(0, len(messages))

    numbers = iter(range(10**9))
    place = ChainId(1, 0)
    encode = encoder(Settings(partitions=1))
    ports = SinkPorts(objects, announce, bounds, SystemClock(), lambda: f"{next(numbers):08x}", encode=encode)
    sink = SinkPartition(place, CommitRules(3600, 1 << 40, 3600), ports)
    offset = await sink.open()
    lines_of = [sum(entry.lines for entry in decode_step(message).ledger) for message in messages]
    meter, phases = Meter(), Phases(PHASES)
    with phases:
        meter.start()
        marks_s.append(meter.now_s())
        taken = 0
        while offset < len(messages):
            sink.take(offset, messages[offset])
            taken += lines_of[offset]
            offset += 1
            if taken >= TRANSACTION_S * RATE_PER_S or offset == len(messages):
                await sink.commit()
                marks_s.append(meter.now_s())
                taken = 0
        meter.stop()
    rows: Counter[str] = Counter()
    written = 0
    async for record in objects.list(chain_prefix(1, 0)):
        for output in decode_record(await objects.get(record.key), place, int(record.key[-17:-5])).outputs:
            rows[output.output] += output.rows
            written += output.bytes
    found = {flow.name: rows[flow.name] for flow in FLOWS if rows[flow.name]}
    if found != expected:
        raise BenchmarkWrong(f"the sink wrote {found} of {expected}")
    return BenchRun(
        events=sum(found.values()), cpu_s=meter.cpu_s, wall_s=meter.wall_s, peak_rss_bytes=peak_rss_bytes(),
        bytes_in=sum(map(len, messages)), bytes_out=written, phases=phases.shares(),
        more={"transactions": len(announced), "us_a_line": meter.cpu_s * 1e6 / lines},
        slices_s=[end - start for start, end in pairwise(marks_s)],
    )  # fmt: skip
