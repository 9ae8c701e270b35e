"""`audit`: one round over many open batches, half covered and half still on their way, with registry and ledger in memory.

An event is an open batch. The services' time is not included; their memory is the memory of this process before the round.
"""

import asyncio
import base64
from collections.abc import Mapping

import psutil
from pyroaring import BitMap

from agents.audit.auditor import Auditor
from agents.audit.ports import AuditPorts
from app.bench.measure import BenchRun, Meter, like_a_worker, peak_rss_bytes
from app.bench.plan import BenchPlan
from app.clock import SystemClock
from app.core.audit.reconcile import LedgerLines
from app.core.formats.batch import new_batch_id
from app.core.formats.object_keys import raw_key
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.errors import BenchmarkWrong
from app.settings import Settings
from app.testing.memory import MemoryBlockStream, MemoryLoadedLedger, MemoryObjectStore, MemoryRegistry

PARTITIONS = 4
LINES_A_BLOCK = 500
AGE_MS = 3_600_000


async def _no_lags(_: frozenset[int]) -> Mapping[str, int]:
    return {}


def _item(number: int, received_at_ms: int) -> RegistryItem:
    batch_id = new_batch_id(received_at_ms, number.to_bytes(10, "big"))
    places = [BlockPlace(n, n * LINES_A_BLOCK, LINES_A_BLOCK, n * 1000, 1000) for n in range(PARTITIONS)]
    return RegistryItem(
        batch_id=batch_id, epoch=1, line_count=PARTITIONS * LINES_A_BLOCK, byte_count=PARTITIONS * 1000, sha256="0" * 64,
        raw_key=raw_key(batch_id, received_at_ms), blocks=places, received_at_ms=received_at_ms,
    )  # fmt: skip


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage.

    Raises:
        BenchmarkWrong: the round's verdicts do not fit the ledger.
    """
    like_a_worker()
    with plan.profiled():
        return [asyncio.run(_run_once(plan.events)) for _ in range(plan.repeats)]


async def _run_once(batches: int) -> BenchRun:
    settings, clock = Settings(partitions=PARTITIONS), SystemClock()
    registry, warehouse = MemoryRegistry(), MemoryLoadedLedger()
    ports = AuditPorts(MemoryObjectStore(), registry, MemoryBlockStream(), warehouse, _no_lags, clock)
    start_ms = clock.now_ms() - AGE_MS
    thirds = [base64.b64encode(BitMap(range(n, 2000, 3)).serialize()).decode() for n in range(3)]
    entries: list[tuple[str, LedgerLines]] = []
    for number in range(batches):
        item = _item(number, start_ms + number)
        await registry.register(item)
        for n in range(3 if number % 2 == 0 else 2):
            entries.append((item.batch_id, LedgerLines("page_views", len(range(n, 2000, 3)), thirds[n])))
    warehouse.add_entries(entries)
    for partition in range(PARTITIONS):
        warehouse.load(1, partition, 1, start_ms - 1)
    before_bytes = psutil.Process().memory_info().rss
    meter = Meter()
    meter.start()
    report = await Auditor(ports, settings).round()
    meter.stop()
    if (report.judged, report.completed, report.waiting) != (batches, (batches + 1) // 2, batches // 2):
        raise BenchmarkWrong(f"the audit judged {report.judged} of {batches}: {report}")
    peak_bytes = peak_rss_bytes()
    return BenchRun(
        events=batches, cpu_s=meter.cpu_s, wall_s=meter.wall_s, peak_rss_bytes=peak_bytes,
        more={"round_mb": (peak_bytes - before_bytes) / 1e6},
    )  # fmt: skip
