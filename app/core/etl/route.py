"""The first half of a step: its blocks' lines become rows, or go into the window (rule J1)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, assert_never

import polars as pl

from app.core.enrich.enrich import Enricher
from app.core.etl.classify import EMITTED_TYPES, LineKind, kind_of
from app.core.etl.decode import Decoded, read_blocks, read_carefully
from app.core.etl.flow_rows import (
    PENDING_SCHEMA,
    SECONDS_SCHEMA,
    engagement_rows,
    event_rows,
    page_view_rows,
    window_columns,
)
from app.core.etl.lines import Part, sort_lines
from app.core.etl.rejected_rows import bot_rows, malformed_rows
from app.core.formats.columns import gather, pack_frame, without
from app.core.formats.flows import DUPLICATE, ERASED, REJECTED
from app.core.formats.source import AcceptedBlock
from app.core.formats.step_message import Changes
from app.core.join.join import AdmittedEvents, Events, JoiningFirsts, admit_events
from app.core.join.join_order import join_keys_of
from app.core.join.window_close import LATE
from app.core.rules import EtlRules
from app.core.state.encoding import digests_of, pack_time
from app.core.state.tables import KEY_BYTES, MemoryState, StateReader


class RoutedLines(NamedTuple):
    """The lines of a step's blocks, each on its way."""

    rows: list[tuple[str, pl.DataFrame]]
    """(flow, rows) emitted at once."""
    outcomes: list[tuple[str, Part]]
    """(outcome, lines) that have their ledger entry now."""
    late: pl.DataFrame | None
    """Rows of `engagements`: second events that are late on arrival."""
    first_events: pl.DataFrame | None
    """New first events, columns PENDING_COLUMNS."""
    second_events: pl.DataFrame | None
    """New second events without a decision, columns SECONDS_COLUMNS."""
    views: dict[bytes, bytes]
    """Page view -> the new value of state `views`, for each whose joining first event is new."""
    changes: list[Changes]
    """The changes of states `seen`, `blocks` and `views`."""


class Known(NamedTuple):
    """The knowledge of a partition before the step."""

    state: StateReader
    """Its tables."""
    joining_keys: Mapping[bytes, bytes]
    """Digest of a page view -> join key of its joining first event, for each that is open."""


NOTHING: Final = RoutedLines([], [], None, None, None, {}, [])


def route_lines(
    blocks: list[AcceptedBlock], known: Known, rules: EtlRules, enricher: Enricher, *, careful: bool = False
) -> RoutedLines:
    """Take the lines of `blocks`, which the state does not know, in log order.

    Args:
        blocks: the blocks, each with stream time at its place.
        known: the knowledge of the partition before the step.
        rules: bounds and limits.
        enricher: look-ups.
        careful: take line by line; a line that raises is rejected with its reason (rule E6).
    """
    if not blocks:
        return NOTHING
    read = [read_carefully(blocks, _rehearsal(rules, enricher))] if careful else read_blocks(blocks)
    routed = _route(read, known, rules, enricher)
    taken = [(block.header.key, pack_time(block.stored_ms)) for block in blocks]
    return routed._replace(changes=[*routed.changes, Changes.pack("blocks", KEY_BYTES["blocks"], taken)])


def _route(read: Iterable[Decoded], known: Known, rules: EtlRules, enricher: Enricher) -> RoutedLines:
    lines = sort_lines(read, known.state, rules.dedup_window_ms, enricher)
    parts = {code: Part(lines, code) for code in lines.positions}
    rows: list[tuple[str, pl.DataFrame]] = []
    outcomes: list[tuple[str, Part]] = []
    for code, part in parts.items():
        kind = kind_of(code)
        match kind:
            case LineKind.EMITTED:
                flow = EMITTED_TYPES[code - LineKind.EMITTED].flow
                rows.append((flow.name, event_rows(flow, part, enricher)))
                outcomes.append((flow.name, part))
            case LineKind.MALFORMED:
                rows.append((REJECTED.name, malformed_rows(part)))
                outcomes.append((REJECTED.name, part))
            case LineKind.BOT:
                rows.append((REJECTED.name, bot_rows(part)))
                outcomes.append((REJECTED.name, part))
            case LineKind.DUPLICATE:
                outcomes.append((DUPLICATE, part))
            case LineKind.ERASED:
                outcomes.append((ERASED, part))
            case LineKind.FIRST | LineKind.SECOND:
                pass  # the join takes them
            case _:
                assert_never(kind)

    first_events = _window_events(parts.get(LineKind.FIRST), PENDING_SCHEMA)
    second_events = _window_events(parts.get(LineKind.SECOND), SECONDS_SCHEMA)
    admitted = _join(lines.blocks, first_events, second_events, known, rules)
    new_first_events, new_second_events, late = first_events.frame, second_events.frame, None
    if new_second_events is not None and admitted.late:
        late = engagement_rows(gather(new_second_events, admitted.late), [LATE] * len(admitted.late))
        new_second_events = without(new_second_events, admitted.late)
    changes = [] if lines.seen is None else [lines.seen]
    if admitted.views:
        changes.append(Changes.pack("views", KEY_BYTES["views"], admitted.views.items()))
    return RoutedLines(rows, outcomes, late, new_first_events, new_second_events, admitted.views, changes)


class _WindowEvents(NamedTuple):
    """New first events, or new second events."""

    frame: pl.DataFrame | None
    """None where there are none."""
    events: Events


def _window_events(part: Part | None, schema: Mapping[str, pl.DataType]) -> _WindowEvents:
    if part is None:
        return _WindowEvents(None, Events([], [], []))
    frame = part.frame(schema)
    digests = digests_of(frame["page_view_id"].to_list())
    join_keys = join_keys_of(frame["received_at"].to_list(), frame["event_id"].to_list())
    events = Events(part.spans, join_keys, digests)
    return _WindowEvents(window_columns(frame, digests), events)


def _join(
    blocks: Sequence[AcceptedBlock], first_events: _WindowEvents, second_events: _WindowEvents, known: Known, rules: EtlRules
) -> AdmittedEvents:
    joining_keys = known.joining_keys
    unknown_page_views = [
        digest for digest in second_events.events.digests if digest not in joining_keys
    ]  # few: their first event is not open
    asked = list(dict.fromkeys([*first_events.events.digests, *unknown_page_views]))
    values = zip(asked, known.state.get("views", asked), strict=True)
    views = {digest: value for digest, value in values if value is not None}
    return admit_events(blocks, first_events.events, second_events.events, JoiningFirsts(views, joining_keys), rules)


def _rehearsal(rules: EtlRules, enricher: Enricher) -> Callable[[Decoded], None]:
    """A function that puts some lines through every later step of their way, and keeps nothing."""
    empty = Known(MemoryState(), {})

    def rehearse(lines: Decoded) -> None:
        routed = _route([lines], empty, rules, enricher)
        for _, rows in routed.rows:
            pack_frame(rows)
        if routed.first_events is not None:
            pack_frame(page_view_rows(routed.first_events, None, enricher))
        if routed.second_events is not None:
            pack_frame(engagement_rows(routed.second_events, [LATE] * routed.second_events.height))

    return rehearse
