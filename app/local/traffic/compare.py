"""Compares the warehouse with the expected result: every row of a run, field by field, and the ledger's counts."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import msgspec

from app.adapters.warehouse import Connection
from app.local.traffic.expect import FLOWS, Expectations, ExpectedFate
from app.local.traffic.rows import SELECTED, payload_of, row_of
from app.local.traffic.send import SentEvent, SentMalformed, SentRequest

WarehouseRow = dict[str, Any]
CLOCK_MS: Final = 2
"""Rounding of two readings of one clock."""
SHOWN: Final = 20
IN_ONE_QUERY: Final = 500
_JSON: Final = frozenset({"properties", "engagement_properties"})
_TIMES: Final = frozenset({"occurred_at", "received_at", "engaged_at"})


class ExpectedCount(msgspec.Struct, frozen=True):
    """Expected and found numbers."""

    least: int
    most: int
    found: int

    @property
    def holds(self) -> bool:
        """Whether the found number is an expected one."""
        return self.least <= self.found <= self.most


class Latency(msgspec.Struct, frozen=True):
    """Seconds from a line's acknowledgement to its load, over lines."""

    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


class Comparison(msgspec.Struct, kw_only=True):
    """The warehouse compared with a run."""

    flows: dict[str, ExpectedCount]
    joined: ExpectedCount
    duplicates: ExpectedCount
    missing: int = 0
    extra: int = 0
    different: int = 0
    examples: list[str] = []
    """The first differences, in words."""

    @property
    def is_equal(self) -> bool:
        """Whether nothing is missing, extra or different."""
        counts = [*self.flows.values(), self.joined, self.duplicates]
        return not (self.missing or self.extra or self.different) and all(bounds.holds for bounds in counts)


async def compare(connection: Connection, run: str, sent: SentRequest, expected: Expectations) -> Comparison:
    """Compare every row of `run` with the sent lines. `sent` must have kept its bodies, and every batch must be covered."""
    found = {flow: await _rows(connection, run, flow) for flow in FLOWS}
    outcomes = await _outcomes(connection, list(sent.acknowledged_at_ms))
    counts = {flow: ExpectedCount(least, most, len(found[flow])) for flow, (least, most) in expected.rows().items()}
    joined = sum(row["joined"] for row in found["page_views"])
    result = Comparison(
        flows=counts,
        joined=ExpectedCount(*expected.joined(), joined),
        duplicates=ExpectedCount(
            expected.duplicates, expected.duplicates + expected.unsure_lines, outcomes["duplicate"]
        ),
    )  # fmt: skip
    Comparing(run, sent, expected, result).compare(found)
    return result


async def latencies(connection: Connection, sent: SentRequest) -> dict[str, Latency]:
    """From acknowledgement to load: of all lines, of page views (each with its second), of those that wait for no join."""
    samples: dict[str, list[tuple[float, int]]] = {"all": [], "page views": [], "without join": []}
    for part in _parts(list(sent.acknowledged_at_ms)):
        cursor = await connection.execute(
            _sql(
                "SELECT l.batch_id, l.outcome, d.loaded_at, sum(l.lines) FROM analytics.ledger l"
                " JOIN analytics.delivery_log d ON d.txn_id = l.txn_id"
                f" WHERE l.batch_id IN ({_marks(part)}) GROUP BY 1, 2, 3"
            ),
            part,
        )
        async for batch_id, outcome, loaded_at, lines in cursor:
            waited_s = (_milliseconds(loaded_at) - sent.acknowledged_at_ms[batch_id]) / 1000
            samples["all"].append((waited_s, int(lines)))
            if outcome == "page_views":
                samples["page views"].append((waited_s, int(lines)))
            if outcome not in {"page_views", "engagements", "joined"}:
                samples["without join"].append((waited_s, int(lines)))
    return {name: _quantiles(values) for name, values in samples.items() if values}


class Comparing:
    """Goes through the rows of one run and notes differences."""

    def __init__(self, run: str, sent: SentRequest, expected: Expectations, result: Comparison) -> None:
        self._mark = re.compile(re.escape(run) + r"-m\d+")
        self._sent = sent
        self._expected = expected
        self._result = result

    def compare(self, found: dict[str, list[WarehouseRow]]) -> None:
        """Note every difference between `found` (flow -> rows) and the run."""
        by_event: dict[str, list[tuple[str, WarehouseRow]]] = defaultdict(list)
        malformed: list[WarehouseRow] = []
        for flow, rows in found.items():
            for row in rows:
                if flow == "rejected" and row["kind"] == "malformed":
                    malformed.append(row)
                else:
                    by_event[row["event_id"]].append((flow, row))
        taken = Counter(row["engagement_id"] for row in found["page_views"] if row["engagement_id"])
        for event_id, event in self._sent.events.items():
            self._event(event_id, event, by_event.pop(event_id, []), taken.pop(event_id, 0))
        for event_id, unsent in by_event.items():
            self._extra(len(unsent), f"{event_id}: was not sent and has {_places(unsent)}")
        for event_id, times in taken.items():
            self._extra(times, f"{event_id}: was not sent and is part of {times} page views")
        self._malformed(malformed)

    def _event(self, event_id: str, event: SentEvent, rows: list[tuple[str, WarehouseRow]], taken: int) -> None:
        fates = self._expected.fates[event_id]
        if len(rows) + taken == 0:
            self._missing(f"{event_id}: has no row; it must be {_words(fates)}")
        elif len(rows) + taken > 1:
            parts = f" and is part of {taken} page views" if taken else ""
            self._extra(len(rows) + taken - 1, f"{event_id}: has {_places(rows)}{parts}")
        elif taken:
            if ExpectedFate(None) not in fates:
                self._different(f"{event_id}: is part of a page view; it must be {_words(fates)}")
        else:
            self._row(event_id, event, *rows[0])

    def _row(self, event_id: str, event: SentEvent, flow: str, row: WarehouseRow) -> None:
        detail = row.get("kind") or row.get("reason") or row.get("engagement_id")
        fates = self._expected.fates[event_id]
        if ExpectedFate(flow, detail) not in fates:
            self._different(f"{event_id}: is in {flow} ({detail}); it must be {_words(fates)}")
            return
        received = event.received
        if not received.first_ms - CLOCK_MS <= row["received_at"] <= received.last_ms + CLOCK_MS:
            self._different(f"{event_id}: received_at {row['received_at']} is not in {received}")
        if flow == "rejected":
            wanted: WarehouseRow = {"event_type": event.facts.event_type}
            if not row["reason"]:
                self._different(f"{event_id}: no rule says why it is a bot")
        else:
            second = self._sent.events.get(row["engagement_id"]) if row.get("engagement_id") else None
            wanted = row_of(event, second)
        for name, value in wanted.items():
            if row[name] != value:
                self._different(f"{event_id}: {flow}.{name} is {_short(row[name])}, must be {_short(value)}")

    def _malformed(self, rows: list[WarehouseRow]) -> None:
        by_mark: dict[str, list[WarehouseRow]] = defaultdict(list)
        for row in rows:
            mark = self._mark.search(row["payload"])
            by_mark[mark.group() if mark else "?"].append(row)
        for line in self._sent.malformed:
            mark = self._mark.search(line.body.decode(errors="replace"))
            found = by_mark.pop(mark.group() if mark else "", [])
            if not found:
                self._missing(f"malformed line {_short(line.body)}: has no row")
            elif len(found) > 1 + line.unsure:
                self._extra(len(found) - 1 - line.unsure, f"malformed line {_short(line.body)}: has {len(found)} rows")
            for row in found:
                self._malformed_row(line, row)
        for mark_text, left in by_mark.items():
            self._extra(len(left), f"malformed line {mark_text}: was not sent")

    def _malformed_row(self, line: SentMalformed, row: WarehouseRow) -> None:
        if not row["reason"].startswith(f"{line.fault}:"):
            self._different(f"malformed line {_short(line.body)}: reason {row['reason']!r} does not name {line.fault}")
        if not line.in_array and row["payload"] != payload_of(line):
            self._different(f"malformed line {_short(line.body)}: payload is {_short(row['payload'])}")

    def _missing(self, text: str) -> None:
        self._result.missing += 1
        self._example("missing", text)

    def _extra(self, count: int, text: str) -> None:
        self._result.extra += count
        self._example("extra", text)

    def _different(self, text: str) -> None:
        self._result.different += 1
        self._example("different", text)

    def _example(self, kind: str, text: str) -> None:
        if len(self._result.examples) < SHOWN:
            self._result.examples.append(f"{kind}: {text}")


async def _rows(connection: Connection, run: str, flow: str) -> list[WarehouseRow]:
    columns = SELECTED[flow]
    where = "event_id LIKE %s" if flow != "rejected" else "event_id LIKE %s OR payload LIKE %s"
    values = [f"{run}-%"] if flow != "rejected" else [f"{run}-%", f"%{run}-m%"]
    cursor = await connection.execute(_sql(f"SELECT {', '.join(columns)} FROM analytics.{flow} WHERE {where}"), values)
    return [_row(columns, values) async for values in cursor]


def _row(columns: Sequence[str], values: Sequence[Any]) -> WarehouseRow:
    row = dict(zip(columns, values, strict=True))
    for name in _TIMES & row.keys():
        row[name] = _milliseconds(row[name]) if row[name] is not None else None
    for name in _JSON & row.keys():
        row[name] = json.loads(row[name]) if row[name] is not None else None
    return row


async def _outcomes(connection: Connection, batches: list[str]) -> Counter[str]:
    found = Counter[str]()
    for part in _parts(batches):
        text = f"SELECT outcome, sum(lines) FROM analytics.ledger WHERE batch_id IN ({_marks(part)}) GROUP BY 1"
        async for outcome, lines in await connection.execute(_sql(text), part):
            found[outcome] += int(lines)
    return found


def _parts(values: Sequence[str]) -> Iterator[list[str]]:
    source = iter(values)
    while part := list(islice(source, IN_ONE_QUERY)):
        yield part


def _marks(part: Sequence[str]) -> str:
    return ", ".join(["%s"] * len(part))


def _sql(text: str) -> bytes:
    """A text built from the names above, as bytes, because psycopg takes only literals as str. Values are parameters."""
    return text.encode()


def _milliseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _quantiles(samples: list[tuple[float, int]]) -> Latency:
    """Quantiles of values; each value has a number of lines."""
    samples.sort()
    total = sum(lines for _, lines in samples)

    def at(share: float) -> float:
        seen = 0
        for value, lines in samples:
            seen += lines
            if seen >= share * total:
                return round(value, 1)
        return round(samples[-1][0], 1)

    return Latency(at(0.5), at(0.95), at(0.99), round(samples[-1][0], 1))


def _places(rows: list[tuple[str, WarehouseRow]]) -> str:
    return f"{len(rows)} rows ({', '.join(flow for flow, _ in rows)})"


def _words(fates: set[ExpectedFate]) -> str:
    return " or ".join(sorted(f"{fate.flow or 'part of a page view'} ({fate.detail})" for fate in fates))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}... ({len(text)} characters)"
