"""Raw files through the core again: the same rows in another schema, and a changed rule is seen before it goes live."""

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.adapters.warehouse import connect
from app.core.formats.flows import FLOWS, LEDGER, Flow
from app.core.rebuild.span import lowest_id
from tests.e2e.live_stack import LiveStack
from tests.worlds.command_line import Ran, run_here

pytestmark = pytest.mark.stack


async def here(stack: LiveStack, *words: str, **settings: str) -> Ran:
    """Run a command in this process, on the stack."""
    return await asyncio.to_thread(run_here, *words, INSTREAM_HOME=str(stack.home.path), **settings)


def ms_of(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


async def rows_of(url: str, schema: str, flow: Flow, first: str, end: str) -> list[tuple[Any, ...]]:
    """Rows of a table without what says how they came, of batches made since `first`; the ledger's by batch and outcome."""
    names = [f'"{name}"' for name in flow.names if name != "txn_id"]
    columns = "batch_id, outcome, sum(lines)" if flow is LEDGER else ", ".join(names)
    grouped = "GROUP BY batch_id, outcome" if flow is LEDGER else ""
    query = f"SELECT {columns} FROM {schema}.{flow.name} WHERE batch_id >= %s AND batch_id < %s {grouped} ORDER BY {columns}"
    async with await connect(url) as connection:
        return await (await connection.execute(query.encode(), (first, end))).fetchall()


async def test_a_rebuild_makes_the_rows_of_the_warehouse_and_shows_what_a_new_rule_would_change(
    stack: LiveStack, tmp_path: Path
) -> None:
    settled = await stack.settled_load()
    since = settled.since
    span = ["--since", since, "--until", settled.until]

    # the same rules: every row and every line's outcome is the warehouse's, and another schema has them too; twice is once
    for _ in range(2):
        done = await here(stack, "rebuild", *span, "--schema", "again", "--diff", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    found = report["difference"]
    assert (found["flows"], found["moved"], found["uncovered"], found["not_compared"]) == ({}, [], 0, [])
    assert report["batches"] == found["compared"] > 1
    assert report["lines"] == sum(report["outcomes"].values()) == settled.lines
    first, end = (lowest_id(ms_of(moment)) for moment in (since, settled.until))
    for flow in (*FLOWS, LEDGER):
        ours, theirs = [
            await rows_of(stack.stack.warehouse_url, schema, flow, first, end) for schema in ("again", "analytics")
        ]
        assert ours == theirs
        assert bool(ours) == bool(report["rows"].get(flow.name, flow is LEDGER))

    # another list of bots: the lines that would be rejected are named, and nothing is written
    rules = tmp_path / "bots"
    rules.write_text("bot newly Chrome/\n")
    done = await here(stack, "plan-rules", *span, "--json", INSTREAM_BOT_AGENTS=str(rules))
    assert done.returncode == 3, done.stdout + done.stderr
    found = json.loads(done.stdout)["difference"]
    moved = {(each["before"], each["after"]): each["lines"] for each in found["moved"]}
    assert 0 < moved["page_views", "rejected"] == found["flows"]["page_views"]["extra"] < report["rows"]["page_views"]
    assert found["flows"]["rejected"]["missing"] == sum(lines for (_, after), lines in moved.items() if after == "rejected")
    assert {each["kind"] for each in found["first"]} == {"extra"}
    assert len(found["first"]) == 20

    done = await here(stack, "rebuild", *span, "--schema", "analytics")
    assert (done.returncode, done.stdout) == (1, "")
    assert "never writes into schema analytics" in done.stderr
