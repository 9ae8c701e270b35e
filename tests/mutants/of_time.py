"""Bugs in the collector, the bridge, and in how time is told (rules T1 to T5)."""

from tests.mutants.mutant import Mutant

BRIDGE = ("tests/agents/bridge/test_bridge.py", "tests/unit/bridge/test_shards.py", "tests/property/test_shards_history.py")
OWNERSHIP = ("tests/agents/bridge/test_bridge_agent.py",)
TIME = ("tests/unit/etl/test_stream_time.py", "tests/property/test_step_equals_oracle.py")
COLLECTOR = (
    "tests/agents/collector/test_collector_batches.py",
    "tests/agents/collector/test_collector_failures.py",
    "tests/unit/events/test_batch.py",
)

MUTANTS = (
    Mutant(
        "answered before the batch is registered",
        "I3",
        "app/collector/batcher.py",
        'await self._insist("registry", held, lambda: self._ports.registry.register(sealed.item))  # 2',
        'self._start(self._insist("registry", held, lambda: self._ports.registry.register(sealed.item)))',
        COLLECTOR,
    ),
    Mutant(
        "answered before the raw file is stored",
        "I3",
        "app/collector/batcher.py",
        'await self._insist("s3", held, lambda: self._ports.store.put(sealed.item.raw_key, sealed.raw))  # 1',
        'self._start(self._insist("s3", held, lambda: self._ports.store.put(sealed.item.raw_key, sealed.raw)))',
        COLLECTOR,
    ),
    Mutant(
        "a refused block is taken for put",
        "A1",
        "app/collector/resender.py",
        "self._queue.extendleft(head[number] for number in reversed(failed))",
        "self._queue.extendleft(head[number] for number in reversed(failed[1:]))",
        (
            "tests/agents/collector/test_collector_batches.py",
            "tests/agents/collector/test_collector_failures.py",
        ),
    ),
    Mutant(
        "checkpoint before the Kafka acknowledgement",
        "T1",
        "agents/bridge/shard_reader.py",
        "        if acks:\n            await asyncio.gather(*acks)\n",
        "",
        (*BRIDGE, *OWNERSHIP),
    ),
    Mutant(
        "an expired iterator is renewed at the oldest record",
        "T2",
        "agents/bridge/shard_reader.py",
        "            RENEWED.inc()\n            self._iterator = None\n",
        "            RENEWED.inc()\n            self._iterator = await self._stream.iterator(self.shard, None)\n",
        BRIDGE,
    ),
    Mutant(
        "children are pumped before their parents are finished",
        "T2",
        "app/core/bridge/shards.py",
        "return all(parent in self._finished or parent not in self._listing for parent in self._listing[shard].parents)",
        "return all(parent in self._listing or parent in self._finished for parent in self._listing[shard].parents)",
        BRIDGE,
    ),
    Mutant(
        "a mark runs ahead of the last list that showed the shard open",
        "T3",
        "app/core/bridge/shards.py",
        "self.watermark_ms = max(self.watermark_ms, min(self.quiet_ms, self.open_at_ms))",
        "self.watermark_ms = max(self.watermark_ms, self.quiet_ms)",
        BRIDGE,
    ),
    Mutant(
        "END before a tick shows the shard's children",
        "T5",
        "app/core/bridge/shards.py",
        "listed = self._published.get(shard)",
        "listed = self._listing.get(shard)",
        BRIDGE,
    ),
    Mutant(
        "END goes to the first partition only",
        "T5",
        "agents/bridge/bridge.py",
        "await self._append_everywhere(encode_control(End(shard)))",
        "await (await self._append(0, encode_control(End(shard))))",
        BRIDGE,
    ),
    Mutant(
        "a shard is told finished before its END is everywhere",
        "T5",
        "agents/bridge/bridge.py",
        "        await self._append_everywhere(encode_control(End(shard)))\n        ENDS",
        "        await self._put(self.book.ended(shard))\n"
        "        await self._append_everywhere(encode_control(End(shard)))\n"
        "        ENDS",
        BRIDGE,
    ),
    Mutant(
        "a new owner does not wait for the former one's checkpoints",
        "T1",
        "agents/bridge/ownership.py",
        "        await self._catch_up(owned)\n",
        "",
        OWNERSHIP,
    ),
    Mutant(
        "stream time by wall clock",
        "T4",
        "app/core/etl/stream_time.py",
        "return now_ms if lowest is None else max(now_ms, min(lowest, append_ms))",
        "return max(now_ms, append_ms)",
        TIME,
    ),
    Mutant(
        "stream time by one shard only",
        "T4",
        "app/core/etl/stream_time.py",
        "lowest = mark if lowest is None else min(lowest, mark)",
        "lowest = mark if lowest is None else max(lowest, mark)",
        TIME,
    ),
    Mutant(
        "a shard without a mark does not hold time",
        "T4",
        "app/core/etl/stream_time.py",
        "                    return None\n",
        "                    continue\n",
        TIME,
    ),
    Mutant(
        "a finished shard reopens",
        "T5",
        "app/core/etl/stream_time.py",
        "                if shard not in done:\n                    self.unfinished[shard] = parents\n",
        "                self.unfinished[shard] = parents\n",
        TIME,
    ),
)
