"""All invariants of a stack, after its traffic has ended."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.local.traffic.run import TrafficRun
from app.local.traffic.stories import Timing
from app.settings import Settings
from tests.rig.invariants.arrivals import Seen, arrivals, read_stream
from tests.rig.invariants.batches import judge_ledger, judge_raw
from tests.rig.invariants.deep import judge_copies
from tests.rig.invariants.gather import (
    Ports,
    Tables,
    ports_of,
    read_below,
    read_chains,
    read_registry,
    read_tables,
)
from tests.rig.invariants.replays import check_replays
from tests.rig.invariants.rows import judge_rows
from tests.rig.invariants.settle import Say, settle
from tests.rig.invariants.transactions import judge_files, judge_loads, judge_manifests, judge_owners
from tests.rig.invariants.violation import Violation
from tests.worlds.waiting import HANGS_S

SETTLE_S: Final = 600.0
"""I7: longest time for a stack to settle after the last fault."""
LOG_PATIENCE_S: Final = HANGS_S
"""Longest time of delivery for a transaction that was committed just before the check."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of a check."""

    alone: bool = True
    """Only the runs sent events, so a row of no run is a violation."""
    others: Mapping[str, int] = {}
    """Flow -> rows of other senders' events; another check judges them."""
    may_lack: frozenset[str] = frozenset()
    """Outputs that a sink of an older version did not know."""
    may_be_aside: frozenset[str] = frozenset()
    """Transactions that may be quarantined. Their batches stay open, so I7 does not hold with them."""
    settle_s: float = SETTLE_S
    """Bound of the wait before the check, and of the wait after the replays."""
    replays: bool = True
    """Judge I5 too; its replays stay in the registry and the stream."""


ALL: Final = Terms()


async def check(
    settings: Settings, runs: Sequence[TrafficRun], terms: Terms = ALL, say: Say = lambda _: None
) -> list[Violation]:
    """Wait until the stack has settled (I7), judge what it holds (I1 to I4), send everything again and compare (I5).

    Args:
        settings: lead to the stack (`app.local.stack.stack_file.enter`, then `read_settings`).
        runs: everything that was sent and acknowledged; each kept its bodies.
        terms: the terms of the check.
        say: gets the progress.

    Returns: every violation found; empty where all promises were kept.

    Raises:
        ServiceUnavailable: a service does not answer while it is read.
    """
    async with ports_of(settings) as ports:
        violations = await settle(ports, terms.settle_s, say)
        say("judging rows, ledger, raw files and transactions")
        violations += await judge(ports, runs, terms, say)
        if not terms.may_be_aside:
            say("asking the deep audit, and the query over the bucket")
            violations += await judge_copies(ports, runs)
        if terms.replays:
            violations += await check_replays(ports, terms.settle_s, say)
        return violations


async def judge(
    ports: Ports, runs: Sequence[TrafficRun], terms: Terms = ALL, say: Say = lambda _: None
) -> list[Violation]:  # fmt: skip
    """I1 to I4, of a stack that has settled.

    Transactions that must be finished are read first, and all committed ones last, because idle transactions are committed
    meanwhile.
    """
    settings = ports.settings
    settled, violations = await read_chains(ports, terms.may_lack)
    items = await read_registry(ports)
    tables = await _read_when_logged(ports, {record.txn_id for record in settled})
    raw = await read_below(ports, "raw/")
    manifests, data = await read_below(ports, "manifests/"), await read_below(ports, "data/")
    merged = await read_below(ports, "loads/")
    committed, _ = await read_chains(ports)

    acknowledged = [batch_id for run in runs for batch_id in run.sent.acknowledged_at_ms]
    violations += judge_raw(items, raw, acknowledged)
    violations += judge_ledger(items, tables.entries, tables.lines)
    copies = {key: body for key, body in manifests.items() if key.endswith(".manifest")}
    violations += judge_manifests(settings.bucket, copies | merged, data)
    violations += judge_files(settings.bucket, settled, manifests, data)
    violations += judge_owners(committed, manifests, data, tables.log)
    violations += judge_loads(settled, tables.log, tables.rows, terms.may_be_aside)
    seen = Seen(await read_stream(ports.stream), round(settings.slack_s * 1000))
    arrived = arrivals(items.values(), raw, tables.entries, seen)
    late = sum(arrival.is_late for arrival in arrived.values())
    say(f"{late:,} of {len(arrived):,} events reached Kinesis after the slack: only their joins may have more than one end")
    timing = Timing(settings.join_window_s, settings.join_grace_s, settings.join_reorder_s, settings.slack_s)
    totals = {flow: total - terms.others.get(flow, 0) for flow, total in tables.totals.items()}
    violations += await judge_rows(ports.warehouse, runs, timing, arrived, totals if terms.alone else None)
    return violations


async def _read_when_logged(ports: Ports, txn_ids: set[str]) -> Tables:
    """The warehouse once delivery has decided about these transactions, or after `LOG_PATIENCE_S`."""
    deadline = time.monotonic() + LOG_PATIENCE_S
    while True:
        tables = await read_tables(ports)
        if txn_ids <= {row.txn_id for row in tables.log} or time.monotonic() > deadline:
            return tables
        await asyncio.sleep(1)
