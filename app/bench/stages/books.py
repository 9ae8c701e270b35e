"""`books`: an hour's books from the ledger's bitmaps: every batch judged by its coverage, and added to the certificate.

An event is a line. Batches have 8,192 lines in 32 blocks with the outcomes of ordinary traffic, one ledger row for each
outcome of a block; a day of a billion lines has 31 million such rows. The warehouse's time is not included.
"""

import base64
import random

from pyroaring import BitMap

from app.bench.measure import BenchRun, Meter, like_a_worker, peak_rss_bytes
from app.bench.plan import BenchPlan
from app.core.audit.certificate import HourBooks, books_of
from app.core.audit.reconcile import LedgerLines, coverage
from app.core.formats.batch import new_batch_id
from app.core.formats.flows import OUTCOMES
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.errors import BenchmarkWrong

BATCH_LINES = 8192
BLOCKS = 32
SHARES = {
    "page_views": 30, "joined": 27, "ad_impressions": 25, "ad_clicks": 3, "redirects": 3, "engagements": 4, "rejected": 5,
    "duplicate": 3, "erased": 0,
}  # fmt: skip
START_MS = 1_795_000_000_000


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage.

    Raises:
        BenchmarkWrong: the certificate does not count every line once.
    """
    entries = _entries()
    like_a_worker()
    with plan.profiled():
        return [_run_once(entries, max(1, plan.events // BATCH_LINES)) for _ in range(plan.repeats)]


def _entries() -> list[LedgerLines]:
    chance = random.Random(1)
    rows: list[LedgerLines] = []
    size = BATCH_LINES // BLOCKS
    for block in range(BLOCKS):
        found: dict[str, list[int]] = {}
        for line in range(block * size, (block + 1) * size):
            found.setdefault(chance.choices(OUTCOMES, [SHARES[name] for name in OUTCOMES])[0], []).append(line)
        for outcome, lines in found.items():
            rows.append(LedgerLines(outcome, len(lines), base64.b64encode(BitMap(lines).serialize()).decode()))
    return rows


def _run_once(entries: list[LedgerLines], batches: int) -> BenchRun:
    places = [BlockPlace(0, 0, BATCH_LINES, 0, 1)]
    items = [
        RegistryItem(
            batch_id=new_batch_id(START_MS + number, bytes(10)), epoch=1, line_count=BATCH_LINES, byte_count=1,
            sha256="0" * 64, raw_key="raw", blocks=places, received_at_ms=START_MS,
        )
        for number in range(batches)
    ]  # fmt: skip
    meter = Meter()
    meter.start()
    books = HourBooks(START_MS)
    for item in items:
        if not coverage(item.line_count, entries).is_complete:
            raise BenchmarkWrong("a batch is not covered")
        books.add(books_of(item, entries))
    made = books.certificate(START_MS, None)
    meter.stop()
    if not made.is_balanced or sum(made.outcomes.values()) != batches * BATCH_LINES:
        raise BenchmarkWrong(f"the certificate counts {made.outcomes} of {made.lines} lines")
    return BenchRun(
        events=made.lines, cpu_s=meter.cpu_s, wall_s=meter.wall_s, peak_rss_bytes=peak_rss_bytes(),
        bytes_in=batches * sum(len(entry.line_set) for entry in entries),
    )  # fmt: skip
