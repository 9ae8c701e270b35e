"""Bugs in the pruning of delivery_log (rule D6) and in erasures (rule R7)."""

from tests.mutants.mutant import Mutant

PRUNING = ("tests/agents/delivery/test_log_pruning.py",)
ERASE = ("tests/agents/audit/erase/test_erase.py", "tests/unit/erase/test_visitors.py")

MUTANTS = (
    Mutant(
        "a repair takes a transaction whose row is pruned for one that was never loaded",
        "D6",
        "agents/audit/repair/loaded.py",
        "            is_loaded = await self._is_passed(record, session)\n",
        "            is_loaded = False\n",
        PRUNING,
    ),
    Mutant(
        "a pruned row counts as lost",
        "D6",
        "app/core/retention.py",
        "        return self.log_days > 0 and now_ms - stored_ms >= self.log_days * DAY_MS\n",
        "        return False\n",
        PRUNING,
    ),
    Mutant(
        "a failure of the pruning stops the loads",
        "D6",
        "agents/delivery/log_pruning.py",
        "        except LoadStopped as stopped:\n",
        "        except ZeroDivisionError as stopped:\n",
        PRUNING,
    ),
    Mutant(
        "lines of the visitor's page views that name no visitor stay",
        "R7",
        "agents/audit/erase/search.py",
        "        if self._page_views:\n",
        "        if not self._page_views:\n",
        ERASE,
    ),
    Mutant(
        "an open batch is erased",
        "R7",
        "agents/audit/erase/search.py",
        "        elif item.state is not BatchState.COMPLETE:\n",
        "        elif item.state is None:\n",
        ERASE,
    ),
    Mutant(
        "the ledger goes on to say that the line is a row",
        "R7",
        "agents/audit/erase/transactions.py",
        "            if out.output in TOUCHED and out.rows and (file :=",
        "            if out.output in FLOW_NAMES and out.rows and (file :=",
        ERASE,
    ),
    Mutant(
        "the raw file keeps the lines",
        "R7",
        "agents/audit/erase/raw_files.py",
        "        await self._ports.store.put(key, made)  # 2\n",
        "        await self._ports.store.put(key, raw)  # 2\n",
        ERASE,
    ),
    Mutant(
        "an erasure that died between registry and raw file is not finished",
        "R7",
        "agents/audit/erase/raw_files.py",
        "            if not is_registered:  # an erasure died behind 1\n",
        "            if is_registered:  # an erasure died behind 1\n",
        ERASE,
    ),
    Mutant(
        "an erasure that died is never finished",
        "R7",
        "agents/audit/erase/erase.py",
        "if each.finished_at_ms is None]",
        "if each.finished_at_ms == 0]",
        ERASE,
    ),
    Mutant(
        "a repair writes the log's rows back into a file",
        "R7",
        "agents/audit/repair/files.py",
        "            lines = await erased_lines(self._deep.store, record.erasures)\n",
        "            lines = {}\n",
        ERASE,
    ),
    Mutant(
        "a repair puts the erased lines back into the raw file, or cannot make it",
        "R7",
        "agents/audit/repair/batches.py",
        "        if not lines:\n            return raw\n",
        "        if lines or not lines:\n            return raw\n",
        ERASE,
    ),
    Mutant(
        "a tombstone becomes a rejected row",
        "R7",
        "app/core/etl/classify.py",
        "            if reason == tombstone.REASON:\n",
        "            if reason == '':\n",
        ERASE,
    ),
    Mutant(
        "certificates go on to say what was",
        "R7",
        "agents/audit/erase/erase.py",
        "                await certify_again(self._ports, erasure.certificates, self._key)  # 5\n",
        "                await certify_again(self._ports, [], self._key)  # 5\n",
        ERASE,
    ),
)
