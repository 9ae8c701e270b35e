"""Bugs in the ETL: the step, its place in the log, its state, and what becomes of lines (rules E1 to E7, J1)."""

from tests.mutants.mutant import Mutant

LOOP = (
    "tests/agents/etl/test_etl_partition.py",
    "tests/agents/etl/test_etl_partition_failures.py",
    "tests/agents/etl/test_etl_work.py",
    "tests/agents/etl/test_etl_work_upgrade.py",
)
HISTORY = ("tests/unit/etl/test_counting.py", "tests/property/test_histories.py", "tests/property/test_partition_db.py")
GATHERED = ("tests/property/test_gathered_steps.py",)
RECOVERY = (
    "tests/agents/etl/test_partition_state.py",
    "tests/agents/etl/test_etl_work.py",
    "tests/agents/etl/test_etl_work_upgrade.py",
)
LINES = ("tests/property/test_step_equals_oracle.py", "tests/unit/etl/test_ledger_of_steps.py")


MUTANTS = (
    Mutant(
        "recovery reads the damaged step although it is replaced",
        "E2",
        "tables/partition_state.py",
        "db.follow(message if replaced is None else replaced.at(offset, message), offset)",
        "db.follow(message, offset)",
        ("tests/agents/etl/test_state_repairs.py",),
    ),
    Mutant(
        "a damaged step is replaced without a proof",
        "E2",
        "agents/etl/log_repair.py",
        "            prove(self._core, step, sources, self._accepted)\n",
        "",
        ("tests/agents/etl/test_log_repair.py",),
    ),
    Mutant(
        "a step of a zombie counts in the place of the damaged one",
        "E2",
        "agents/etl/log_repair.py",
        "                raise _NamedLater(step.predecessor)\n",
        "                pass\n",
        ("tests/property/test_log_repair.py",),
    ),
    Mutant(
        "acknowledged before the step is stored",
        "E3",
        "agents/etl/partition.py",
        "        message = encode_step(step)\n        with STEP",
        "        message = encode_step(step)\n        self._inbox.ack(step.source_last)\n        with STEP",
        LOOP,
    ),
    Mutant(
        "local state written before the log",
        "E3",
        "agents/etl/partition.py",
        "            offset = await self._ports.append(self._inbox.partition, message)\n"
        '        with STEP_SECONDS.labels("commit").time():\n'
        "            self._ports.state.commit(step, message, offset)\n",
        "            offset = self._accepted().offset + 1\n"
        '        with STEP_SECONDS.labels("commit").time():\n'
        "            self._ports.state.commit(step, message, offset)\n"
        "            await self._ports.append(self._inbox.partition, message)\n",
        LOOP,
    ),
    Mutant(
        "the step-number rule is left out in recovery",
        "E2",
        "tables/store/partition_store.py",
        "        if verdict is StepVerdict.ACCEPT:\n            with placed(",
        "        if verdict in StepVerdict:\n            with placed(",
        HISTORY,
    ),
    Mutant(
        "the predecessor is not asked for",
        "E2",
        "app/core/formats/step_history.py",
        "if number == self.number + 1 and predecessor == self.offset:",
        "if number == self.number + 1:",
        HISTORY,
    ),
    Mutant(
        "another writer's step is not noticed",
        "E3",
        "tables/store/partition_store.py",
        "        if offset != self.rows_offset + 1:\n",
        "        if offset <= self.rows_offset:\n",
        HISTORY,
    ),
    Mutant(
        "an ignored message does not advance the rows offset",
        "E2",
        "tables/store/partition_store.py",
        "        self._gathered.pass_over()\n        self.rows_offset = offset\n",
        "        self._gathered.pass_over()\n",
        HISTORY,
    ),
    Mutant(
        "a step's position is written apart from what it changes",
        "E3",
        "tables/store/partition_store.py",
        "        batch.put(_DEFAULT, _POSITION, encode_position(position))\n",
        "        self._engine.write(batch)\n        batch = self._engine.batch()\n"
        "        batch.put(_DEFAULT, _POSITION, encode_position(position))\n",
        HISTORY,
    ),
    Mutant(
        "the position is on disk before what was put",
        "E3",
        "tables/store/partition_store.py",
        "        ingested = puts is not None and self._expiring.ingest(puts)\n"
        "        expiring = () if ingested else gathered.expiring\n"
        "        self._write_batch(expiring, gathered.window, self.position, self.rows_offset)\n",
        "        self._write_batch((), gathered.window, self.position, self.rows_offset)\n"
        "        if puts is None or not self._expiring.ingest(puts):\n"
        "            self._write_batch(gathered.expiring, {}, self.position, self.rows_offset)\n",
        GATHERED,
    ),
    Mutant(
        "what was taken and not written is not seen",
        "E2",
        "tables/store/partition_store.py",
        "        found = self._gathered.newest(table, keys)\n",
        "        found: list[bytes | None] = [None] * len(keys)\n",
        GATHERED,
    ),
    Mutant(
        "a frame that was taken and not written is not seen",
        "E2",
        "tables/store/partition_store.py",
        "        asked = [key for key in tagged if key not in gathered]\n",
        "        asked, gathered = tagged, {}\n",
        GATHERED,
    ),
    Mutant(
        "Faust is told a position that is not on disk",
        "E5",
        "tables/partition_state.py",
        "        db.write()\n        return None",
        "        return None",
        RECOVERY,
    ),
    Mutant(
        "what could not be written is forgotten",
        "E3",
        "tables/store/partition_store.py",
        "        puts = sorted_puts(gathered.expiring)\n",
        "        self._gathered = Gathered(lambda: GATHERED_BYTES)\n        puts = sorted_puts(gathered.expiring)\n",
        GATHERED,
    ),
    Mutant(
        "an older value outlives what is ingested",
        "E7",
        "tables/store/expiring.py",
        " or any(n > target for n in self.generations)",
        "",
        GATHERED,
    ),
    Mutant(
        "of a key that several steps put the first holds",
        "E2",
        "tables/store/entries.py",
        "    last[:-1] = np.logical",
        "    last[1:] = np.logical",
        ("tests/property/test_entries.py",),
    ),
    Mutant(
        "a step that recovery cannot apply is passed over in silence",
        "E5",
        "tables/partition_state.py",
        "                self._instream.add_future(self._instream.crash(exc))\n",
        "                log.debug(str(exc))\n",
        RECOVERY,
    ),
    Mutant(
        "a stale store is trusted",
        "E5",
        "tables/store/store_check.py",
        "        if db.rows_offset + 1 < first:\n",
        "        if db.rows_offset + 1 < 0:\n",
        RECOVERY,
    ),
    Mutant(
        "a store of another history is trusted",
        "E5",
        "tables/store/store_check.py",
        "if message is not None and digest_of(message) != digest:",
        "if message is not None and not digest:",
        RECOVERY,
    ),
    Mutant(
        "an owner begins before recovery has read the log to its end",
        "E3",
        "agents/etl/owner.py",
        "    await state.verify_recovered(partition)\n",
        "",
        RECOVERY,
    ),
    Mutant(
        "an owner reads on from the committed offset",
        "E4",
        "agents/etl/owner.py",
        "    await inbox.start_at(first)\n",
        "    inbox.next_offset = first\n",
        RECOVERY,
    ),
    Mutant(
        "a source message that does not follow is taken",
        "E4",
        "app/core/etl/step.py",
        "            if message.offset != n:\n",
        "            if message.offset < n:\n",
        LINES,
    ),
    Mutant(
        "a gap in the source is passed over in silence",
        "E4",
        "app/shell/inbox.py",
        "        if offset == self.next_offset:\n            taken.append(event)\n            self.next_offset += 1\n",
        "        if offset >= self.next_offset:\n"
        "            taken.append(event)\n"
        "            self.next_offset = offset + 1\n",
        ("tests/agents/shell/test_runners.py",),
    ),
    Mutant(
        "an agent's exception is swallowed",
        "E6",
        "app/shell/owned_loop.py",
        "        await process.crash(exc)\n",
        "        log.debug(str(exc))\n",
        (
            "tests/unit/shell/test_owned_loop.py",
            "tests/agents/etl/test_etl_agent.py",
            "tests/agents/sink/test_sink_agent.py",
            "tests/agents/shell/test_runners.py",
        ),
    ),
    Mutant(
        "work that ends is not missed",
        "E6",
        "app/shell/runners.py",
        "        if not inbox.closing:\n            raise RuntimeError",
        "        if inbox.next_offset is None:\n            raise RuntimeError",
        ("tests/agents/shell/test_runners.py",),
    ),
    Mutant(
        "messages of an older generation are taken",
        "E4",
        "app/shell/runners.py",
        "        if self._process.is_current(message.generation_id):\n",
        "        if message.generation_id is not None:\n",
        ("tests/agents/etl/test_etl_agent.py", "tests/agents/sink/test_sink_agent.py"),
    ),
    Mutant(
        "a block met again is taken again",
        "E7",
        "app/core/etl/source.py",
        "        if stored is not None and stored >= pack_time(oldest):\n",
        "        if stored is not None and stored >= pack_time(oldest) and header.attempt == 0:\n",
        LINES,
    ),
    Mutant(
        "a block met twice in one step is taken twice",
        "E7",
        "app/core/etl/source.py",
        "                blocks.append(block)\n                known[key] = pack_time(block.stored_ms)\n",
        "                blocks.append(block)\n",
        LINES,
    ),
    Mutant(
        "a replay is not reported",
        "A2",
        "app/core/etl/step.py",
        "ledger=parts.ledger, replays=intake.replays,",
        "ledger=parts.ledger, replays=[],",
        LINES,
    ),
    Mutant(
        "a block marked known without its lines",
        "E2",
        "tables/store/partition_store.py",
        "        else:\n            self._pass_over(offset)\n",
        "        else:\n            batch = self._engine.batch()\n"
        "            for change in step.changes:\n"
        '                if change.table == "blocks":\n'
        "                    self._expiring.change(batch, change)\n"
        "            self._engine.write(batch)\n            self._pass_over(offset)\n",
        HISTORY,
    ),
    Mutant(
        "a foreign message at the beginning of the log is not counted as read",
        "E2",
        "tables/store/partition_store.py",
        "            if not self.empty or offset == 0:\n",
        "            if not self.empty:\n",
        HISTORY,
    ),
    Mutant(
        "a step of another partition is taken",
        "E2",
        "app/core/formats/step_message.py",
        "    if log is not None and (step.epoch, step.partition) != (log.epoch, log.partition):\n",
        "    if log is not None and step.epoch != log.epoch:\n",
        (*HISTORY, "tests/agents/sink/test_sink_transactions.py"),
    ),
    Mutant(
        "what other programs write to Kinesis stops the etl",
        "E8",
        "app/core/etl/source.py",
        "            refused.append(DeadLetter(",
        "            dead.append(DeadLetter(",
        ("tests/unit/etl/test_dead_letters.py",),
    ),
    Mutant(
        "an event met twice in one step counts twice",
        "J1",
        "app/core/etl/dedup.py",
        "        known = fresh.get(digest) or value\n",
        "        known = value\n",
        LINES,
    ),
    Mutant(
        "seen stored before dedup",
        "J1",
        "app/core/etl/dedup.py",
        "        known = fresh.get(digest) or value\n",
        "        known = value or fresh.setdefault(digest, pack_time(block.stored_ms))\n",
        LINES,
    ),
    Mutant(
        "what is remembered expires by the block's own time",
        "E7",
        "app/core/formats/source.py",
        "        return max(self.stream_time_ms, self.header.received_at_ms)\n",
        "        return self.header.received_at_ms\n",
        (*LINES, *HISTORY),
    ),
    Mutant(
        "a step ends nowhere: an old block follows moved time",
        "J1",
        "app/core/etl/source.py",
        "        if (received < now and (moved or due)) or (moved and now > far):\n            return n\n",
        "",
        LINES,
    ),
)
