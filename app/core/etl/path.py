"""A path of a step's lines from its blocks to its message. There are two, and both make the same steps.

app.core.etl.plain            a Python object for each value; short, and the measure of what is right
app.core.etl.on_cells.path    cells, arrays and kernels: a fraction of the time
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from app.core.etl.source import Intake
from app.core.formats.step_message import Changes, LedgerEntry
from app.core.join.join_order import Due


class StepParts(NamedTuple):
    """The parts of a step's message that its lines and its window decide."""

    rows: dict[str, bytes]
    """Flow -> Arrow IPC stream of its rows; a flow without rows is absent."""
    row_counts: dict[str, int]
    ledger: list[LedgerEntry]
    changes: list[Changes]
    closed: Due
    """Everything up to here is closed."""
    more: bool
    """Whether an event that is due is left over, because the step's budget is spent."""


class StepPath(Protocol):
    """One partition's open window, and all that becomes of a step's lines. Only `learn` changes it."""

    def is_left_over(self, stream_time_ms: int) -> bool:
        """Whether something is open that is due before `stream_time_ms`."""

    def holds_open(self, first: int, last: int) -> bool:
        """Whether events of a step whose first block is one of the source messages `first` to `last` wait in the window."""

    def decide(self, intake: Intake, *, careful: bool) -> Callable[[int], StepParts]:
        """Take the lines of a step's blocks; line by line if `careful` (rule E6).

        Returns: a function that closes what is due, with at most so many bytes of closings. It may be asked again.

        Raises:
            ConservationBroken: the function does, if the step does not account for every line (rule E9).
        """

    def learn(self, closed: Due, changes: Sequence[Changes]) -> None:
        """Follow a step that counts, whichever owner decided it. Its changes are in the tables already."""
