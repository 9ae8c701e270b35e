"""The tables inside a step: events that wait (state `pending` and `seconds`) and the rows of each flow.

A frame has those columns of its schema that hold a value. Frames of the window hold no IP address, because it is read on
arrival and must not leave the etl.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import add
from typing import Final

import polars as pl

from app.core.enrich.enrich import AGENT_COLUMNS, ORIGIN_COLUMNS, Enricher
from app.core.enrich.row_columns import enrich_rows
from app.core.etl.lines import Part
from app.core.events.canonical_json import utf8_length
from app.core.events.fields import ADDED, TYPED_FIELDS, TYPES, JoinPart
from app.core.formats.columns import DTYPES, gather, stack
from app.core.formats.flows import BY_NAME, ENGAGEMENTS, PAGE_VIEWS, Flow

ROW_BYTES: Final = 800
"""Rough size of a row without its long texts."""
LONG_BYTES: Final = 1024
"""A text whose column is longer than this counts with its own length."""
ROW_SCHEMAS: Final[dict[str, dict[str, pl.DataType]]] = {
    name: {column.name: DTYPES[column.kind] for column in flow.columns if column.name != "txn_id"}
    for name, flow in BY_NAME.items()
}
"""Flow -> the columns of its rows in a step message, in order."""

_OF_BATCH: Final = ("batch_id", "line")
_INDEX: Final = ("digest", "size")
"""The digest of the page view, and an estimate of the event's bytes in a message."""


def _waiting_schema(part: JoinPart) -> dict[str, pl.DataType]:
    """The columns of their flow that events of a part of the join bring themselves."""
    event = next(event for event in TYPES if event.part is part)
    own = {field.name for field in TYPED_FIELDS[event.name]}
    brought = {*own, "properties", *ADDED, "user_agent", *AGENT_COLUMNS, *ORIGIN_COLUMNS, *_OF_BATCH}
    return {name: dtype for name, dtype in ROW_SCHEMAS[event.flow.name].items() if name in brought}


PENDING_SCHEMA: Final = _waiting_schema(JoinPart.FIRST)
SECONDS_SCHEMA: Final = _waiting_schema(JoinPart.SECOND)
PENDING_COLUMNS: Final = frozenset({*PENDING_SCHEMA, *_INDEX})
SECONDS_COLUMNS: Final = frozenset({*SECONDS_SCHEMA, *_INDEX})
LONG: Final = tuple(column.name for column in PAGE_VIEWS.columns if column.max_bytes > LONG_BYTES)
OF_SECOND: Final = {column.name: column.of_second for column in PAGE_VIEWS.columns if column.of_second}
"""Column of a first event's row -> the field of its second event that it takes."""


def window_columns(events: pl.DataFrame, digests: list[bytes]) -> pl.DataFrame:
    """New first or second events as the window keeps them, from columns of PENDING_SCHEMA or SECONDS_SCHEMA."""
    sizes = [ROW_BYTES] * events.height
    held = frozenset(events.columns)
    for name in LONG:
        if name in held:
            sizes = list(map(add, sizes, _lengths(events[name])))
    return events.hstack([pl.Series("digest", digests, dtype=pl.Binary), pl.Series("size", sizes, dtype=pl.Int64)])


def _lengths(texts: pl.Series) -> Iterable[int]:
    """The length of each text in UTF-8 bytes; 0 for NULL."""
    present = [text or "" for text in texts.to_list()]
    return map(len if "".join(present).isascii() else utf8_length, present)


def take_rows(
    frames: Mapping[int, pl.DataFrame], places: Sequence[tuple[int, int] | None], names: Collection[str]
) -> pl.DataFrame:
    """The row at each place (frame number, row), in the order of `places`; a row of NULLs for None.

    The columns are those of `names` that any of the frames has.
    """
    starts: dict[int, int] = {}
    height = 0
    for number in sorted(frames):
        starts[number] = height
        height += frames[number].height
    rows = stack([_of(frames[number], names) for number in starts])
    picks = [None if place is None else starts[place[0]] + place[1] for place in places]
    if (first := picks[0]) is not None and picks == list(range(first, first + len(picks))):  # as most first events lie
        return rows[first : first + len(picks)]
    return gather(rows.rechunk(), picks)


def _of(frame: pl.DataFrame, names: Collection[str]) -> pl.DataFrame:
    """Those columns of a frame that are among `names`."""
    return frame[[name for name in frame.columns if name in names]]


def page_view_rows(first_events: pl.DataFrame, second_events: pl.DataFrame | None, enricher: Enricher) -> pl.DataFrame:
    """Rows of `page_views`: closed first events, each with its second event or NULLs; None: no first event has one."""
    made = enrich_rows(PAGE_VIEWS, first_events, enricher)
    if second_events is not None:
        held = frozenset(second_events.columns)
        made += [second_events[source].alias(name) for name, source in OF_SECOND.items() if source in held]
        made.append(second_events["event_id"].is_not_null().alias("joined"))
    else:
        made.append(pl.Series("joined", [False]).new_from_index(0, first_events.height))
    return flow_rows(PAGE_VIEWS, first_events, made)


def event_rows(flow: Flow, part: Part, enricher: Enricher) -> pl.DataFrame:
    """Rows of a flow whose events wait for no other."""
    rows = part.frame(ROW_SCHEMAS[flow.name])
    return flow_rows(flow, rows, enrich_rows(flow, rows, enricher))


def engagement_rows(second_events: pl.DataFrame, reasons: Sequence[str]) -> pl.DataFrame:
    """Rows of `engagements`: second events that met no first, each with its reason."""
    return flow_rows(ENGAGEMENTS, second_events, [pl.Series("reason", reasons, dtype=pl.String)])


def flow_rows(flow: Flow, held: pl.DataFrame, made: Iterable[pl.Series]) -> pl.DataFrame:
    """The columns of a flow's rows, in order: from `made`, else from `held`; a column that neither has is left out."""
    columns = {column.name: column for column in (*held, *made)}
    return pl.DataFrame([columns[name] for name in ROW_SCHEMAS[flow.name] if name in columns])
