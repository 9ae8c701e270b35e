"""Rows of the flows out of columns of cells (rule J5)."""

from collections.abc import Sequence

import numpy as np

from app.core.enrich.enrich import Enricher
from app.core.enrich.enrich_cells import enrich_cells
from app.core.etl.flow_rows import OF_SECOND, ROW_SCHEMAS
from app.core.formats.arrow_stream import BufferKind, Frame
from app.core.formats.cell_table import Columns, Source, gather, integer_table, table_of
from app.core.formats.flows import ENGAGEMENTS, PAGE_VIEWS, Flow
from app.kernels.cells import Ints


def flow_frame(flow: Flow, height: int, held: Columns, made: Columns, enricher: Enricher) -> Frame:
    """Rows of a flow: its columns from `made`, from enrichment, or from `held`, in this order.

    A column without a value is left out.
    """
    columns = {**held, **enrich_cells(flow, held, height, enricher), **made}
    ordered = {name: columns[name] for name in ROW_SCHEMAS[flow.name] if name in columns}
    gathered = {column.name: column for column in gather(height, ordered)}
    kept = {name: held[name] for name in ordered if name in held and name not in gathered}
    if kept:  # enrichment that says nothing at all leaves the lines' own column
        gathered |= {column.name: column for column in gather(height, kept)}
    return Frame(height, [gathered[name] for name in ordered if name in gathered])


def engagement_frame(held: Columns, reasons: Sequence[str], of_row: Ints, enricher: Enricher) -> Frame:
    """Rows of `engagements`: second events that met no first, each with its reason, `reasons[of_row]`."""
    reason = Source(table_of({"reason": (BufferKind.TEXT, reasons)}), of_row, "reason", BufferKind.TEXT)
    return flow_frame(ENGAGEMENTS, len(of_row), held, {"reason": reason}, enricher)


def page_view_frame(held: Columns, height: int, taken: Columns, joined: Ints, enricher: Enricher) -> Frame:
    """Rows of `page_views`: closed first events, each with its second event.

    Args:
        held: the columns of the first events.
        height: how many they are.
        taken: the columns of the second events, row by row; none if no first event has one.
        joined: int64[height]: for each first event whether it has a second event, 1 or 0.
        enricher: look-ups.
    """
    made = {name: taken[source] for name, source in OF_SECOND.items() if source in taken}
    made["joined"] = Source(integer_table("joined", joined), np.arange(height), "joined", BufferKind.BOOLEAN)
    return flow_frame(PAGE_VIEWS, height, held, made, enricher)
