"""Bugs in delivery (rules D1, D2)."""

from tests.mutants.mutant import Mutant

LOAD = (
    "tests/agents/delivery/test_delivery_crashes.py", "tests/agents/delivery/test_delivery_in_memory.py",
    "tests/unit/delivery/test_load_plan.py",
    "tests/agents/delivery/test_delivery_agent.py",
)  # fmt: skip
SEARCH = ("tests/unit/delivery/test_bisection.py", "tests/agents/delivery/test_delivery_in_memory.py")

MUTANTS = (
    Mutant(
        "delivery finishes a transaction that its sink is still at",
        "S3",
        "agents/delivery/deliverer.py",
        "                    if key == found[-1]:\n",
        "                    if key is None:\n",
        (*LOAD, "tests/agents/delivery/test_delivery_finishes_again.py"),
    ),
    Mutant(
        "delivery log outside the transaction",
        "D1",
        "agents/delivery/load.py",
        "                await session.insert_log(rows)  # 5\n",
        "                await _commit(session)\n                await session.insert_log(rows)  # 5\n",
        LOAD,
    ),
    Mutant(
        "the manifest is planned before the lock",
        "D1",
        "agents/delivery/load.py",
        "                await session.lock()  # 1\n                positions = await session.positions(self._epoch)  # 2\n",
        "                positions = await session.positions(self._epoch)  # 2\n"
        "                await session.rollback()\n"
        "                await session.lock()  # 1\n",
        LOAD,
    ),
    Mutant(
        "the log is read before the lock, in the same transaction",
        "D1",
        "agents/delivery/load.py",
        "                await session.lock()  # 1\n                positions = await session.positions(self._epoch)  # 2\n",
        "                positions = await session.positions(self._epoch)  # 2\n                await session.lock()  # 1\n",
        LOAD,
    ),
    Mutant(
        "no lock",
        "D1",
        "agents/delivery/load.py",
        "                await session.lock()  # 1\n",
        "",
        LOAD,
    ),
    Mutant(
        "what is loaded next comes from the walk, not from the log",
        "D1",
        "agents/delivery/load.py",
        "planned = plan_load(positions, ready, limits)",
        "planned = tuple(sorted(ready, key=lambda t: t.number))[: limits.transactions]",
        LOAD,
    ),
    Mutant(
        "an unanswered COMMIT is taken for done",
        "D1",
        "agents/delivery/deliverer.py",
        "        again = await self._load.load(attempt.planned, bad)\n",
        "        again = LoadOutcome(positions=attempt.positions)\n",
        LOAD,
    ),
    Mutant(
        "an unanswered COMMIT is taken for failed, without the lock",
        "D1",
        "agents/delivery/load.py",
        "    except OutcomeUnknown as exc:\n"
        '        raise LoadStopped(Failure(FailureClass.UNKNOWN, "commit", str(exc))) from exc\n',
        "    except OutcomeUnknown as exc:\n"
        '        raise LoadStopped(Failure(FailureClass.DEFER, "commit", str(exc))) from exc\n',
        LOAD,
    ),
    Mutant(
        "a failed load is not rolled back",
        "D1",
        "agents/delivery/load.py",
        "            await session.rollback()\n        except OutsideError as exc:\n",
        "            log.debug(str(session))\n        except OutsideError as exc:\n",
        LOAD,
    ),
    Mutant(
        "COPY's count is not compared",
        "D1",
        "agents/delivery/load.py",
        "        if copied != load.rows:\n",
        "        if copied < 0:\n",
        LOAD,
    ),
    Mutant(
        "the ledger is not loaded where a transaction has no rows",
        "I2",
        "app/core/delivery/load_plan.py",
        "        objects = [o for txn in transactions for o in txn.outputs if o.output == flow.name and o.rows > 0]\n",
        "        objects = [o for txn in transactions for o in txn.outputs if o.output == flow.name and o.rows > 0\n"
        "                   and any(p.rows > 0 for p in txn.outputs[:6])]\n",
        LOAD,
    ),
    Mutant(
        "a stuck sink is skipped over",
        "S3",
        "app/core/delivery/load_plan.py",
        "        if txn.number != next_number.get(txn.partition, 1) or full:\n",
        "        if txn.number < next_number.get(txn.partition, 1) or full:\n",
        LOAD,
    ),
    Mutant(
        "delivery does not wait for ready.json",
        "S3",
        "agents/delivery/deliverer.py",
        "                if await self._store.head(record.ready_key) is None:\n",
        "                if await self._store.head(record.ready_key) is None and record.number < 0:\n",
        LOAD,
    ),
    Mutant(
        "a disk that is full sets transactions aside",
        "D2",
        "app/core/delivery/load_plan.py",
        "    if sqlstate[:2] == _INTERNAL and output:\n",
        "    if output:\n",
        LOAD,
    ),
    Mutant(
        "the warehouse's word is believed: a named file is not tried alone",
        "D2",
        "app/core/delivery/bisection.py",
        "        if named is None or len(part) == 1 or self._is_doubtful(failure.output):\n",
        "        if named is not None:\n            self.suspects[named.txn_id] = failure\n            return\n"
        "        if named is None or len(part) == 1 or self._is_doubtful(failure.output):\n",
        SEARCH,
    ),
    Mutant(
        "an interrupted search begins anew",
        "D2",
        "agents/delivery/deliverer.py",
        "        if search is None or not search.txn_ids <= {txn.txn_id for txn in planned}:\n",
        "        if search is None or planned:\n",
        SEARCH,
    ),
    Mutant(
        "release loads lines that the ledger has",
        "D2",
        "agents/delivery/release.py",
        "        return not self.present\n",
        "        return True\n",
        LOAD,
    ),
)
