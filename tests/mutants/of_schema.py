"""Bugs in the warehouse's schema (rule D5)."""

from tests.mutants.mutant import Mutant

PLAN = ("tests/unit/delivery/test_schema_plan.py", "tests/unit/delivery/test_schema.py")
DELIVERY = ("tests/agents/delivery/test_delivery_schema.py", "tests/agents/delivery/test_delivery_agent.py")
INIT = ("tests/contract/test_warehouse_schema.py",)

MUTANTS = (
    Mutant(
        "delivery loads without a look at the columns",
        "D5",
        "agents/delivery/load.py",
        "        if not self._compared and (what",
        "        if self._compared and (what",
        DELIVERY,
    ),
    Mutant(
        "a column that goes while delivery runs is never named",
        "D5",
        "agents/delivery/load.py",
        "            raise LoadStopped(await self._lack() or stopped.failure) from stopped\n",
        "            raise\n",
        DELIVERY,
    ),
    Mutant(
        "a load needs the log of changes",
        "D5",
        "app/core/formats/tables.py",
        "LOADED: Final = (*(table_of(flow) for flow in OUTPUTS), DELIVERY_LOG)\n",
        "LOADED: Final = (*(table_of(flow) for flow in OUTPUTS), DELIVERY_LOG, SCHEMA_LOG)\n",
        (*DELIVERY, *PLAN),
    ),
    Mutant(
        "a narrower VARCHAR is given to values that do not fit",
        "D5",
        "app/core/delivery/schema_plan.py",
        "    if is_there.max_bytes is None or is_there.max_bytes > column.max_bytes:\n",
        "    if is_there.max_bytes is None:\n",
        PLAN,
    ),
    Mutant(
        "another type is taken for the catalogue's",
        "D5",
        "app/core/delivery/schema_plan.py",
        "    if is_there.type != wanted.type:\n",
        "    if is_there.name != wanted.name:\n",
        PLAN,
    ),
    Mutant(
        "a change is made while another one is refused",
        "D5",
        "app/adapters/warehouse_schema.py",
        "    if plan.refused:\n",
        "    if plan.refused and not plan.steps:\n",
        INIT,
    ),
    Mutant(
        "the schema is changed without its lock",
        "D5",
        "app/adapters/warehouse_schema.py",
        '        await ask(connection, Statement(f"LOCK TABLE {statements.table(SCHEMA_LOG.name)}"))  # 1\n',
        "",
        INIT,
    ),
    Mutant(
        "the plan is older than the lock",
        "D5",
        "app/adapters/warehouse_schema.py",
        "        await _end(connection.rollback())  # the first read is older than the lock\n",
        "",
        INIT,
    ),
    Mutant(
        "a change is logged in a transaction of its own",
        "D5",
        "app/adapters/warehouse_schema.py",
        "            await _change(connection, step)  # 3\n",
        "            await _change(connection, step)\n            await _end(connection.commit())\n",
        INIT,
    ),
)
