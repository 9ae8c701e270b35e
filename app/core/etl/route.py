"""The first half of a step: its blocks' lines become rows, or go into the window (rule J1)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import polars as pl

from app.core.enrich.enrich import Enricher
from app.core.etl.classify import Fate
from app.core.etl.decode import Decoded, read_blocks, read_carefully
from app.core.etl.flow_rows import (
    PENDING_SCHEMA,
    ROW_SCHEMAS,
    SECONDS_SCHEMA,
    engagement_rows,
    page_view_rows,
    redirect_rows,
    window_columns,
)
from app.core.etl.lines import Part, sort_lines
from app.core.etl.rejected_rows import bot_rows, malformed_rows
from app.core.formats.columns import gather, pack_frame, without
from app.core.formats.flows import AD_CLICKS, AD_IMPRESSIONS, DUPLICATE, REDIRECTS, REJECTED
from app.core.formats.source import AcceptedBlock
from app.core.formats.step_message import Changes
from app.core.join.join import Arrived, Events, Joiners, arrive
from app.core.join.join_order import ranks_of
from app.core.join.window_close import LATE
from app.core.rules import EtlRules
from app.core.state.encoding import digests_of, pack_time
from app.core.state.tables import KEY_BYTES, MemoryState, StateReader

_AT_ONCE: Final = {Fate.AD_IMPRESSION: AD_IMPRESSIONS, Fate.AD_CLICK: AD_CLICKS}


class Arrival(NamedTuple):
    """What the blocks of a step bring."""

    rows: list[tuple[str, pl.DataFrame]]
    """(flow, rows) emitted at once."""
    fates: list[tuple[str, Part]]
    """(outcome, lines) that have their ledger entry now."""
    late: pl.DataFrame | None
    """Rows of `engagements`: seconds that are late on arrival."""
    firsts: pl.DataFrame | None
    """New firsts, columns PENDING_COLUMNS."""
    seconds: pl.DataFrame | None
    """New seconds without a decision, columns SECONDS_COLUMNS."""
    views: dict[bytes, bytes]
    """Page views whose joining first is new: what `views` learns of each."""
    changes: list[Changes]
    """What `seen`, `blocks` and `views` learn."""


class Known(NamedTuple):
    """What a partition knows before the step."""

    state: StateReader
    """Its tables."""
    joiners: Mapping[bytes, bytes]
    """Digest of a page view -> rank of its joining first, for each that is open."""


NOTHING: Final = Arrival([], [], None, None, None, {}, [])


def arrive_all(
    blocks: list[AcceptedBlock], known: Known, rules: EtlRules, enricher: Enricher, *, careful: bool = False
) -> Arrival:
    """Take the lines of `blocks`, which the state does not know, in log order.

    Args:
        blocks: the blocks, each with stream time at its place.
        known: what the partition knows before the step.
        rules: bounds and limits.
        enricher: look-ups.
        careful: take line by line; one that raises is rejected with its reason (rule E6).
    """
    if not blocks:
        return NOTHING
    read = [read_carefully(blocks, _rehearsal(rules, enricher))] if careful else read_blocks(blocks)
    arrival = _arrive(read, known, rules, enricher)
    taken = [(block.header.key, pack_time(block.stored_ms)) for block in blocks]
    return arrival._replace(changes=[*arrival.changes, Changes.pack("blocks", KEY_BYTES["blocks"], taken)])


def _arrive(read: Iterable[Decoded], known: Known, rules: EtlRules, enricher: Enricher) -> Arrival:
    lines = sort_lines(read, known.state, rules.dedup_window_ms, enricher)
    parts = {fate: Part(lines, fate) for fate in lines.positions}
    rows: list[tuple[str, pl.DataFrame]] = []
    fates: list[tuple[str, Part]] = []
    for fate, part in parts.items():
        if fate in _AT_ONCE:
            flow = _AT_ONCE[fate].name
            rows.append((flow, part.frame(ROW_SCHEMAS[flow])))
            fates.append((flow, part))
        elif fate is Fate.REDIRECT:
            rows.append((REDIRECTS.name, redirect_rows(part, enricher)))
            fates.append((REDIRECTS.name, part))
        elif fate is Fate.MALFORMED:
            rows.append((REJECTED.name, malformed_rows(part)))
            fates.append((REJECTED.name, part))
        elif fate is Fate.BOT:
            rows.append((REJECTED.name, bot_rows(part)))
            fates.append((REJECTED.name, part))
        elif fate is Fate.DUPLICATE:
            fates.append((DUPLICATE, part))

    firsts = _window_events(parts.get(Fate.FIRST), PENDING_SCHEMA)
    seconds = _window_events(parts.get(Fate.SECOND), SECONDS_SCHEMA)
    arrived = _join(lines.blocks, firsts, seconds, known, rules)
    new_firsts, new_seconds, late = firsts.frame, seconds.frame, None
    if new_seconds is not None and arrived.late:
        late = engagement_rows(gather(new_seconds, arrived.late), [LATE] * len(arrived.late))
        new_seconds = without(new_seconds, arrived.late)
    changes = [] if lines.seen is None else [lines.seen]
    if arrived.views:
        changes.append(Changes.pack("views", KEY_BYTES["views"], arrived.views.items()))
    return Arrival(rows, fates, late, new_firsts, new_seconds, arrived.views, changes)


class _WindowEvents(NamedTuple):
    """New firsts or seconds."""

    frame: pl.DataFrame | None
    """None where there are none."""
    events: Events


def _window_events(part: Part | None, schema: Mapping[str, pl.DataType]) -> _WindowEvents:
    if part is None:
        return _WindowEvents(None, Events([], [], []))
    frame = part.frame(schema)
    digests = digests_of(frame["page_view_id"].to_list())
    ranks = ranks_of(frame["received_at"].to_list(), frame["event_id"].to_list())
    events = Events(part.spans, ranks, digests)
    return _WindowEvents(window_columns(frame, digests), events)


def _join(
    blocks: Sequence[AcceptedBlock], firsts: _WindowEvents, seconds: _WindowEvents, known: Known, rules: EtlRules
) -> Arrived:
    joiners = known.joiners
    strangers = [digest for digest in seconds.events.digests if digest not in joiners]  # their first is not open: few
    asked = list(dict.fromkeys([*firsts.events.digests, *strangers]))
    values = zip(asked, known.state.get("views", asked), strict=True)
    views = {digest: value for digest, value in values if value is not None}
    return arrive(blocks, firsts.events, seconds.events, Joiners(views, joiners), rules)


def _rehearsal(rules: EtlRules, enricher: Enricher) -> Callable[[Decoded], None]:
    """Puts some lines through everything that ever happens to them, and keeps nothing."""
    empty = Known(MemoryState(), {})

    def rehearse(lines: Decoded) -> None:
        arrival = _arrive([lines], empty, rules, enricher)
        for _, rows in arrival.rows:
            pack_frame(rows)
        if arrival.firsts is not None:
            pack_frame(page_view_rows(arrival.firsts, None, enricher))
        if arrival.seconds is not None:
            pack_frame(engagement_rows(arrival.seconds, [LATE] * arrival.seconds.height))

    return rehearse
