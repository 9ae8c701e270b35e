"""What the generator expects: the fates of page views by when their events were really received, and rows by content."""

import json

import pytest

from app.local.traffic.compare import Comparing, Comparison
from app.local.traffic.content import BOTS, HUMANS
from app.local.traffic.expect import ExpectedArrival, ExpectedFate, expect, summarise
from app.local.traffic.rows import payload_of, row_of, storable
from app.local.traffic.send import Interval, SentEvent, SentMalformed, SentRequest
from app.local.traffic.stories import EventFacts, Timing

TIMING = Timing(window_s=90, grace_s=30, reorder_s=10, slack_s=2)
JOINED, ALONE = ExpectedFate(None), ExpectedFate("page_views")


def event(event_id: str, event_type: str = "page_view", at_s: float = 0, *, view: str = "p1", answer_s: float = 0, **fields):
    sent = {
        "event_id": event_id,
        "event_type": event_type,
        "page_view_id": view,
        "occurred_at": 5,
        "visitor_id": "v",
    } | fields
    bot = fields.get("webdriver", False)
    facts = EventFacts(event_id, event_type, view, bot)
    received = Interval(int(at_s * 1000), int((at_s + answer_s) * 1000))
    return SentEvent(facts, json.dumps(sent).encode(), HUMANS[0], received)


def second(event_id: str, at_s: float, **more):
    return event(event_id, "engagement", at_s, **more)


def fates(*events: SentEvent) -> dict[str, set[ExpectedFate]]:
    return expect(SentRequest(0, events={one.facts.event_id: one for one in events}), TIMING).fates


@pytest.mark.parametrize(
    ("at_s", "first_fate", "second_fate"),
    [
        (90, ExpectedFate("page_views", "s"), JOINED),
        (120, ExpectedFate("page_views", "s"), JOINED),
        (120.001, ALONE, ExpectedFate("engagements", "late")),
        (-10, ExpectedFate("page_views", "s"), JOINED),
        (-10.001, ALONE, ExpectedFate("engagements", "no_first")),
    ],
)
def test_bounds_of_the_join(at_s, first_fate, second_fate):
    assert fates(event("f"), second("s", at_s)) == {"f": {first_fate}, "s": {second_fate}}


def test_a_view_without_a_second_and_a_second_without_a_view():
    assert fates(event("f"), second("s", 90, view="p2")) == {"f": {ALONE}, "s": {ExpectedFate("engagements", "no_first")}}


def test_the_last_second_joins_and_the_other_is_extra():
    found = fates(event("f"), second("s2", 90), second("s1", 91))
    assert found == {"f": {ExpectedFate("page_views", "s1")}, "s1": {JOINED}, "s2": {ExpectedFate("engagements", "extra")}}


def test_the_earliest_of_two_firsts_joins():
    found = fates(event("f2", at_s=1), event("f1"), second("s", 90))
    assert found == {"f1": {ExpectedFate("page_views", "s")}, "f2": {ALONE}, "s": {JOINED}}


def test_bots_never_join():
    found = fates(event("f", webdriver=True), second("s", 90))
    assert found == {"f": {ExpectedFate("rejected", "bot")}, "s": {ExpectedFate("engagements", "no_first")}}


def test_a_stall_across_a_bound_admits_both_ends():
    found = fates(event("f"), second("s", 119, answer_s=2))
    assert found["s"] == {JOINED, ExpectedFate("engagements", "late")}
    assert found["f"] == {ALONE, ExpectedFate("page_views", "s")}


def test_a_block_that_may_have_come_after_the_slack_admits_late():
    assert fates(event("f"), second("s", 100, answer_s=23))["s"] >= {JOINED, ExpectedFate("engagements", "late")}
    assert fates(event("f"), second("s", 90, answer_s=5))["s"] == {JOINED}


def test_summary_counts_copies_bots_and_rows():
    again = event("a", "ad_click", view="p9")
    again.copies = 3
    events = [event("f"), second("s", 90), event("b", webdriver=True), again]
    sent = SentRequest(
        0, events={one.facts.event_id: one for one in events}, malformed=[SentMalformed(b"x", "line", False)], lines=7
    )
    summary = summarise(sent, expect(sent, TIMING))
    assert (summary.lines, summary.duplicates, summary.bots, summary.malformed, summary.joined) == (7, 2, 1, 1, 1)
    assert summary.rows == {
        "page_views": 1, "ad_impressions": 0, "ad_clicks": 1, "redirects": 0, "engagements": 0, "rejected": 2,
    }  # fmt: skip


# --- content


def test_texts_that_cannot_be_stored():
    assert storable({"a\x00": ["\ud83d", "🚀", None]}) == {"a\ufffd": ["\ufffd", "🚀", None]}


def test_a_row_has_nulls_for_empty_texts_and_keeps_the_rest_in_properties():
    row = row_of(event("f", url="", section="x", scroll_pct=7, sdk="1", properties={"sdk": "own", "n": 1e3}), None)
    assert (row["url"], row["section"], row["joined"], row["engagement_id"]) == (None, "x", False, None)
    assert row["properties"] == {"scroll_pct": 7, "sdk": "own", "n": 1000}


def test_a_campaign_comes_from_the_url_where_the_event_has_none():
    url = "https://example.com/?utm_campaign=autumn"
    assert row_of(event("f", url=url), None)["campaign_id"] == "autumn"
    assert row_of(event("f", url=url, campaign_id="own"), None)["campaign_id"] == "own"


def test_a_row_has_what_its_url_and_browser_say():
    url = "https://www.example.com/a/b?UTM_Source=News&utm_medium=m&utm_term=two+words&utm_content=&msclkid=m1"
    row = row_of(event("f", url=url, title="T", screen_width=9), None)
    assert (row["host"], row["path"], row["title"], row["screen_width"]) == ("www.example.com", "/a/b", "T", 9)
    tags = (row["utm_source"], row["utm_medium"], row["utm_term"], row["utm_content"])
    assert tags == ("News", "m", "two words", None)
    assert (row["click_id"], row["click_id_source"], row["campaign_id"]) == ("m1", "microsoft", None)
    assert (row["browser_version"], row["os_version"], row["user_agent"]) == ("141.0.0.0", "10", HUMANS[0].text)
    paid = row_of(event("r", "redirect", url="https://example.com", currency="gbp"), None)
    assert (paid["path"], paid["currency"], paid["properties"]) == ("/", "GBP", None)


def test_a_joined_row_has_all_fields_of_its_second():
    row = row_of(event("f"), second("s", 90, dwell_ms=2**63 - 1, scroll_pct=0, properties={"k": "v"}))
    assert (row["engagement_id"], row["dwell_ms"], row["visible_ms"], row["scroll_pct"]) == ("s", 2**63 - 1, None, 0)
    assert row["engagement_properties"] == {"k": "v"}


def test_payloads_are_cut_at_a_character():
    assert payload_of(SentMalformed(b"\xff ok", "line", False)) == "\ufffd ok"
    assert payload_of(SentMalformed("é".encode() * 4000, "line", False)) == "é" * 2048


# --- the comparison finds what is wrong


def good_row(sent: SentEvent) -> dict[str, object]:
    return row_of(sent, None) | {"received_at": sent.received.first_ms}


def compared(events: list[SentEvent], found: dict[str, list[dict[str, object]]]) -> Comparison:
    sent = SentRequest(0, events={one.facts.event_id: one for one in events})
    result = Comparison(flows={}, joined=None, duplicates=None)  # type: ignore[arg-type]
    rows = {flow: [] for flow in ("page_views", "ad_clicks", "engagements", "rejected")} | found
    Comparing("r1", sent, expect(sent, TIMING), result).compare(rows)
    return result


def counts(result: Comparison) -> tuple[int, int, int]:
    return result.missing, result.extra, result.different


def test_equal_rows_are_equal():
    first = event("f")
    assert counts(compared([first], {"page_views": [good_row(first)]})) == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda row: [], (1, 0, 0)),
        (lambda row: [row, row], (0, 1, 0)),
        (lambda row: [row | {"url": "https://other"}], (0, 0, 1)),
        (lambda row: [row | {"received_at": 99}], (0, 0, 1)),
        (lambda row: [row, row | {"event_id": "unknown"}], (0, 1, 0)),
    ],
)
def test_what_is_missing_doubled_changed_or_unknown_is_found(change, expected):
    first = event("f")
    assert counts(compared([first], {"page_views": change(good_row(first))})) == expected


def test_a_second_that_is_a_row_and_part_of_another_is_extra():
    first, joined = event("f"), second("s", 90)
    row = row_of(first, joined) | {"received_at": 0}
    alone = row_of(joined, None) | {"received_at": 90_000, "reason": "late"}
    assert counts(compared([first, joined], {"page_views": [row]})) == (0, 0, 0)
    assert counts(compared([first, joined], {"page_views": [row], "engagements": [alone]})) == (0, 1, 0)


def test_a_lost_join_is_found():
    first, joined = event("f"), second("s", 90)
    result = compared([first, joined], {"page_views": [good_row(first)]})
    assert counts(result) == (1, 0, 1)


def test_a_bot_must_be_in_rejected_with_its_rule():
    bot = event("b", webdriver=True)
    assert BOTS[0].is_bot
    row = {
        "event_id": "b",
        "event_type": "page_view",
        "kind": "bot",
        "reason": "webdriver",
        "payload": "{}",
        "received_at": 0,
    }
    assert counts(compared([bot], {"rejected": [row]})) == (0, 0, 0)
    assert counts(compared([bot], {"rejected": [row | {"reason": None}]})) == (0, 0, 1)
    assert counts(compared([bot], {"page_views": [good_row(event("b"))]})) == (0, 0, 1)


def test_malformed_lines_are_matched_by_their_mark():
    line = SentMalformed(b"r1-m5 <html>", "line", False)
    row = {"event_id": None, "kind": "malformed", "reason": "line: not JSON", "payload": "r1-m5 <html>", "received_at": 0}
    sent = SentRequest(0, malformed=[line])
    for rows, expected in (
        ([row], (0, 0, 0)),
        ([], (1, 0, 0)),
        ([row, row], (0, 1, 0)),
        ([row | {"reason": "url: x"}], (0, 0, 1)),
    ):
        result = Comparison(flows={}, joined=None, duplicates=None)  # type: ignore[arg-type]
        Comparing("r1", sent, expect(sent, TIMING), result).compare({"page_views": [], "rejected": rows})
        assert counts(result) == expected


# --- with the moments known


def arrived(event_id: str, at_s: float, *, late: bool = False) -> dict[str, ExpectedArrival]:
    return {event_id: ExpectedArrival(round(at_s * 1000), round(at_s * 1000), late)}


def known_fates(arrivals: dict[str, ExpectedArrival], *events: SentEvent) -> dict[str, set[ExpectedFate]]:
    return expect(SentRequest(0, events={one.facts.event_id: one for one in events}), TIMING, arrivals).fates


def test_a_known_moment_settles_what_a_stall_left_open():
    first, stalled = event("f"), second("s", 119, answer_s=40)
    known = known_fates(arrived("f", 0) | arrived("s", 119.5), first, stalled)
    assert known == {"f": {ExpectedFate("page_views", "s")}, "s": {JOINED}}
    known = known_fates(arrived("f", 0) | arrived("s", 121), first, stalled)
    assert known == {"f": {ALONE}, "s": {ExpectedFate("engagements", "late")}}


def test_a_block_that_came_late_to_kinesis_may_miss_its_join_and_nothing_else():
    known = known_fates(arrived("f", 0) | arrived("s", 90, late=True), event("f"), second("s", 90))
    assert known["f"] == {ALONE, ExpectedFate("page_views", "s")}
    assert known["s"] == {JOINED, *(ExpectedFate("engagements", reason) for reason in ("late", "no_first", "extra"))}
    alone = known_fates(arrived("s", 90, late=True), second("s", 90))
    assert alone == {"s": {ExpectedFate("engagements", "no_first")}}
