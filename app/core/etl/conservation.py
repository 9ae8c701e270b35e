"""The proof that a step accounts for every line that it took; without it the step is not sent (rule E9).

Every line of the step's blocks is in the step's ledger, or in the window that the step leaves, and not in both. The other
lines of the ledger are exactly the events that the step closes out of frames of earlier steps. Each flow has as many rows as
the ledger says.

A step that breaks this comes from a defect in this program: a branch was forgotten, or a frame was not stored. If the step
were sent, its lines would be lost without a trace: the state remembers their block and drops the copy that the audit sends.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pyroaring import BitMap

from app.core.etl.ledger import StepLedger
from app.core.formats.flows import JOINED
from app.core.formats.source import AcceptedBlock
from app.errors import ConservationBroken


def verify_lines(
    blocks: Sequence[AcceptedBlock], ledger: StepLedger, left_open: Iterable[tuple[str, Sequence[int]]], closed_before: int
) -> None:
    """See that each line of `blocks` is accounted for once.

    Args:
        blocks: the blocks that the step takes.
        ledger: the ledger of the step.
        left_open: (batch_id, line numbers) of the step's own events that stay in the window.
        closed_before: number of events that the step closes or joins out of frames of earlier steps.

    Raises:
        ConservationBroken: a line is missing, or is there twice.
    """
    accounted: dict[str, BitMap] = {}
    count = 0
    for (batch_id, _), lines in ledger.lines():
        count += len(lines)
        accounted[batch_id] = accounted[batch_id] | lines if batch_id in accounted else lines
    for batch_id, numbers in left_open:
        count += len(numbers)
        accounted[batch_id] = accounted.get(batch_id, BitMap()) | BitMap(numbers)
    for block in blocks:
        header = block.header
        taken = BitMap(range(header.first_line, header.first_line + header.lines))
        if missing := taken - accounted.get(header.batch_id, BitMap()):
            raise ConservationBroken(
                f"batch {header.batch_id} block {header.block}: {len(missing)} lines are in neither ledger nor window, "
                f"first {missing.min()}"
            )
    if twice := count - sum(map(len, accounted.values())):
        raise ConservationBroken(f"{twice} lines of batches {sorted(accounted)[:3]} ... have two outcomes")
    taken_count = sum(block.header.lines for block in blocks)
    if count != taken_count + closed_before:
        raise ConservationBroken(
            f"{count} lines have an outcome, but {taken_count} were taken and {closed_before} closed out of the window"
        )


def verify_rows(ledger: StepLedger, rows: Mapping[str, int], joined: int, dropped: Mapping[str, int]) -> None:
    """See that the step emits as many rows as its ledger says.

    Args:
        ledger: the ledger of the step.
        rows: flow -> number of its rows.
        joined: second events that are part of a first event's row.
        dropped: outcome -> lines that become nothing: duplicates and erased lines.

    Raises:
        ConservationBroken: a flow has more or fewer rows.
    """
    said: Counter[str] = Counter()
    for (_, outcome), lines in ledger.lines():
        said[outcome] += len(lines)
    made = Counter({**rows, JOINED: joined, **dropped})
    if wrong := {name: (said[name], made[name]) for name in said.keys() | made.keys() if said[name] != made[name]}:
        raise ConservationBroken(f"outcome: (lines in the ledger, rows made) differ: {wrong}")
