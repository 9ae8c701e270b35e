"""Bugs in the audit (rules A1, A2)."""

from tests.mutants.mutant import Mutant

AUDIT = (
    "tests/unit/audit/test_reconcile.py", "tests/property/test_reconcile_properties.py", "tests/agents/audit/test_audit.py",
    "tests/agents/audit/test_audit_backlog.py",
)  # fmt: skip

MUTANTS = (
    Mutant(
        "completed on the sum alone",
        "A1",
        "app/core/audit/reconcile.py",
        "    if not found.missing:\n",
        "    if sum(entry.lines for entry in evidence.entries) == item.line_count:\n"
        "        return BatchVerdict(VerdictKind.COMPLETE)\n"
        "    if not found.missing:\n",
        AUDIT,
    ),
    Mutant(
        "lines that are there twice are no alarm",
        "A1",
        "app/core/audit/reconcile.py",
        "        doubled |= covered & lines\n",
        "        doubled |= covered & lines & BitMap()\n",
        AUDIT,
    ),
    Mutant(
        "an attempt counts although Kinesis refused part of it",
        "A1",
        "agents/audit/auditor.py",
        "        if errors:\n",
        "        if sum(errors.values()) == len(outcomes):\n",
        AUDIT,
    ),
    Mutant(
        "a batch that still waits in the ETL is replayed",
        "A1",
        "app/core/audit/reconcile.py",
        "if stream_times_ms.get(p, -1) <= needed_ms):",
        "if stream_times_ms.get(p, -1) < 0):",
        AUDIT,
    ),
    Mutant(
        "a bridge's copy is proof that lines are lost",
        "A2",
        "app/adapters/loaded_ledger.py",
        "WHERE attempt >= 1 AND batch_id IN",
        "WHERE attempt >= 0 AND batch_id IN",
        ("tests/contract/test_loaded_ledger.py",),
    ),
    Mutant(
        "one block that the ETL knows is proof for all",
        "A2",
        "app/core/audit/reconcile.py",
        "return _act(item, found, lacking.keys() <= evidence.replayed_blocks, now_ms)",
        "return _act(item, found, bool(lacking.keys() & evidence.replayed_blocks), now_ms)",
        AUDIT,
    ),
    Mutant(
        "what is committed and not loaded is taken for missing",
        "A2",
        "agents/audit/auditor.py",
        "delivery_lags(far) if far else judge_batch(item, found, stream_times_ms, rules, now_ms)\n",
        "delivery_lags(far) if far else verdict\n",
        AUDIT,
    ),
    Mutant(
        "how far delivery is is asked after the ledger",
        "A1",
        "agents/audit/auditor.py",
        "        evidence = await self._gather(items, delivery)\n",
        "        evidence = await self._gather(items, delivery)\n"
        "        delivery = await self._ports.warehouse.delivery(self._settings.epoch)\n"
        "        stream_times_ms = {p: reached.stream_time_ms for p, reached in delivery.partitions.items()}\n",
        AUDIT,
    ),
    Mutant(
        "held batches are replayed",
        "D2",
        "app/core/audit/reconcile.py",
        "    if held := _holding(evidence.quarantined, found.missing):\n",
        "    if held := _holding({}, found.missing):\n",
        AUDIT,
    ),
    Mutant(
        "the pause between two replays is not kept",
        "A1",
        "app/core/audit/reconcile.py",
        "    if now_ms < item.next_attempt_at_ms:\n",
        "    if now_ms < 0:\n",
        AUDIT,
    ),
)
