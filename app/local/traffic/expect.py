"""The expected result of every sent line, from the real times of its sending and its answer.

The join uses the collector's clock at a moment between a request's sending and its answer. If every moment of these
intervals leads to the same result, the result is certain. If a stall allows more than one result, any of them is right and
the event counts as unsure. A caller that knows the exact moments gives them (`ExpectedArrival`): then only blocks that
reached Kinesis too late are unsure.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Final, NamedTuple

import msgspec

from app.local.traffic.send import Interval, SentEvent, SentRequest
from app.local.traffic.stories import Timing

FLOWS: Final = ("page_views", "ad_impressions", "ad_clicks", "redirects", "engagements", "rejected")
_FLOW_OF: Final = {
    "page_view": "page_views", "ad_impression": "ad_impressions", "ad_click": "ad_clicks", "redirect": "redirects",
}  # fmt: skip
MAX_CORNERS: Final = 10
"""Most copies of first and second events of one page view whose intervals are combined (2 to the power of)."""


class ExpectedArrival(NamedTuple):
    """The time when the copy of an event that counts was received, ms; an interval if the moment is not known."""

    first_ms: int
    last_ms: int
    is_late: bool
    """The copy reached Kinesis later than that time plus the slack: its page view may have been decided without it (rule
    J3)."""


class ExpectedFate(msgspec.Struct, frozen=True):
    """A possible result of an event."""

    flow: str | None
    """The flow that has its row; None if the event is a second that is part of its first's row."""
    detail: str | None = None
    """An engagement's reason; for a page view the event_id of the second it took; `bot`."""


class Expectations(msgspec.Struct):
    """The expected result of a run."""

    fates: dict[str, set[ExpectedFate]]
    """event_id -> its possible results; only one if it is certain."""
    malformed: int
    duplicates: int
    unsure_lines: int
    """Lines that may be in the pipeline once more, after a failed attempt."""

    @property
    def unsure_events(self) -> int:
        """Events with more than one right result."""
        return sum(len(fates) > 1 for fates in self.fates.values())

    def rows(self) -> dict[str, tuple[int, int]]:
        """Flow -> least and most rows."""
        least, most = Counter[str](), Counter[str]()
        for fates in self.fates.values():
            flows = {fate.flow for fate in fates}
            for flow in flows - {None}:
                most[str(flow)] += 1
                least[str(flow)] += len(flows) == 1
        least["rejected"] += self.malformed
        most["rejected"] += self.malformed + self.unsure_lines
        return {flow: (least[flow], most[flow]) for flow in FLOWS}

    def joined(self) -> tuple[int, int]:
        """Least and most page views with a second."""
        firsts = [[fate.detail is not None for fate in fates] for fates in self.fates.values() if _is_first(fates)]
        return sum(all(took) for took in firsts), sum(any(took) for took in firsts)


class Summary(msgspec.Struct, frozen=True):
    """The sent lines of a run and the expected result, in numbers; a pair is a least and a most, after a stall."""

    lines: int
    requests: int
    retries: int
    duplicates: int
    bots: int
    malformed: int
    joined: int | tuple[int, int]
    rows: dict[str, int | tuple[int, int]]
    unsure_events: int
    unsure_lines: int
    took_s: float
    slowest_answer_s: float


def expect(sent: SentRequest, timing: Timing, arrived: Mapping[str, ExpectedArrival] | None = None) -> Expectations:
    """The expected result of all lines in `sent` on a stack that joins by `timing`.

    Args:
        sent: the run.
        timing: the join's rules.
        arrived: event id -> the exact time of its receipt, if known.
    """
    fates: dict[str, set[ExpectedFate]] = {}
    views: dict[str, tuple[list[SentEvent], list[SentEvent]]] = defaultdict(lambda: ([], []))
    for event in sent.events.values():
        facts = event.facts
        if facts.is_bot:
            fates[facts.event_id] = {ExpectedFate("rejected", "bot")}
        elif facts.event_type in {"page_view", "engagement"}:
            views[facts.page_view_id or ""][facts.event_type == "engagement"].append(event)
        else:
            fates[facts.event_id] = {ExpectedFate(_FLOW_OF[facts.event_type])}
    for firsts, seconds in views.values():
        _judge(firsts, seconds, timing, fates, arrived or {})
    duplicates = sum(event.copies - 1 for event in sent.events.values())
    return Expectations(fates, len(sent.malformed), duplicates, sent.unsure_lines)


def summarise(sent: SentRequest, expected: Expectations) -> Summary:
    """The numbers of a run."""
    return Summary(
        lines=sent.lines, requests=sent.requests, retries=sent.retries, duplicates=expected.duplicates,
        bots=sum(event.facts.is_bot for event in sent.events.values()), malformed=expected.malformed,
        joined=_one(expected.joined()), rows={flow: _one(bounds) for flow, bounds in expected.rows().items()},
        unsure_events=expected.unsure_events, unsure_lines=expected.unsure_lines, took_s=round(sent.took_s, 1),
        slowest_answer_s=round(sent.slowest_answer_s, 2),
    )  # fmt: skip


def _one(bounds: tuple[int, int]) -> int | tuple[int, int]:
    return bounds[0] if bounds[0] == bounds[1] else bounds


def _is_first(fates: Iterable[ExpectedFate]) -> bool:
    return any(fate.flow == "page_views" for fate in fates)


def _judge(
    firsts: list[SentEvent], seconds: list[SentEvent], timing: Timing, fates: dict[str, set[ExpectedFate]],
    arrived: Mapping[str, ExpectedArrival],
) -> None:  # fmt: skip
    """Add the results of one page view's events: for every corner of their intervals, and for a late block."""
    events = [*firsts, *seconds]
    known = [found for event in events if (found := arrived.get(event.facts.event_id)) is not None]
    moments: list[Sequence[int]] = [_moments(event, arrived) for event in events]
    if 2 ** sum(len(choice) > 1 for choice in moments) > 2**MAX_CORNERS:
        moments = [choice[:1] for choice in moments]
    for corner in product(*moments):
        received = dict(zip((event.facts.event_id for event in events), corner, strict=True))
        for event_id, fate in _settle(firsts, seconds, received, timing).items():
            fates.setdefault(event_id, set()).add(fate)
    if any(arrival.is_late for arrival in known):
        _admit_any_order(firsts, seconds, fates)
    if len(known) < len(events):
        for first in firsts:
            for second in seconds:
                _admit_late_block(first, second, timing, fates)


def _moments(event: SentEvent, arrived: Mapping[str, ExpectedArrival]) -> Sequence[int]:
    received: Interval | ExpectedArrival = arrived.get(event.facts.event_id) or event.received
    return sorted({received.first_ms, received.last_ms})


def _settle(
    firsts: list[SentEvent], seconds: list[SentEvent], received: dict[str, int], timing: Timing
) -> dict[str, ExpectedFate]:
    """The results of one page view's events, each received at one moment: the join in a dozen lines."""

    def by_time(event: SentEvent) -> tuple[int, str]:
        return received[event.facts.event_id], event.facts.event_id

    found = {event.facts.event_id: ExpectedFate("page_views") for event in firsts}
    if not firsts:
        return found | {event.facts.event_id: ExpectedFate("engagements", "no_first") for event in seconds}
    first = min(firsts, key=by_time).facts.event_id
    opens = received[first] - timing.reorder_s * 1000
    closes = received[first] + (timing.window_s + timing.grace_s) * 1000
    able = sorted((event for event in seconds if opens <= received[event.facts.event_id] <= closes), key=by_time)
    for event in seconds:
        moment = received[event.facts.event_id]
        reason = "late" if moment > closes else "no_first" if moment < opens else "extra"
        found[event.facts.event_id] = ExpectedFate("engagements", reason)
    if able:
        found[able[-1].facts.event_id] = ExpectedFate(None)
        found[first] = ExpectedFate("page_views", able[-1].facts.event_id)
    return found


def _admit_late_block(first: SentEvent, second: SentEvent, timing: Timing, fates: dict[str, set[ExpectedFate]]) -> None:
    """Allow the results of a block that reached Kinesis after the slack: its answer came late too."""
    opened, closed = first.received, second.received
    after_ms = (timing.window_s + timing.grace_s + timing.slack_s) * 1000
    if closed.last_ms > opened.first_ms + after_ms:
        fates[first.facts.event_id].add(ExpectedFate("page_views"))
        fates[second.facts.event_id].add(ExpectedFate("engagements", "late"))
    if opened.last_ms > closed.first_ms + (timing.reorder_s + timing.slack_s) * 1000 and opened.first_ms > closed.first_ms:
        fates[first.facts.event_id].add(ExpectedFate("page_views"))
        fates[second.facts.event_id].add(ExpectedFate("engagements", "no_first"))


def _admit_any_order(firsts: list[SentEvent], seconds: list[SentEvent], fates: dict[str, set[ExpectedFate]]) -> None:
    """Allow the results of a page view if some of its blocks came after its decision: still one result for each event."""
    if not firsts or not seconds:
        return
    for first in firsts:
        fates[first.facts.event_id] |= {ExpectedFate("page_views")}
        fates[first.facts.event_id] |= {ExpectedFate("page_views", second.facts.event_id) for second in seconds}
    for second in seconds:
        fates[second.facts.event_id] |= {
            ExpectedFate(None),
            *(ExpectedFate("engagements", reason) for reason in ("late", "no_first", "extra")),
        }
