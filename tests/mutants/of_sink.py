"""Bugs in the sink: the chain of transactions and what follows from a record (rules S1 to S5)."""

from tests.mutants.mutant import Mutant

CHAIN = (
    "tests/unit/sink/test_chain.py", "tests/agents/sink/test_sink_transactions.py", "tests/agents/sink/test_sink_crashes.py",
    "tests/agents/sink/test_sink_sweep.py",
)  # fmt: skip
AGENT = ("tests/agents/sink/test_sink_agent.py",)

REPAIRS = ("tests/agents/sink/test_sink_repairs.py",)

MUTANTS = (
    Mutant(
        "the sink takes the damaged step although it is replaced",
        "E2",
        "app/core/sink/open_transaction.py",
        "        message = self._replaced.at(offset, message)\n",
        "",
        REPAIRS,
    ),
    Mutant(
        "a replaced step that the chain passed over is lost",
        "E2",
        "app/core/sink/open_transaction.py",
        "        self._take_passed_over(opened_at_s)\n",
        "",
        REPAIRS,
    ),
    Mutant(
        "the step-number rule is left out in the sink",
        "E2",
        "app/core/sink/open_transaction.py",
        "        if verdict is StepVerdict.IGNORE:\n            return Reception.IGNORED\n",
        "",
        CHAIN,
    ),
    Mutant(
        "no If-None-Match",
        "S1",
        "app/adapters/s3.py",
        'await self._threads.run(self._put, key, body, {"IfNoneMatch": "*"})',
        "await self._threads.run(self._put, key, body, {})",
        ("tests/contract/test_object_store.py",),
    ),
    Mutant(
        "the record is put whoever holds its number",
        "S1",
        "agents/sink/chain_store.py",
        "            result = await self._insist(lambda: self.objects.put_if_absent(key, encode_record(record)))\n",
        "            await self._put(key, encode_record(record))\n            result = PutResult.CREATED\n",
        CHAIN,
    ),
    Mutant(
        "412 taken for success without a look",
        "S4",
        "agents/sink/chain_store.py",
        "        if result is PutResult.CREATED:\n",
        "        if result in PutResult:\n",
        CHAIN,
    ),
    Mutant(
        "412 taken for another writer without a look",
        "S4",
        "app/core/sink/chain.py",
        "    return Holder.OURS if found.txn_id == ours.txn_id else Holder.FOREIGN\n",
        "    return Holder.FOREIGN\n",
        CHAIN,
    ),
    Mutant(
        "chain number off by one",
        "S1",
        "app/core/sink/open_transaction.py",
        "partition=open_.chain_id.partition, number=open_.end.number + 1,",
        "partition=open_.chain_id.partition, number=max(open_.end.number, 1),",
        CHAIN,
    ),
    Mutant(
        "manifests before the move",
        "S1",
        "agents/sink/chain_store.py",
        '        with timed("move"):\n            await asyncio.gather(*(self._move(move) for move in effects.moves))\n'
        '        with timed("manifests"):\n'
        "            await asyncio.gather(*(self._put(put.key, put.body) for put in effects.manifests))\n"
        "            await self._put(effects.ready.key, effects.ready.body)\n",
        '        with timed("manifests"):\n'
        "            await asyncio.gather(*(self._put(put.key, put.body) for put in effects.manifests))\n"
        "            await self._put(effects.ready.key, effects.ready.body)\n"
        '        with timed("move"):\n            await asyncio.gather(*(self._move(move) for move in effects.moves))\n',
        CHAIN,
    ),
    Mutant(
        "ready.json before the manifests",
        "S1",
        "agents/sink/chain_store.py",
        "            await asyncio.gather(*(self._put(put.key, put.body) for put in effects.manifests))\n"
        "            await self._put(effects.ready.key, effects.ready.body)\n",
        "            await self._put(effects.ready.key, effects.ready.body)\n"
        "            await asyncio.gather(*(self._put(put.key, put.body) for put in effects.manifests))\n",
        CHAIN,
    ),
    Mutant(
        "staged files deleted before the move is complete",
        "S1",
        "agents/sink/partition.py",
        "        effects = await self._chain.finish(record)\n",
        "        await self._chain.clear([out.staged_key for out in record.outputs if out.staged_key is not None])\n"
        "        effects = await self._chain.finish(record)\n",
        CHAIN,
    ),
    Mutant(
        "what was committed is not finished by the next owner",
        "S3",
        "agents/sink/partition.py",
        "        if last is not None:\n            await self._finish(last)\n            ROLLED",
        "        if last is not None:\n            ROLLED",
        CHAIN,
    ),
    Mutant(
        "a moved file is not compared with its record",
        "S3",
        "agents/sink/chain_store.py",
        "        if await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest()) != move.sha256:\n",
        '        if await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest()) == "":\n',
        CHAIN,
    ),
    Mutant(
        "acknowledged before ready",
        "S1",
        "agents/sink/partition.py",
        "        return self._end.last_offset\n",
        "        return self._open.last_offset\n",
        (*CHAIN, *AGENT),
    ),
    Mutant(
        "a writer that lost its number goes on with what it held",
        "S4",
        "agents/sink/partition.py",
        "        self._end = chain_end_after(last)\n        self._open = self._collect_behind(self._end)\n        bounds",
        "        self._end = chain_end_after(last)\n        bounds",
        CHAIN,
    ),
    Mutant(
        "a missing message is not noticed by the sink",
        "S1",
        "app/core/sink/open_transaction.py",
        "        if offset > self.next_offset:\n            return Reception.BEYOND\n",
        "",
        CHAIN,
    ),
    Mutant(
        "the last step is not compared with the chain's",
        "S5",
        "app/core/sink/open_transaction.py",
        'if offset != self.end.accepted.offset or self.end.digest in {"", digest_of(message or b"").hex()}:',
        "if offset >= 0:",
        (*CHAIN, "tests/agents/sink/test_sink_agent.py"),
    ),
    Mutant(
        "a transaction does not answer for a foreign message",
        "E2",
        "app/core/sink/open_transaction.py",
        "            self.last_offset, self.foreign = offset, str(exc)\n",
        "            self.foreign = str(exc)\n",
        (*CHAIN, "tests/agents/sink/test_sink_agent.py"),
    ),
    Mutant(
        "a ledger entry is written twice",
        "I2",
        "app/core/sink/open_transaction.py",
        "        self.ledger += step.ledger\n",
        "        self.ledger += [*step.ledger, *step.ledger[:1]]\n",
        CHAIN,
    ),
    Mutant(
        "the sweep deletes what may still be committed",
        "S4",
        "app/core/sink/chain.py",
        "    if holder is None:\n        return Leftover.KEEP\n",
        "    if holder is None:\n        return Leftover.DELETE\n",
        CHAIN,
    ),
    Mutant(
        "the sweep deletes what is committed before it is moved",
        "S4",
        "agents/sink/chain_store.py",
        "            if holder is not None:\n                await chain.finish(holder)\n",
        "",
        CHAIN,
    ),
)
