"""Judges the rows of newer events, fields and columns by the version that was at work at each moment."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from app.adapters.warehouse import Connection
from app.adapters.warehouse_port import moment_ms
from app.core.formats.flows import BY_NAME
from app.local.traffic.send import SentEvent
from tests.rig.invariants.violation import Violation
from tests.rig.upgrade.newer_events import NEWER_FIELD, NEWER_FLOW, NEWER_TYPE, NewerRun

RULE: Final = "I1"
NEWER_COLUMN: Final = "path_depth"
CLOCK_MS: Final = 50
"""Between the moment at which a process was seen to be ready, and the moments that others write down."""
_SHARED: Final = ("event_id", "page_view_id", "visitor_id", "article_id")
_COLUMNS: Final = {NEWER_FLOW: (*_SHARED, "video_id"), "page_views": (*_SHARED, "url", NEWER_FIELD)}
_REASON: Final = "event_type: none of"


class Reign(msgspec.Struct, frozen=True):
    """When a role ran the newer version, ms: it began to change, had changed, began to go back, was back."""

    changing_ms: int
    changed_ms: int
    returning_ms: int
    returned_ms: int

    def is_older(self, first_ms: int, last_ms: int) -> bool:
        """Whether only the older version can have been at work between two moments."""
        return last_ms < self.changing_ms - CLOCK_MS or first_ms > self.returned_ms + CLOCK_MS

    def is_newer(self, first_ms: int, last_ms: int) -> bool:
        """Whether only the newer version can have been at work between two moments."""
        return first_ms > self.changed_ms + CLOCK_MS and last_ms < self.returning_ms - CLOCK_MS


class NewerRows(msgspec.Struct):
    """The rows of newer events in the warehouse."""

    loaded: list[dict[str, Any]]
    """Rows of the newer flow, all of them."""
    pages: list[dict[str, Any]]
    """Page views of the run."""
    rejected: dict[str, list[str]]
    """event_id -> the reason of each rejected row."""

    def filled_fields(self) -> int:
        """How many page views have the newer field in its column."""
        return sum(row[NEWER_FIELD] is not None for row in self.pages)

    def totals(self) -> dict[str, int]:
        """Flow -> rows."""
        rejected = sum(len(reasons) for reasons in self.rejected.values())
        return {NEWER_FLOW: len(self.loaded), "page_views": len(self.pages), "rejected": rejected}


async def read_newer_rows(connection: Connection, run: str) -> NewerRows:
    """Read the rows of a run of newer events."""
    loaded = await _rows(connection, NEWER_FLOW, "")
    pages = await _rows(connection, "page_views", run)
    cursor = await connection.execute(
        b"SELECT reason, payload, event_id FROM analytics.rejected WHERE payload LIKE %s OR event_id LIKE %s",
        [f"%{run}-%", f"{run}-%"],
    )
    rejected: dict[str, list[str]] = defaultdict(list)
    for reason, payload, event_id in await cursor.fetchall():
        rejected[event_id or json.loads(payload)["event_id"]].append(reason)
    return NewerRows(loaded, pages, dict(rejected))


async def _rows(connection: Connection, flow: str, run: str) -> list[dict[str, Any]]:
    columns = (*_COLUMNS[flow], "properties")
    query = f"SELECT {', '.join(columns)} FROM analytics.{flow} WHERE event_id LIKE %s"
    cursor = await connection.execute(query.encode(), [f"{run}%"])
    return [dict(zip(columns, row, strict=True)) for row in await cursor.fetchall()]


def judge_newer_rows(run: NewerRun, rows: NewerRows, collector: Reign) -> Iterator[Violation]:
    """Judge each event by the version of the collector that received it.

    An event of the newer type is a row of its flow where a newer collector received it, and a rejected row where an older
    one did. The newer field of a page view is in its column, or in `properties`.

    Args:
        run: the events that were sent.
        rows: the rows that were found.
        collector: when the collector was which version.
    """
    loaded, pages = _by_event(rows.loaded), _by_event(rows.pages)
    surplus = 0
    for event_id, sent in run.sent.events.items():
        found, reasons = loaded.pop(event_id, []), rows.rejected.get(event_id, [])
        if sent.facts.event_type != NEWER_TYPE:
            yield from _judge_page(event_id, sent, pages.pop(event_id, []), collector)
            continue
        yield from _judge_event(event_id, sent, collector, (len(found), len(reasons)))
        surplus += max(0, len(reasons) + bool(found) - 1)
        for reason in reasons:
            if not reason.startswith(_REASON):
                yield Violation(RULE, f"{event_id} is rejected with the reason {reason!r}")
        for row in found:
            yield from _differences(event_id, row, _row_of(sent, NEWER_FLOW))
    if surplus > run.sent.unsure_lines:
        yield Violation(
            RULE, f"{surplus} newer events have one more row than they were sent; {run.sent.unsure_lines} may have"
        )
    typed = {event_id for event_id, sent in run.sent.events.items() if sent.facts.event_type == NEWER_TYPE}
    for event_id in loaded.keys() | pages.keys() | (rows.rejected.keys() - typed):
        yield Violation(RULE, f"{event_id}: has a row that nothing sent leads to")


def _judge_event(event_id: str, sent: SentEvent, collector: Reign, found: tuple[int, int]) -> Iterator[Violation]:
    loaded, rejected = found
    first_ms, last_ms = sent.received.first_ms, sent.received.last_ms
    if loaded + rejected == 0:
        yield Violation(RULE, f"newer event {event_id} has no row")
    if loaded > 1:
        yield Violation(RULE, f"newer event {event_id} has {loaded} rows in {NEWER_FLOW}")
    if loaded and collector.is_older(first_ms, last_ms):
        yield Violation(RULE, f"newer event {event_id} was sent to an older collector and is in {NEWER_FLOW}")
    if rejected and collector.is_newer(first_ms, last_ms):
        yield Violation(RULE, f"newer event {event_id} was sent to a newer collector and is rejected")


def _judge_page(event_id: str, sent: SentEvent, found: list[dict[str, Any]], collector: Reign) -> Iterator[Violation]:
    if len(found) != 1:
        yield Violation(RULE, f"page view {event_id} with the newer field has {len(found)} rows")
        return
    newer = _row_of(sent, "page_views")
    others = (newer["properties"] or {}) | {NEWER_FIELD: newer[NEWER_FIELD]}
    older = newer | {NEWER_FIELD: None, "properties": others}
    first_ms, last_ms = sent.received.first_ms, sent.received.last_ms
    is_filled = found[0][NEWER_FIELD] is not None
    if is_filled and collector.is_older(first_ms, last_ms):
        yield Violation(RULE, f"page view {event_id} was sent to an older collector and has the newer field in its column")
    elif not is_filled and collector.is_newer(first_ms, last_ms):
        yield Violation(RULE, f"page view {event_id} was sent to a newer collector and its column {NEWER_FIELD} is NULL")
    else:
        yield from _differences(event_id, found[0], newer if is_filled else older)


def _row_of(sent: SentEvent, flow: str) -> dict[str, Any]:
    """The row that the newer version makes of an event."""
    body = json.loads(sent.body)
    return {name: body.get(name) for name in (*_COLUMNS[flow], "properties")}


def _differences(event_id: str, row: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Violation]:
    found = {**row, "properties": json.loads(row["properties"]) if row["properties"] is not None else None}
    for name, value in wanted.items():
        if found[name] != value:
            yield Violation(RULE, f"{event_id}: {name} is {found[name]!r}, must be {value!r}")


def _by_event(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["event_id"]].append(row)
    return found


class Deep(msgspec.Struct, frozen=True):
    """A page view with the newer column."""

    event_id: str
    url: str | None
    depth: int | None
    received_ms: int
    loaded_ms: int


async def read_depths(connection: Connection) -> list[Deep]:
    """Every page view with the newer column."""
    if NEWER_COLUMN not in BY_NAME["page_views"].names:
        raise ValueError(f"this version has no column {NEWER_COLUMN}")
    cursor = await connection.execute(
        f"SELECT v.event_id, v.url, v.{NEWER_COLUMN}, v.received_at, d.loaded_at FROM analytics.page_views v "
        "JOIN analytics.delivery_log d ON d.txn_id = v.txn_id".encode()
    )
    return [
        Deep(event_id, url, depth, moment_ms(received), moment_ms(loaded))
        async for event_id, url, depth, received, loaded in cursor
    ]


def judge_depths(rows: Iterable[Deep], etl: Reign) -> Iterator[Violation]:
    """The newer column holds its value where a newer etl emitted the row, NULL where an older one did, and nothing else.

    A row was emitted between the moments at which its event was received and it was loaded.

    Args:
        rows: every page view.
        etl: when the etl was which version.
    """
    for row in rows:
        right = None if row.url is None else len([part for part in urlsplit(row.url).path.split("/") if part])
        if row.depth not in {right, None}:
            yield Violation(RULE, f"{row.event_id}: {NEWER_COLUMN} is {row.depth}, must be {right} ({row.url})")
        elif row.depth is not None and etl.is_older(row.received_ms, row.loaded_ms):
            yield Violation(RULE, f"{row.event_id}: an older etl emitted it, and {NEWER_COLUMN} is {row.depth}")
        elif row.depth != right and etl.is_newer(row.received_ms, row.loaded_ms):
            yield Violation(RULE, f"{row.event_id}: a newer etl emitted it, and {NEWER_COLUMN} is NULL")


def share_filled(rows: Iterable[Deep]) -> int:
    """How many page views have a value in the newer column."""
    return sum(row.depth is not None for row in rows)
