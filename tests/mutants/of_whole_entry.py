"""Bugs of collector, bridge and etl that show only where roles meet: over time, and when something fails between."""

from tests.mutants.mutant import Mutant

BRIDGE = (
    "tests/agents/bridge/test_bridge.py", "tests/unit/bridge/test_shards.py", "tests/property/test_shards_history.py",
    "tests/agents/bridge/test_bridge_agent.py",
)  # fmt: skip
STEP = (
    "tests/unit/etl/test_stream_time.py", "tests/unit/etl/test_join.py", "tests/unit/etl/test_ledger_of_steps.py",
    "tests/property/test_step_equals_oracle.py",
)  # fmt: skip
ETL = (
    "tests/agents/etl/test_etl_work.py",
    "tests/agents/etl/test_etl_work_upgrade.py",
    "tests/agents/etl/test_etl_partition.py",
    "tests/agents/etl/test_etl_partition_failures.py",
    "tests/property/test_histories.py",
)
COLLECTOR = (
    "tests/agents/collector/test_collector_batches.py",
    "tests/agents/collector/test_collector_failures.py",
    "tests/unit/events/test_batch.py",
)

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
        "who begins learns of his own shards only",
        "T2",
        "agents/bridge/ownership.py",
        "        for checkpoint in checkpoints:\n            book.learn(checkpoint)\n",
        "        for checkpoint in checkpoints:\n"
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
        "an unanswered registration is taken for done",
        "I3",
        "app/collector/batcher.py",
        "                if not exc.retriable:\n                    raise\n",
        "                if not exc.retriable:\n                    raise\n"
        '                if type(exc).__name__ == "OutcomeUnknown":\n                    return None\n',
        COLLECTOR,
    ),
    Mutant(
        "a running worker hears of its own shards only",
        "T2",
        "agents/bridge/ownership.py",
        "        if furthest is not None and self.worker is not None:\n",
        "        if furthest is not None and self.worker is not None and self.worker.book.owns(furthest.shard):\n",
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
        "        try:\n"
        "            checkpoints = self._table.of(owned)\n"
        "        except NewerFormat as exc:  # no worker runs until the process is upgraded, or loses its partitions\n"
        '            self._upgrades.begin(f"table {self._topic.name}", exc)\n'
        "            await asyncio.Event().wait()\n"
        "        for checkpoint in checkpoints:\n"
        "            book.learn(checkpoint)\n",
        "        settings, ports = self._bridge.settings, self._bridge.ports\n"
        "        book = ShardBook(frozenset(owned), settings.checkpoint_partitions, round(settings.slack_s * 1000))\n"
        "        try:\n"
        "            checkpoints = self._table.of(owned)\n"
        "        except NewerFormat as exc:  # no worker runs until the process is upgraded, or loses its partitions\n"
        '            self._upgrades.begin(f"table {self._topic.name}", exc)\n'
        "            await asyncio.Event().wait()\n"
        "        for checkpoint in checkpoints:\n"
        "            book.learn(checkpoint)\n"
        "        await self._catch_up(owned)\n",
        BRIDGE,
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
        "an owner numbers its steps by another partition's store",
        "E2",
        "agents/etl/partition.py",
        "        return self._ports.state.position(self._inbox.partition).accepted\n",
        "        return self._ports.state.position(0).accepted\n",
        ETL,
    ),
    Mutant(
        "two collectors name a batch alike",
        "I2",
        "app/collector/batcher.py",
        "new_batch_id(clock.now_ms(), random_bytes(ID_RANDOM_BYTES), self._last_id)",
        "new_batch_id(clock.now_ms(), bytes(ID_RANDOM_BYTES), self._last_id)",
        (*COLLECTOR, "tests/agents/collector/test_collector_answers.py"),
    ),
)
