"""Transactions that delivery has set aside: release them as an operator does, and judge that each had a reason (rule D2)."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import psycopg

from agents.delivery.release import release
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import connect, open_session, run
from app.clock import SystemClock
from app.core.delivery import statements
from app.errors import InstreamError, ServiceUnavailable
from app.settings import Settings
from tests.rig.invariants.violation import Violation

RELEASE_EVERY_S: Final = 3.0


async def release_all(settings: Settings, aside: set[str], say: Callable[[str], None]) -> None:
    """Release every quarantined transaction, again and again."""
    objects, open_one = S3ObjectStore(settings), partial(open_session, settings.warehouse_url, settings.copy_iam_role)
    try:
        while True:
            try:
                for txn_id in await quarantined(settings):
                    aside.add(txn_id)
                    answer = await release(objects, open_one, settings, SystemClock(), txn_id)
                    say(f"quarantined {txn_id} is released: {answer.result.value}")
            except InstreamError as exc:
                say(f"nothing can be released now: {exc}")
            await asyncio.sleep(RELEASE_EVERY_S)
    finally:
        await objects.close()


def judge_quarantine(aside: Collection[str], unreadable: Sequence[str]) -> list[Violation]:
    """D2: a file that cannot be read is set aside alone.

    Args:
        aside: the transactions that were quarantined.
        unreadable: URLs of the files that could not be read.
    """
    blamed = {url.rpartition("/")[2].partition(".")[0] for url in unreadable}
    return [Violation("D2", f"{txn_id} is quarantined and its files can be read") for txn_id in sorted(set(aside) - blamed)]


async def quarantined(settings: Settings) -> list[str]:
    """The transactions that are set aside now.

    Raises:
        ServiceUnavailable: the warehouse does not answer.
    """
    try:
        async with await connect(settings.warehouse_url) as connection:
            return [str(row[0]) for row in await run(connection, statements.QUARANTINE)]
    except psycopg.Error as exc:  # a fault may have been waiting for this connection
        raise ServiceUnavailable(f"warehouse: {exc}") from exc
