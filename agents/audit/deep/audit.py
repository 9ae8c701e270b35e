"""The deep audit: what is stored twice is compared, and each difference is named by batch, line and flow (rule A3)."""

from typing import Final

from agents.audit.deep.batch_check import BatchCheck
from agents.audit.deep.chain_check import ChainCheck
from agents.audit.deep.look import Look
from agents.audit.deep.ports import DeepPorts
from agents.audit.deep.report import DeepReport, Show, Span
from agents.audit.deep.step_check import find_damaged_steps
from agents.audit.deep.stray_rows import find_stray_rows
from app.core.audit.deep.lines import of_all
from app.core.formats.flows import OUTPUTS
from app.core.sink.chain import ChainId
from app.settings import Settings

EVERYTHING: Final = Span()


def show_nothing(done: int, total: int, note: str) -> None:
    """Show no progress."""


async def audit_deep(
    ports: DeepPorts, settings: Settings, span: Span = EVERYTHING, show: Show = show_nothing
) -> DeepReport:  # fmt: skip
    """Compare raw files, registry, ledger, chains, files, manifests, the warehouse's rows and topic `rows`.

    Order: 1 the list of raw files, 2 the progress of delivery, 3 the batches, 4 the chains with the warehouse's rows, 5 rows
    of unknown transactions, 6 topic `rows`, 7 once more the batches with lines that no ledger had. Whatever is written
    between two of these reads is newer than what it is compared with, so it counts as late and never as damage.

    Guarantees: reads only. Memory grows with the number of batches and transactions in the span, by some hundred bytes each.

    Raises:
        ServiceUnavailable: S3, the registry or the warehouse does not answer.
    """
    report = DeepReport()
    look = Look(ports, settings, span, report)
    batches = BatchCheck(look)
    raw_ids = await batches.raw_files()  # 1
    delivery = await ports.ledger.delivery(settings.epoch)  # 2
    chains = []
    for partition in range(settings.partitions):
        check = ChainCheck(look, ChainId(settings.epoch, partition), delivery.number(partition))
        chains.append((check, await check.numbers()))
    total = len(raw_ids) + sum(len(numbers) for _, numbers in chains) + len(OUTPUTS) + settings.partitions
    done = 0
    async for more in batches.run(raw_ids):  # 3
        done += more
        show(done, total, "batches")
    for check, numbers in chains:  # 4
        async for more in check.run(numbers, lambda: batches.uncovered):
            await _take_ledgers(check, batches)
            done += more
            show(done, total, "transactions")
    known = {txn_id for check, _ in chains for txn_id in check.txn_ids}
    async for more in find_stray_rows(ports, known, span, report):  # 5
        done += more
        show(done, total, "rows of unknown transactions")
    async for more in find_damaged_steps(ports, settings, report):  # 6
        done += more
        show(done, total, "topic rows")
    await batches.finish()  # 7
    return report


async def _take_ledgers(check: ChainCheck, batches: BatchCheck) -> None:
    """Tell the batches what the ledger files of the last transactions have."""
    for lines in check.ledgers:
        of_batch = of_all(lines)
        for batch_id in of_batch.keys() & batches.uncovered.keys():
            batches.committed[batch_id] = batches.committed.get(batch_id, of_batch[batch_id]) | of_batch[batch_id]
        await batches.judge_unknown([batch_id for batch_id in of_batch if batches.is_unknown(batch_id)])
    check.ledgers.clear()
