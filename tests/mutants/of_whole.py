"""Bugs of sink, delivery, audit and shell that show only where roles meet: over time, and when something fails between."""

from tests.mutants.mutant import Mutant

CHAIN = (
    "tests/unit/sink/test_chain.py", "tests/agents/sink/test_sink_transactions.py", "tests/agents/sink/test_sink_crashes.py",
    "tests/agents/sink/test_sink_agent.py",
)  # fmt: skip
LOAD = (
    "tests/agents/delivery/test_delivery_crashes.py", "tests/agents/delivery/test_delivery_in_memory.py",
    "tests/unit/delivery/test_load_plan.py",
)  # fmt: skip
OWNED = ("tests/unit/shell/test_owned_loop.py",)
AUDIT = (
    "tests/unit/audit/test_reconcile.py", "tests/property/test_reconcile_properties.py", "tests/agents/audit/test_audit.py",
    "tests/agents/audit/test_audit_backlog.py",
)  # fmt: skip

MUTANTS = (
    Mutant(
        "replays are not loaded",
        "A2",
        "app/core/delivery/load_plan.py",
        "    for flow in OUTPUTS:\n",
        "    for flow in OUTPUTS[:-1]:\n",
        LOAD,
    ),
    Mutant(
        "a replay is judged before it can have arrived",
        "A1",
        "app/core/audit/reconcile.py",
        "    if item.attempts == 0:\n        return settled_ms\n",
        "    if item.attempts >= 0:\n        return settled_ms\n",
        AUDIT,
    ),
    Mutant(
        "behind a transaction the last message is taken for the last that counted",
        "S5",
        "app/core/sink/chain.py",
        "accepted=Accepted(record.step_number, record.step_offset),",
        "accepted=Accepted(record.step_number, record.last_offset),",
        CHAIN,
    ),
    Mutant(
        "time that has come exactly as far as needed is enough",
        "A1",
        "app/core/audit/reconcile.py",
        "if stream_times_ms.get(p, -1) <= needed_ms):",
        "if stream_times_ms.get(p, -1) < needed_ms):",
        AUDIT,
    ),
    Mutant(
        "delivery tells when a transaction was committed for its stream time",
        "D1",
        "app/core/delivery/load_plan.py",
        "    time = datetime.fromtimestamp(txn.stream_time_ms / 1000, UTC)",
        "    time = datetime.fromtimestamp(txn.committed_at_ms / 1000, UTC)",
        LOAD,
    ),
    Mutant(
        "two loads have the same name",
        "D1",
        "agents/delivery/load.py",
        'return f"{self._clock.now_ms():013d}-{self._token()}"',
        'return f"{self._epoch:013d}-load"',
        LOAD,
    ),
    Mutant(
        "the other writer's staged files are deleted",
        "S4",
        "agents/sink/partition.py",
        "await self._chain.clear([out.staged_key for out in ours.outputs if out.staged_key is not None])",
        "await self._chain.clear([out.staged_key for out in found.outputs if out.staged_key is not None])",
        CHAIN,
    ),
    Mutant(
        "two writers of a number choose the same name",
        "S2",
        "agents/sink/partition.py",
        "object_keys.txn_id(*self.chain_id, open_.end.number + 1, self._ports.random_hex())",
        'object_keys.txn_id(*self.chain_id, open_.end.number + 1, "00000000")',
        CHAIN,
    ),
    Mutant(
        "work in flight is not waited for on revoke",
        "E3",
        "app/shell/owned_loop.py",
        "        if tasks:\n            await asyncio.wait(tasks)\n",
        "        if tasks:\n            await asyncio.sleep(0)\n",
        (
            *OWNED,
            "tests/agents/shell/test_runners.py",
            "tests/agents/etl/test_etl_agent.py",
            "tests/agents/sink/test_sink_agent.py",
        ),
    ),
    Mutant(
        "the work in hand is cancelled when partitions go",
        "D1",
        "app/shell/owned_loop.py",
        "        if worker is None or self._stop is None:\n",
        "        if worker is None or self._stop is not None:\n",
        (*OWNED, "tests/agents/delivery/test_delivery_agent.py", "tests/agents/bridge/test_bridge_agent.py"),
    ),
    Mutant(
        "the late end of a cancelled loop hides its successor",
        "D1",
        "app/shell/owned_loop.py",
        "                if self.worker is worker:  # a loop that was cancelled may end after its successor began\n",
        "                if worker is not None:\n",
        (*OWNED, "tests/agents/delivery/test_delivery_worker.py"),
    ),
    Mutant(
        "an owner works beside the work on its earlier partitions",
        "T1",
        "app/shell/owned_loop.py",
        "        await self.end()\n        topic = self._topic\n",
        "        topic = self._topic\n",
        (*OWNED, "tests/agents/audit/test_audit_agent.py"),
    ),
    Mutant(
        "an ignored step moves the sink's time",
        "E2",
        "app/core/sink/open_transaction.py",
        "        if verdict is StepVerdict.IGNORE:\n            return Reception.IGNORED\n",
        "        if verdict is StepVerdict.IGNORE:\n"
        "            self.stream_time_ms = max(self.stream_time_ms, step.stream_time_ms)\n"
        "            return Reception.IGNORED\n",
        CHAIN,
    ),
    Mutant(
        "what is behind delivery is looked for in one partition only",
        "A2",
        "agents/audit/auditor.py",
        "unloaded, far = await behind.of({place.partition for place in places})",
        "unloaded, far = await behind.of({min(place.partition for place in places)})",
        AUDIT,
    ),
    Mutant(
        "the audit looks behind delivery where it was at first",
        "A2",
        "agents/audit/stored_ledger.py",
        "                number = self._delivery.number(partition)\n",
        "                number = 0\n",
        AUDIT,
    ),
    Mutant(
        "a sink reads another partition's record",
        "S4",
        "agents/sink/chain_store.py",
        "self.objects.get(object_keys.record_key(*self.chain_id, number))",
        "self.objects.get(object_keys.record_key(self.chain_id.epoch, 0, number))",
        CHAIN,
    ),
    Mutant(
        "the sweep looks into another partition's chain",
        "S4",
        "agents/sink/chain_store.py",
        "_sweep_one(ChainStore(objects, whose.chain_id, sleep), whose,",
        "_sweep_one(ChainStore(objects, ChainId(whose.chain_id.epoch, 0), sleep), whose,",
        (*CHAIN, "tests/agents/sink/test_sink_sweep.py"),
    ),
    Mutant(
        "what the audit read of one partition it believes of another",
        "A2",
        "agents/audit/stored_ledger.py",
        "            at = (partition, number)\n",
        "            at = (self._epoch, number)\n",
        AUDIT,
    ),
)
