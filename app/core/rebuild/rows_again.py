"""The rows of a committed transaction, made again from raw files as its ledger says (rule R6).

The ledger says which lines became rows, and which lines joined into them. A first event and the second event that it takes
close in one step, so they are lines of one transaction. So the lines go through the core by themselves, without their
neighbours: every other line is blanked, and nothing is a duplicate.

Two things the ledger does not say. The reason of an engagement follows from the first event of its page view. And the facts
that enrichment adds are today's facts; where the warehouse still has the row, and agrees in everything that the event itself
says, the warehouse's row is taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import polars as pl
from pyroaring import BitMap

from app.core.enrich.enrich import AGENT_COLUMNS, ORIGIN_COLUMNS
from app.core.enrich.row_columns import ENRICHMENTS
from app.core.formats.columns import pack_frame
from app.core.formats.flow_files import concat_rows
from app.core.formats.flows import ENGAGEMENTS, FLOWS, JOINED
from app.core.join.window_close import EXTRA, LATE, NO_FIRST
from app.core.rebuild.lost_lines import DecidedLines, Knowledge, Lines, LinesRun, PartitionRules
from app.core.rules import JoinRules
from app.errors import RepairRefused

Outcomes = Mapping[str, Lines]
"""Outcome -> batch -> lines."""
PLACE: Final = ["batch_id", "line"]
ADDED: Final = frozenset({
    *AGENT_COLUMNS, *ORIGIN_COLUMNS, "reason", "txn_id", *(name for each in ENRICHMENTS for name in each.makes),
})  # fmt: skip
"""Columns that may differ although the event is the same: enrichment's, the reason of a bot or an engagement."""
_FLOW_NAMES: Final = frozenset(flow.name for flow in FLOWS)
_NOTHING: Final = Knowledge(frozenset(), {})


def rows_again(core: PartitionRules, envelopes: Sequence[bytes], ledger: Outcomes, txn_id: str) -> dict[str, pl.DataFrame]:
    """Flow -> the rows of a transaction, as its file has them, in the order of batch and line.

    Args:
        core: what decides, in the transaction's partition.
        envelopes: the blocks that have lines of the transaction.
        ledger: the transaction's ledger; duplicates are passed over.
        txn_id: the transaction.

    Raises:
        RepairRefused: this version decides a line otherwise than the ledger says.
    """
    run = LinesRun(core, _NOTHING)
    decided = DecidedLines({}, [])
    alone = {ENGAGEMENTS.name}  # their first events are rows of other transactions, or of none
    for names in (alone, {*_FLOW_NAMES, JOINED} - alone):
        run.take(envelopes, _union(ledger.get(name, {}) for name in names), decided, is_over=False)
    _refuse_other_outcomes(decided, ledger)
    return {
        flow: concat_rows(flow, [pack_frame(frame) for frame in frames], txn_id).sort(PLACE)
        for flow, frames in decided.rows.items()
    }


def with_reasons(engagements: pl.DataFrame, join: JoinRules, first_events: Mapping[str, int]) -> pl.DataFrame:
    """Engagements with their reasons (rules J2, J3).

    Args:
        engagements: the rows of flow `engagements`.
        join: the bounds of the join.
        first_events: page view -> received_at of the first event that is its row.
    """
    reasons = [
        _reason(join, received_ms, first_events.get(view))
        for view, received_ms in engagements.select("page_view_id", "received_at").iter_rows()
    ]
    return engagements.with_columns(pl.Series("reason", reasons, dtype=pl.String))


def _reason(join: JoinRules, second_ms: int, first_ms: int | None) -> str:
    if first_ms is None or first_ms > second_ms + join.lower_ms:
        return NO_FIRST
    return EXTRA if second_ms <= first_ms + join.upper_ms else LATE


def as_loaded(made: pl.DataFrame, loaded: pl.DataFrame) -> pl.DataFrame:
    """The rows, each with the warehouse's values if the warehouse agrees in everything that the event says.

    Args:
        made: rows of one flow, normalised.
        loaded: the warehouse's rows of the same transaction, normalised.

    Returns: as many rows as `made`, in its order.
    """
    once = loaded.unique(PLACE, keep="none")
    own = [name for name in made.columns if name not in ADDED]
    agreed = made.select(own).join(once, on=own, how="inner", nulls_equal=True).select(made.columns)
    return pl.concat([agreed, made.join(agreed, on=PLACE, how="anti")]).sort(PLACE)


def lines_of_rows(rows: pl.DataFrame) -> dict[str, BitMap]:
    """Batch -> lines of some rows."""
    found: dict[str, BitMap] = {}
    for batch_id, line in rows.select(PLACE).iter_rows():
        found.setdefault(batch_id, BitMap()).add(line)
    return found


def _union(some: Iterable[Lines]) -> dict[str, BitMap]:
    found: dict[str, BitMap] = {}
    for lines in some:
        for batch_id, these in lines.items():
            found[batch_id] = found.get(batch_id, BitMap()) | these
    return found


def _refuse_other_outcomes(decided: DecidedLines, ledger: Outcomes) -> None:
    made: dict[str, dict[str, BitMap]] = {}
    for entry in decided.ledger:
        of_outcome = made.setdefault(entry.outcome, {})
        of_outcome[entry.batch_id] = of_outcome.get(entry.batch_id, BitMap()) | BitMap.deserialize(entry.line_set)
    for outcome in (*sorted(_FLOW_NAMES), JOINED):
        wanted, found = ledger.get(outcome, {}), made.get(outcome, {})
        for batch_id in sorted(wanted.keys() | found.keys()):
            differ = wanted.get(batch_id, BitMap()) ^ found.get(batch_id, BitMap())
            if differ:
                raise RepairRefused(
                    f"this version decides {len(differ)} lines of batch {batch_id} otherwise: outcome {outcome}, "
                    f"line {differ.min()} first"
                )
