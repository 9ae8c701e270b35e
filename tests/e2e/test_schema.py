"""A running stack whose warehouse lacks a column: delivery says so, `instream init` mends it, and every row arrives."""

import asyncio
import json

import aiohttp
import pytest

from app.local.stack.probe import await_true
from tests.e2e.live_stack import LiveStack
from tests.worlds.warehouse_schema import execute

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

LACKS = "the warehouse lacks column analytics.delivery_log.detail: run `instream init`"


async def ready_of_delivery(live: LiveStack) -> str:
    """The text of delivery's page /ready."""
    url = live.stack.metrics["delivery"].replace("/metrics", "/ready")
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def test_delivery_goes_on_once_init_has_given_the_warehouse_what_it_lacks(stack: LiveStack) -> None:
    await execute(stack.stack.warehouse_url, "ALTER TABLE analytics.delivery_log DROP COLUMN detail")
    run = await stack.load(300, 150, seed=11)

    async def says_so() -> bool:
        return LACKS in await ready_of_delivery(stack)

    async with asyncio.timeout(60):
        await await_true(says_so)

    planned = await asyncio.to_thread(stack.instream, "init", "--plan", "--json")
    assert planned.returncode == 0, planned.stderr
    (step,) = json.loads(planned.stdout)["steps"]
    assert step["statement"] == 'ALTER TABLE "analytics"."delivery_log" ADD COLUMN "detail" VARCHAR(4096)'
    assert await says_so()

    done = await asyncio.to_thread(stack.instream, "init")
    assert done.returncode == 0, done.stderr
    assert f"-- {step['reason']}\n{step['statement']};\n" in done.stdout
    await stack.await_ready("delivery")
    await stack.compare_exact(run)
    again = await asyncio.to_thread(stack.instream, "init")
    assert again.stdout.startswith("the warehouse's schema is the catalogue's: nothing is to be done\n")
