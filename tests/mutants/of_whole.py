"""Bugs that show only where several roles meet: in concert, over time, and when something fails in between."""

from mutant import Mutant

BRIDGE = (
    "tests/agents/test_bridge.py", "tests/unit/test_shards.py", "tests/property/test_shards_history.py",
    "tests/agents/test_bridge_agent.py",
)  # fmt: skip
STEP = (
    "tests/unit/test_stream_time.py", "tests/unit/test_join.py", "tests/unit/test_ledger_of_steps.py",
    "tests/property/test_step_equals_oracle.py",
)  # fmt: skip
CHAIN = (
    "tests/unit/test_chain.py", "tests/agents/test_sink_transactions.py", "tests/agents/test_sink_crashes.py",
    "tests/agents/test_sink_agent.py",
)  # fmt: skip
LOAD = (
    "tests/agents/test_delivery_crashes.py", "tests/agents/test_delivery_in_memory.py", "tests/unit/test_load_plan.py",
)  # fmt: skip
AUDIT = (
    "tests/unit/test_reconcile.py", "tests/property/test_reconcile_properties.py", "tests/agents/test_audit.py",
    "tests/agents/test_audit_backlog.py",
)  # fmt: skip

MUTANTS = (
    Mutant(
        "a shard that closes while it is read is taken for read to its end",
        "T2",
        "agents/pump.py",
        "self._book.answered(self.shard, _answer(page, asked_at_ms, known_closed))",
        "self._book.answered(self.shard, _answer(page, asked_at_ms, self._book.known_closed(self.shard)))",
        BRIDGE,
    ),
    Mutant(
        "the child of two shards starts with the later one's mark",
        "T4",
        "app/core/stream_time.py",
        "                mark = min(known)\n",
        "                mark = max(known)\n",
        STEP,
    ),
    Mutant(
        "a first is remembered by its block's time alone",
        "E7",
        "app/core/join.py",
        "            remembered = max(stored, received)\n",
        "            remembered = stored\n",
        STEP,
    ),
    Mutant(
        "an earlier first shortens the memory of its page view",
        "E7",
        "app/core/join.py",
        "View(max(remembered, joiner.stored_ms), received, event_id, number)",
        "View(remembered, received, event_id, number)",
        STEP,
    ),
    Mutant(
        "a block follows a leap of time in the same step",
        "J1",
        "app/core/intake.py",
        " or (moved and now > far):",
        ":",
        STEP,
    ),
    Mutant(
        "a block follows one that closes on arrival in the same step",
        "J1",
        "app/core/intake.py",
        "(received < now and (moved or due))",
        "(received < now and moved)",
        STEP,
    ),
    Mutant(
        "a block older than all memory is taken",
        "E7",
        "app/core/intake.py",
        "        elif header.received_at_ms < oldest:\n",
        "        elif header.received_at_ms < 0:\n",
        STEP,
    ),
    Mutant(
        "replays are not loaded",
        "A2",
        "app/core/load_plan.py",
        "    for flow in OUTPUTS:\n",
        "    for flow in OUTPUTS[:-1]:\n",
        LOAD,
    ),
    Mutant(
        "a replay is judged before it can have arrived",
        "A1",
        "app/core/reconcile.py",
        "    if item.attempts == 0:\n        return settled_ms\n",
        "    if item.attempts >= 0:\n        return settled_ms\n",
        AUDIT,
    ),
    Mutant(
        "the home hears first that a shard is finished, the others may never",
        "T5",
        "agents/bridge_worker.py",
        "        await asyncio.gather(*[self._record(n, rumour) for n in others])\n        await self._put(checkpoint)\n",
        "        await self._put(checkpoint)\n        await asyncio.gather(*[self._record(n, rumour) for n in others])\n",
        BRIDGE,
    ),
    Mutant(
        "a rumour that a shard is finished is taken for its owner's word",
        "T5",
        "agents/bridge_worker.py",
        "rumour = msgspec.structs.replace(checkpoint, told=False)",
        "rumour = checkpoint",
        BRIDGE,
    ),
    Mutant(
        "behind a transaction the last message is taken for the last that counted",
        "S5",
        "app/core/chain.py",
        "counted=Counted(record.step_number, record.step_offset),",
        "counted=Counted(record.step_number, record.last_offset),",
        CHAIN,
    ),
    Mutant(
        "time that has come exactly as far as needed is enough",
        "A1",
        "app/core/reconcile.py",
        "if stream_times_ms.get(p, -1) <= needed_ms):",
        "if stream_times_ms.get(p, -1) < needed_ms):",
        AUDIT,
    ),
)
