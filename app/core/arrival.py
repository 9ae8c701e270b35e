"""The first half of a step: its blocks' lines become rows, or go into the window (rule J1)."""

from collections.abc import Callable
from typing import Final, NamedTuple

import polars as pl

from app.core.closing import LATE
from app.core.decode import AcceptedBlock, Lines, read_blocks, read_carefully
from app.core.enrich import Enricher
from app.core.fate import Fate, digests_of, pack_time, sort_lines
from app.core.flows import AD_CLICKS, AD_IMPRESSIONS, DUPLICATE, REDIRECTS, REJECTED
from app.core.intake import EtlRules
from app.core.join import Arrived, Events, View, arrive, pack_view, unpack_view
from app.core.parts import Part
from app.core.rejected import bot_rows, malformed_rows
from app.core.rows import (
    PENDING_SCHEMA,
    ROW_SCHEMAS,
    SECONDS_SCHEMA,
    engagement_rows,
    pack_frame,
    page_view_rows,
    redirect_rows,
    window_columns,
)
from app.core.state import KEY_BYTES, MemoryState, StateReader
from app.core.step_message import Changes

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
    views: dict[bytes, View]
    changes: list[Changes]
    """What `seen`, `blocks` and `views` learn."""


NOTHING: Final = Arrival([], [], None, None, None, {}, [])


def arrive_all(
    blocks: list[AcceptedBlock], state: StateReader, rules: EtlRules, enricher: Enricher, *, careful: bool = False
) -> Arrival:
    """Take the lines of `blocks`, which the state does not know, in log order.

    Args:
        blocks: the blocks, each with stream time at its place.
        state: the partition's tables before the step.
        rules: bounds and limits.
        enricher: look-ups.
        careful: take line by line; one that raises is rejected with its reason (rule E6).
    """
    if not blocks:
        return NOTHING
    lines = read_carefully(blocks, _rehearsal(rules, enricher)) if careful else read_blocks(blocks)
    arrival = _arrive(lines, state, rules, enricher)
    known = [(block.header.key, pack_time(block.stored_ms)) for block in blocks]
    return arrival._replace(changes=[*arrival.changes, Changes.pack("blocks", KEY_BYTES["blocks"], known)])


def _arrive(lines: Lines, state: StateReader, rules: EtlRules, enricher: Enricher) -> Arrival:
    found = sort_lines(lines, state, rules.dedup_window_ms, enricher)
    parts = {fate: Part(lines, found, positions) for fate, positions in zip(Fate, found.positions, strict=True) if positions}
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
            rows.append((REJECTED.name, bot_rows(part, found.bot_rules)))
            fates.append((REJECTED.name, part))
        elif fate is Fate.DUPLICATE:
            fates.append((DUPLICATE, part))

    firsts, seconds = parts.get(Fate.FIRST), parts.get(Fate.SECOND)
    first_digests, second_digests = _digests(firsts), _digests(seconds)
    arrived = _join(lines, (firsts, first_digests), (seconds, second_digests), state, rules)
    new_firsts = None if firsts is None else window_columns(firsts, PENDING_SCHEMA, first_digests)
    new_seconds = late = None
    if seconds is not None:
        new_seconds = window_columns(seconds, SECONDS_SCHEMA, second_digests)
        if arrived.late:
            is_late = pl.Series("late", [False] * new_seconds.height).scatter(arrived.late, values=True)
            late = engagement_rows(new_seconds.filter(is_late), [LATE] * len(arrived.late))
            new_seconds = new_seconds.filter(~is_late)
    changes = [] if found.seen is None else [found.seen]
    if arrived.views:
        known = ((digest, pack_view(view)) for digest, view in arrived.views.items())
        changes.append(Changes.pack("views", KEY_BYTES["views"], known))
    return Arrival(rows, fates, late, new_firsts, new_seconds, arrived.views, changes)


Digested = tuple[Part | None, list[bytes]]
"""Events of one fate, and the digests of their page views."""


def _join(lines: Lines, firsts: Digested, seconds: Digested, state: StateReader, rules: EtlRules) -> Arrived:
    asked = list(dict.fromkeys([*firsts[1], *seconds[1]]))
    values = zip(asked, state.get("views", asked), strict=True)
    known = {digest: unpack_view(value) for digest, value in values if value is not None}
    return arrive(lines.blocks, _events(firsts), _events(seconds), known, rules)


def _digests(part: Part | None) -> list[bytes]:
    return [] if part is None else digests_of([event.page_view_id or "" for event in part.events])


def _events(digested: Digested) -> Events:
    part, digests = digested
    if part is None:
        return Events([], [], [], [])
    return Events(
        part.spans, [event.received_at for event in part.events], [event.event_id or "" for event in part.events], digests
    )


def _rehearsal(rules: EtlRules, enricher: Enricher) -> Callable[[Lines], None]:
    """Puts some lines through everything that ever happens to them, and keeps nothing."""
    empty = MemoryState()

    def rehearse(lines: Lines) -> None:
        arrival = _arrive(lines, empty, rules, enricher)
        for _, rows in arrival.rows:
            pack_frame(rows)
        if arrival.firsts is not None:
            pack_frame(page_view_rows(arrival.firsts, None, enricher))
        if arrival.seconds is not None:
            pack_frame(engagement_rows(arrival.seconds, [LATE] * arrival.seconds.height))

    return rehearse
