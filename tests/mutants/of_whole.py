"""Bugs that show only where several roles meet: in concert, over time, and when something fails in between."""

from tests.mutants.mutant import Mutant

BRIDGE = (
    "tests/agents/bridge/test_bridge.py", "tests/unit/bridge/test_shards.py", "tests/property/test_shards_history.py",
    "tests/agents/bridge/test_bridge_agent.py",
)  # fmt: skip
STEP = (
    "tests/unit/etl/test_stream_time.py", "tests/unit/etl/test_join.py", "tests/unit/etl/test_ledger_of_steps.py",
    "tests/property/test_step_equals_oracle.py",
)  # fmt: skip
CHAIN = (
    "tests/unit/sink/test_chain.py", "tests/agents/sink/test_sink_transactions.py", "tests/agents/sink/test_sink_crashes.py",
    "tests/agents/sink/test_sink_agent.py",
)  # fmt: skip
ETL = ("tests/agents/etl/test_etl_work.py", "tests/agents/etl/test_etl_partition.py", "tests/property/test_histories.py")
COLLECTOR = ("tests/agents/collector/test_collector_batches.py", "tests/unit/events/test_batch.py")
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
        "a shard that closes while it is read is taken for read to its end",
        "T2",
        "agents/bridge/shard_reader.py",
        "self._book.answered(self.shard, _answer(page, asked_at_ms, known_closed))",
        "self._book.answered(self.shard, _answer(page, asked_at_ms, self._book.known_closed(self.shard)))",
        BRIDGE,
    ),
    Mutant(
        "the child of two shards starts with the later one's mark",
        "T4",
        "app/core/etl/stream_time.py",
        "                mark = min(known)\n",
        "                mark = max(known)\n",
        STEP,
    ),
    Mutant(
        "a first is remembered by its block's time alone",
        "E7",
        "app/core/join/join.py",
        "        values = [max(stored, join_key[:TIME_BYTES]) + join_key for join_key in join_keys]\n",
        "        values = [stored + join_key for join_key in join_keys]\n",
        STEP,
    ),
    Mutant(
        "an earlier first shortens the memory of its page view",
        "E7",
        "app/core/join/join.py",
        "= max(value[:TIME_BYTES], joining_key[:TIME_BYTES]) + join_key",
        "= value",
        STEP,
    ),
    Mutant(
        "a block follows a leap of time in the same step",
        "J1",
        "app/core/etl/source.py",
        " or (moved and now > far):",
        ":",
        STEP,
    ),
    Mutant(
        "a block follows one that closes on arrival in the same step",
        "J1",
        "app/core/etl/source.py",
        "(received < now and (moved or due))",
        "(received < now and moved)",
        STEP,
    ),
    Mutant(
        "a block older than all memory is taken",
        "E7",
        "app/core/etl/source.py",
        "        elif header.received_at_ms < oldest:\n",
        "        elif header.received_at_ms < 0:\n",
        STEP,
    ),
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
        "the home hears first that a shard is finished, the others may never",
        "T5",
        "agents/bridge/bridge.py",
        "await asyncio.gather(*[self._record(n, announcement) for n in others])\n        await self._put(checkpoint)\n",
        "await self._put(checkpoint)\n        await asyncio.gather(*[self._record(n, announcement) for n in others])\n",
        BRIDGE,
    ),
    Mutant(
        "a rumour that a shard is finished is taken for its owner's word",
        "T5",
        "agents/bridge/bridge.py",
        "announcement = msgspec.structs.replace(checkpoint, announced=False)",
        "announcement = checkpoint",
        BRIDGE,
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
        "who begins learns of his own shards only",
        "T2",
        "agents/bridge/ownership.py",
        "        for checkpoint in self._table.of(owned):\n            book.learn(checkpoint)\n",
        "        for checkpoint in self._table.of(owned):\n"
        "            if book.owns(checkpoint.shard):\n"
        "                book.learn(checkpoint)\n",
        BRIDGE,
    ),
    Mutant(
        "new shards are not recorded before a tick names them",
        "T4",
        "agents/bridge/bridge.py",
        "        for shard in self.book.unrecorded():\n            await self._put(Checkpoint(shard))\n",
        "        for shard in self.book.unrecorded():\n",
        BRIDGE,
    ),
    Mutant(
        "an owner begins without what its store knows of time",
        "E5",
        "agents/etl/owner.py",
        "state.reader(partition), position.meta, position.source_last)",
        "state.reader(partition), None, position.source_last)",
        ETL,
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
        "an unanswered registration is taken for done",
        "I3",
        "app/collector/batcher.py",
        "                if not exc.retriable:\n                    raise\n",
        "                if not exc.retriable:\n                    raise\n"
        '                if type(exc).__name__ == "OutcomeUnknown":\n                    return None\n',
        COLLECTOR,
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
        "a running worker hears of its own shards only",
        "T2",
        "agents/bridge/ownership.py",
        "            if self.worker is not None:\n                self.worker.book.learn(furthest)\n",
        "            if self.worker is not None and self.worker.book.owns(furthest.shard):\n"
        "                self.worker.book.learn(furthest)\n",
        BRIDGE,
    ),
    Mutant(
        "shards have as many homes as blocks has partitions",
        "T1",
        "agents/bridge/ownership.py",
        "share = Share(scope, settings.checkpoint_partitions,",
        "share = Share(scope, settings.partitions,",
        BRIDGE,
    ),
    Mutant(
        "what is said while a worker catches up is not heard",
        "T1",
        "agents/bridge/ownership.py",
        "        await self._catch_up(owned)\n"
        "        settings, ports = self._bridge.settings, self._bridge.ports\n"
        "        book = ShardBook(frozenset(owned), settings.checkpoint_partitions, round(settings.slack_s * 1000))\n"
        "        for checkpoint in self._table.of(owned):\n            book.learn(checkpoint)\n",
        "        settings, ports = self._bridge.settings, self._bridge.ports\n"
        "        book = ShardBook(frozenset(owned), settings.checkpoint_partitions, round(settings.slack_s * 1000))\n"
        "        for checkpoint in self._table.of(owned):\n            book.learn(checkpoint)\n"
        "        await self._catch_up(owned)\n",
        BRIDGE,
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
        "an owner keeps the time of the gap that it declared",
        "E4",
        "agents/etl/owner.py",
        "        await etl_partition.declare_gap(first)\n",
        "        log.debug(str(first))\n",
        ETL,
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
        "an owner looks things up in another partition's store",
        "E1",
        "agents/etl/owner.py",
        "PartitionEtl.load(partition, rules, enricher, state.reader(partition),",
        "PartitionEtl.load(partition, rules, enricher, state.reader(0),",
        ETL,
    ),
    Mutant(
        "the former owner's word comes while END is sent",
        "T5",
        "app/core/bridge/shards.py",
        "        if life.phase is not Phase.FINISHED:\n            self._move(shard, Phase.FINISHED)\n        return",
        "        self._move(shard, Phase.FINISHED)\n        return",
        BRIDGE,
    ),
    Mutant(
        "an answer moves a shard that is finished already",
        "T5",
        "app/core/bridge/shards.py",
        "        if life.phase is not Phase.READING:\n            return\n",
        "",
        BRIDGE,
    ),
    Mutant(
        "the audit looks behind delivery where it was at first",
        "A2",
        "agents/audit/auditor.py",
        "                number = self._delivery.number(partition)\n",
        "                number = 0\n",
        AUDIT,
    ),
    Mutant(
        "an owner numbers its steps by another partition's store",
        "E2",
        "agents/etl/partition.py",
        "        return self._ports.state.position(self._inbox.partition).accepted\n",
        "        return self._ports.state.position(0).accepted\n",
        ETL,
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
        "two collectors name a batch alike",
        "I2",
        "app/collector/batcher.py",
        "new_batch_id(clock.now_ms(), random_bytes(ID_RANDOM_BYTES), self._last_id)",
        "new_batch_id(clock.now_ms(), bytes(ID_RANDOM_BYTES), self._last_id)",
        (*COLLECTOR, "tests/agents/collector/test_collector_answers.py"),
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
