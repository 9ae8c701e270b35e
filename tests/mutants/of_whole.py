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
ETL = ("tests/agents/test_etl_work.py", "tests/agents/test_etl_partition.py", "tests/property/test_histories.py")
COLLECTOR = ("tests/agents/test_collector_batches.py", "tests/unit/test_batch.py")
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
        "        values = [max(stored, rank[:TIME_BYTES]) + rank for rank in ranks]\n",
        "        values = [stored + rank for rank in ranks]\n",
        STEP,
    ),
    Mutant(
        "an earlier first shortens the memory of its page view",
        "E7",
        "app/core/join.py",
        "= max(value[:TIME_BYTES], joiner[:TIME_BYTES]) + rank",
        "= value",
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
    Mutant(
        "who begins learns of his own shards only",
        "T2",
        "agents/bridge_ownership.py",
        "            for checkpoint in self._table.of(owned):\n                book.learn(checkpoint)\n",
        "            for checkpoint in self._table.of(owned):\n"
        "                if book.owns(checkpoint.shard):\n"
        "                    book.learn(checkpoint)\n",
        BRIDGE,
    ),
    Mutant(
        "new shards are not recorded before a tick names them",
        "T4",
        "agents/bridge_worker.py",
        "        for shard in self.book.unrecorded():\n            await self._put(Checkpoint(shard))\n",
        "        for shard in self.book.unrecorded():\n",
        BRIDGE,
    ),
    Mutant(
        "an owner begins without what its store knows of time",
        "E5",
        "agents/etl_owner.py",
        "state.reader(partition), position.meta, position.source_last)",
        "state.reader(partition), None, position.source_last)",
        ETL,
    ),
    Mutant(
        "delivery tells when a transaction was committed for its stream time",
        "D1",
        "app/core/load_plan.py",
        "    time = datetime.fromtimestamp(txn.stream_time_ms / 1000, UTC)",
        "    time = datetime.fromtimestamp(txn.committed_at_ms / 1000, UTC)",
        LOAD,
    ),
    Mutant(
        "two loads have the same name",
        "D1",
        "agents/warehouse_load.py",
        'return f"{self._clock.now_ms():013d}-{self._token()}"',
        'return f"{self._epoch:013d}-load"',
        LOAD,
    ),
    Mutant(
        "the other writer's staged files are deleted",
        "S4",
        "agents/sink_partition.py",
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
        "agents/sink_partition.py",
        "keys.txn_id(*self.place, open_.end.number + 1, self._outside.random_hex())",
        'keys.txn_id(*self.place, open_.end.number + 1, "00000000")',
        CHAIN,
    ),
    Mutant(
        "a running worker hears of its own shards only",
        "T2",
        "agents/bridge_ownership.py",
        "            if self._worker is not None:\n                self._worker.book.learn(furthest)\n",
        "            if self._worker is not None and self._worker.book.owns(furthest.shard):\n"
        "                self._worker.book.learn(furthest)\n",
        BRIDGE,
    ),
    Mutant(
        "shards have as many homes as blocks has partitions",
        "T1",
        "agents/bridge_ownership.py",
        "Cluster(settings.epoch, settings.partitions), settings.checkpoint_partitions,",
        "Cluster(settings.epoch, settings.partitions), settings.partitions,",
        BRIDGE,
    ),
    Mutant(
        "what is said while a worker catches up is not heard",
        "T1",
        "agents/bridge_ownership.py",
        "            await self._catch_up(owned)\n"
        "            book = ShardBook(owned, self._topic.partitions, round(self._process.settings.slack_s * 1000))\n"
        "            for checkpoint in self._table.of(owned):\n                book.learn(checkpoint)\n",
        "            book = ShardBook(owned, self._topic.partitions, round(self._process.settings.slack_s * 1000))\n"
        "            for checkpoint in self._table.of(owned):\n                book.learn(checkpoint)\n"
        "            await self._catch_up(owned)\n",
        BRIDGE,
    ),
    Mutant(
        "work in flight is not waited for on revoke",
        "E3",
        "app/shell/runners.py",
        "            if tasks:\n                await asyncio.wait(tasks)\n",
        "            if tasks:\n                await asyncio.sleep(0)\n",
        ("tests/agents/test_runners.py", "tests/agents/test_etl_agent.py", "tests/agents/test_sink_agent.py"),
    ),
    Mutant(
        "an owner keeps the time of the gap that it declared",
        "E4",
        "agents/etl_owner.py",
        "        await etl_partition.declare_gap(first)\n",
        "        log.debug(str(first))\n",
        ETL,
    ),
    Mutant(
        "an ignored step moves the sink's time",
        "E2",
        "app/core/collecting.py",
        "        if verdict is Verdict.IGNORE:\n            return Arrival.IGNORED\n",
        "        if verdict is Verdict.IGNORE:\n"
        "            self.stream_time_ms = max(self.stream_time_ms, step.stream_time_ms)\n"
        "            return Arrival.IGNORED\n",
        CHAIN,
    ),
    Mutant(
        "what is behind delivery is looked for in one partition only",
        "A2",
        "agents/auditor.py",
        "unloaded, far = await behind.of({place.partition for place in places})",
        "unloaded, far = await behind.of({min(place.partition for place in places)})",
        AUDIT,
    ),
    Mutant(
        "an owner looks things up in another partition's store",
        "E1",
        "agents/etl_owner.py",
        "PartitionEtl.load(partition, rules, enricher, state.reader(partition),",
        "PartitionEtl.load(partition, rules, enricher, state.reader(0),",
        ETL,
    ),
    Mutant(
        "the former owner's word comes while END is sent",
        "T5",
        "app/core/shards.py",
        "        if life.phase is not Phase.FINISHED:\n            self._move(shard, Phase.FINISHED)\n        return",
        "        self._move(shard, Phase.FINISHED)\n        return",
        BRIDGE,
    ),
    Mutant(
        "an answer moves a shard that is finished already",
        "T5",
        "app/core/shards.py",
        "        if life.phase is not Phase.PUMPING:\n            return\n",
        "",
        BRIDGE,
    ),
    Mutant(
        "the audit looks behind delivery where it was at first",
        "A2",
        "agents/auditor.py",
        "                number = self._delivery.number(partition)\n",
        "                number = 0\n",
        AUDIT,
    ),
    Mutant(
        "an owner numbers its steps by another partition's store",
        "E2",
        "agents/etl_owner.py",
        "        return self._outside.state.position(self._partition).counted\n",
        "        return self._outside.state.position(0).counted\n",
        ETL,
    ),
    Mutant(
        "a sink reads another partition's record",
        "S4",
        "app/chain_store.py",
        "            body = await self._insist(lambda: self.objects.get(keys.record_key(*self.place, number)))\n",
        "            body = await self._insist(lambda: self.objects.get(keys.record_key(self.place.epoch, 0, number)))\n",
        CHAIN,
    ),
    Mutant(
        "the sweep looks into another partition's chain",
        "S4",
        "app/chain_store.py",
        "_sweep_one(ChainStore(objects, whose.place, sleep), whose,",
        "_sweep_one(ChainStore(objects, Place(whose.place.epoch, 0), sleep), whose,",
        (*CHAIN, "tests/agents/test_sink_sweep.py"),
    ),
    Mutant(
        "two collectors name a batch alike",
        "I2",
        "app/collector/batcher.py",
        "new_batch_id(clock.now_ms(), random_bytes(ID_RANDOM_BYTES), self._last_id)",
        "new_batch_id(clock.now_ms(), bytes(ID_RANDOM_BYTES), self._last_id)",
        (*COLLECTOR, "tests/agents/test_collector_answers.py"),
    ),
    Mutant(
        "what the audit read of one partition it believes of another",
        "A2",
        "app/stored_ledger.py",
        "            at = (partition, number)\n",
        "            at = (self._epoch, number)\n",
        AUDIT,
    ),
)
