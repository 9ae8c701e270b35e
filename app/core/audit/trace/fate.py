"""The fate of a line, and of an id that one or more lines carry."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from app.core.audit.stages import Stage
from app.core.audit.trace.facts import HeldLine, LineFacts
from app.core.formats.flows import DUPLICATE, ENGAGEMENTS, ERASED, JOINED, PAGE_VIEWS, REJECTED
from app.core.rules import JoinRules
from app.core.whole_table import whole_table

PAGE_VIEW: Final = "page_view"
ENGAGEMENT: Final = "engagement"
WAITING: Final = "waiting"
"""In the etl's window: the event waits for the other one of its page view."""
QUARANTINED: Final = "quarantined"
DEAD_LETTER: Final = "dead_letter"
IN_FLIGHT: Final = "in_flight"
LOST: Final = "lost"
UNACKNOWLEDGED: Final = "unacknowledged"
"""The raw file is there, and the registry never had its batch: the client got no answer 200 and sends the events again."""
UNKNOWN: Final = "unknown"
_NOT_REGISTERED: Final = "the registry has no such batch: its client got no answer 200, and sends its events again"
_OF_OUTCOMES: Final = {PAGE_VIEWS.name: PAGE_VIEW, ENGAGEMENTS.name: ENGAGEMENT}
"""The fates that are not called like their flow."""
_OF_STAGES: Final[Mapping[Stage, str]] = whole_table(Stage, {
    Stage.LOST: LOST, Stage.QUARANTINED: QUARANTINED, Stage.DEAD_LETTER: DEAD_LETTER, Stage.KINESIS: IN_FLIGHT,
    Stage.ETL: IN_FLIGHT, Stage.SINK: IN_FLIGHT, Stage.DELIVERY: IN_FLIGHT, Stage.JOIN: WAITING, Stage.LOADED: IN_FLIGHT,
})  # fmt: skip
_WAITING_TYPES: Final = ("page_view", "engagement")
"""The event types that wait in the window; any other is on its way."""


class LinePlace(msgspec.Struct, frozen=True, order=True):
    """A line of a batch."""

    batch_id: str
    line: int


class LineFate(msgspec.Struct, kw_only=True):
    """The fate of one line. Times are ISO 8601, UTC."""

    fate: str
    """The name of a flow, `page_view` and `engagement` for two of them, or one of this module's names."""
    reason: str
    """Of an engagement and a rejected line: the reason in its row. Of any other line: a sentence."""
    batch_id: str
    line: int
    raw_key: str
    event_id: str | None = None
    event_type: str | None = None
    page_view_id: str | None = None
    received_at: str | None = None
    is_registered: bool = True
    batch_state: str | None = None
    attempts: int = 0
    """Replays of the batch by the audit."""
    block: int | None = None
    partition: int | None = None
    offset: int | None = None
    """The offset of its block in topic `blocks`; None if the topic does not have it (any more)."""
    txn_id: str | None = None
    file: str | None = None
    """The file in S3 that has its row."""
    row_visible_at: str | None = None
    """Since then the warehouse shows its row, or the row that it is part of."""
    kind: str | None = None
    """Of a rejected line: `bot` or `malformed`."""
    joined_with: str | None = None
    """Of a page view: the event id of the second event in its row."""
    joined_into: str | None = None
    """Of a second event: the event id of the page view whose row it is part of."""
    duplicate_of: LinePlace | None = None
    """The line whose copy it is; None if that line is not kept any more."""
    waits_until: str | None = None
    """When it leaves the window at the latest, by stream time."""
    stage: str | None = None
    """The stage that it has not passed."""
    raw: str | None = None
    """The stored line, if it was asked for."""

    @property
    def place(self) -> LinePlace:
        """The line's place."""
        return LinePlace(self.batch_id, self.line)


def fate_of(facts: LineFacts, rules: JoinRules) -> LineFate:
    """The fate of a line by itself; `tell_duplicates` adds whose copy a duplicate is."""
    raw, fields = facts.raw, facts.raw.fields
    found = LineFate(
        fate=UNACKNOWLEDGED, reason=_NOT_REGISTERED,
        batch_id=raw.batch_id, line=raw.line, raw_key=raw.raw_key, event_id=fields.event_id, event_type=fields.event_type,
        page_view_id=fields.page_view_id, received_at=moment(fields.received_at), is_registered=raw.item is not None,
        block=raw.block, offset=facts.offset, file=facts.file,
    )  # fmt: skip
    if raw.item is not None:
        found.batch_state, found.attempts = raw.item.state.value, raw.item.attempts
        found.partition = None if raw.block is None else raw.item.blocks[raw.block].partition
    if facts.loaded:
        _tell_loaded(found, facts)
    elif facts.held is not None:
        _tell_held(found, facts.held, fields.received_at, rules)
    return found


def _tell_loaded(found: LineFate, facts: LineFacts) -> None:
    entry, row, first = facts.loaded[0], facts.row, facts.first
    found.fate = _OF_OUTCOMES.get(entry.outcome, entry.outcome)
    found.txn_id, found.row_visible_at = entry.txn_id, moment(entry.loaded_at_ms)
    found.reason = f"row in {entry.outcome}"
    if entry.outcome == JOINED:
        found.joined_into = None if first is None else first.event_id
        found.reason = "joined into a page view whose row is gone" if first is None else f"joined into {first.event_id}"
    elif entry.outcome == DUPLICATE:
        found.row_visible_at = None
        found.reason = "duplicate of an event that is not kept any more"
    elif entry.outcome == ERASED:
        found.row_visible_at = None
        found.reason = "erased from raw file, data files and warehouse (`instream erase`)"
    elif row is None:
        found.row_visible_at = None
        found.reason = f"the ledger says {entry.outcome}, and that table has no such row"
    elif entry.outcome == PAGE_VIEWS.name:
        found.joined_with = row.engagement_id
        found.reason += f", with second event {row.engagement_id}" if row.joined else ", no second event joined"
    elif entry.outcome in {ENGAGEMENTS.name, REJECTED.name}:
        found.reason, found.kind = row.reason or "", row.kind
    if len(facts.loaded) > 1:
        others = ", ".join(f"{each.outcome} in {each.txn_id}" for each in facts.loaded[1:])
        found.reason += f"; the ledger has the line more than once: also {others}"


def _tell_held(found: LineFate, held: HeldLine, received_ms: int | None, rules: JoinRules) -> None:
    found.stage = None if held.stage is None else held.stage.value
    found.txn_id = held.txn_id
    found.fate = IN_FLIGHT if held.stage is None else _OF_STAGES[held.stage]
    if found.fate == WAITING and found.event_type not in _WAITING_TYPES:
        found.fate, found.stage = IN_FLIGHT, Stage.ETL.value
    match found.fate:
        case "waiting":
            is_first = found.event_type == "page_view" and received_ms is not None
            found.waits_until = moment((received_ms or 0) + rules.upper_ms if is_first else held.until_ms)
            other = "second event" if is_first else "page view"
            found.reason = f"waits for its {other} until {found.waits_until}"
        case "in_flight":
            where = "the warehouse" if found.stage is None else f"stage {found.stage}"
            found.reason = f"not yet past {where}: {held.detail}"
        case _:
            found.reason = held.detail


def moment(time_ms: int | None) -> str | None:
    """A time as ISO 8601 in UTC, with milliseconds; None for none."""
    if time_ms is None or time_ms < 0:
        return None
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def tell_duplicates(lines: Sequence[LineFate]) -> list[LineFate]:
    """The lines that carry one event id, the one that decides first; each duplicate now says whose copy it is.

    The line that became something decides for its id, although others are duplicates of it, or are malformed.
    """
    ordered = sorted(lines, key=lambda line: (_rank(line), line.received_at or "", line.place))
    original = ordered[0] if ordered and ordered[0].fate != DUPLICATE else None
    for line in ordered:
        if line.fate == DUPLICATE and original is not None:
            line.duplicate_of = original.place
            line.reason = f"duplicate of batch {original.batch_id} line {original.line}"
    return ordered


def _rank(line: LineFate) -> int:
    if line.fate == DUPLICATE:
        return 3
    if line.fate == UNACKNOWLEDGED:
        return 2
    return 1 if line.kind == "malformed" else 0


class Trace(msgspec.Struct, kw_only=True):
    """The answer for one id."""

    id: str
    lines: list[LineFate]
    """The lines that carry it, the one that decides first."""
    since: str | None
    until: str
    faults: list[str] = []
    """The reasons why lines may be missing here."""
    is_cut: bool = False
    """Whether there are more lines than are shown."""

    @property
    def found(self) -> bool:
        """Whether a line carries the id."""
        return bool(self.lines)

    @property
    def answer(self) -> LineFate:
        """The fate of the id: that of the line that decides."""
        if self.lines:
            return self.lines[0]
        span = (
            f"between {self.since} and {self.until}" if self.since else f"before {self.until}: there is no raw file at all"
        )
        unread = f"; {len(self.faults)} raw files could not be read" if self.faults else ""
        reason = f"no such id among accepted events {span}; what was refused is not kept{unread}"
        return LineFate(fate=UNKNOWN, reason=reason, batch_id="", line=-1, raw_key="", is_registered=False)
