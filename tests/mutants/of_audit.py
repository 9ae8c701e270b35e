"""Bugs in the audit (rules A1, A2)."""

from tests.mutants.mutant import Mutant

AUDIT = (
    "tests/unit/audit/test_reconcile.py", "tests/property/test_reconcile_properties.py", "tests/agents/audit/test_audit.py",
    "tests/agents/audit/test_audit_backlog.py",
)  # fmt: skip

DEEP = ("tests/unit/audit/test_row_comparison.py", "tests/agents/audit/deep/test_deep_audit.py")
PROOF = ("tests/agents/audit/prove/test_prove.py", "tests/agents/audit/prove/test_hour.py")
CERTIFICATES = ("tests/agents/audit/test_certifier.py", "tests/agents/audit/prove/test_hour.py")

MUTANTS = (
    Mutant(
        "a changed row is no difference",
        "A3",
        "app/core/audit/deep/rows.py",
        "one.hash_rows().sort().equals(other.hash_rows().sort())",
        'one.get_column("txn_id").equals(other.get_column("txn_id"))',
        DEEP,
    ),
    Mutant(
        "lines on their way are lost",
        "A3",
        "app/core/audit/deep/batches.py",
        "return missing if verdict.kind is VerdictKind.LOST else BitMap()",
        "return missing",
        (*DEEP, *PROOF),
    ),
    Mutant(
        "rows of a transaction that delivery_log lacks are late",
        "A3",
        "agents/audit/deep/chain_check.py",
        "            if not entries and record.number > self._reached and any(frame.height for frame in rows.values()):\n",
        "            if not entries and record.number > self._reached and not rows:\n",
        DEEP,
    ),
    Mutant(
        "the record is right, whatever files and delivery_log say",
        "A3",
        "app/core/audit/deep/witnesses.py",
        "return _votes(ready, digests, log) > _votes(record, digests, log)",
        "return False",
        DEEP,
    ),
    Mutant(
        "what looks broken once is broken",
        "A3",
        "agents/audit/prove/prover.py",
        "LOOKS: Final = 3",
        "LOOKS: Final = 1",
        PROOF,
    ),
    Mutant(
        "an hour is certified although a batch is open",
        "A4",
        "agents/audit/certifier.py",
        "            if hour_ms in still_open or ",
        "            if ",
        CERTIFICATES,
    ),
    Mutant(
        "a certificate does not count what the ledger counts",
        "A4",
        "app/core/audit/certificate.py",
        "difference=self._lines - self._counted",
        "difference=0",
        CERTIFICATES,
    ),
    Mutant(
        "a batch whose raw file is lost is in no certificate",
        "A4",
        "agents/audit/hours.py",
        "    found = set(await ledger.batches_between(first, end))\n",
        "    found = set[str]()\n",
        CERTIFICATES,
    ),
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
