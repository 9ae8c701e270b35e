"""When a page view begins and ends, what it reports, and when there is none at all."""

import json

import pytest

from app.core.events.parse import parse_line
from tests.worlds.page import EPOCH_MS, Browser


def views(browser: Browser) -> list[tuple[str, str]]:
    return [(event["url"].removeprefix("https://news.example"), event["referrer"]) for event in browser.of("page_view")]


def test_a_page_view_has_the_fields_of_the_tag_and_of_the_browser() -> None:
    browser = Browser()
    browser.open(dataset={"article_id": "a-1", "title": "Mine", "own": "x"}, referrer="https://search.example/")
    (event,) = browser.events
    assert {name: event[name] for name in ("article_id", "title", "own", "referrer", "language", "time_zone")} == {
        "article_id": "a-1", "title": "Mine", "own": "x", "referrer": "https://search.example/", "language": "en",
        "time_zone": "Europe/Zurich",
    }  # fmt: skip
    assert "key" not in event
    assert event["event_id"] == f"{event['page_view_id']}-1"
    assert (event["seq"], event["webdriver"]) == (1, False)


@pytest.mark.parametrize("has_fetch_later", [True, False])
def test_engagement_is_reported_after_90_s_and_at_the_end(*, has_fetch_later: bool) -> None:
    browser = Browser(has_fetch_later=has_fetch_later)
    page = browser.open()
    browser.wait(89_900)
    assert browser.of("engagement") == []
    browser.wait(200)
    assert [event["dwell_ms"] for event in browser.of("engagement")] == [90_000]
    browser.wait(60_000)
    assert len(browser.of("engagement")) == 1
    page.leave()
    assert [event["dwell_ms"] for event in browser.of("engagement")] == [90_000, 150_100]


def test_the_browser_holds_one_report_of_a_page_that_is_hidden_often() -> None:
    browser = Browser()
    page = browser.open()
    for _ in range(3):
        browser.wait(5_000)
        page.show(False)
        browser.wait(2_000)
        page.show(True)
        page.focus(True)
    browser.wait(1_000)
    page.leave()
    (report,) = browser.of("engagement")
    assert (report["visible_ms"], report["engaged_ms"]) == (16_000, 16_000)


def test_without_fetch_later_each_time_hidden_is_a_report_and_the_last_says_most() -> None:
    browser = Browser(has_fetch_later=False)
    page = browser.open()
    for _ in range(3):
        browser.wait(5_000)
        page.show(False)
        browser.wait(2_000)
        page.show(True)
        page.focus(True)
    page.leave()
    assert [report["visible_ms"] for report in browser.of("engagement")] == [5_000, 10_000, 15_000, 15_000]


def test_a_frozen_page_is_reported_by_the_browser() -> None:
    browser = Browser()
    page = browser.open()
    browser.wait(30_000)
    page.show(False)
    browser._do("browser.clock.forget(browser.pages[0])")
    browser.wait(100_000)
    (report,) = browser.of("engagement")
    assert (report["at"], report["dwell_ms"]) == (92_000, 30_000)


def test_what_the_browser_sent_too_early_is_followed_by_another_report() -> None:
    """Dedup keeps the first copy of an id, so the fuller report needs an id of its own."""
    browser = Browser()
    page = browser.open()
    browser.wait(1_000)
    page.releaseAll()
    browser.wait(20_000)
    page.leave()
    assert [event["dwell_ms"] for event in browser.of("engagement")] == [1_000, 21_000]


def test_a_new_path_is_a_page_view_of_its_own() -> None:
    browser = Browser()
    page = browser.open(dataset={"article_id": "a-1"})
    browser.wait(10_000)
    page.go("/b")
    browser.wait(1_000)
    page.push("view", {"article_id": "a-2"})
    browser.wait(1_000)
    assert views(browser) == [("/a", ""), ("/b", "https://news.example/a"), ("/b", "https://news.example/b")]
    assert [event.get("article_id") for event in browser.of("page_view")] == ["a-1", None, "a-2"]
    assert [event["dwell_ms"] for event in browser.of("engagement")] == [11_000, 0]


def test_a_new_path_that_is_left_within_a_second_counts() -> None:
    browser = Browser()
    page = browser.open()
    browser.wait(10_000)
    page.go("/b")
    page.leave()
    browser.open()
    assert [path for path, _ in views(browser)] == ["/a", "/b", "/a"]


def test_a_return_from_the_bfcache_is_a_new_view() -> None:
    browser = Browser()
    page = browser.open(dataset={"article_id": "a-1"}, ads=[{"data": {"ad_slot": "1"}, "width": 9, "height": 9, "ratio": 1}])
    browser.wait(10_000)
    page.leave({"bfcache": True})
    browser.wait(60_000)
    page.restore()
    browser.wait(4_000)
    page.leave()
    assert [event["article_id"] for event in browser.of("page_view")] == ["a-1", "a-1"]
    assert [event["dwell_ms"] for event in browser.of("engagement")] == [10_000, 4_000]
    assert len(browser.of("ad_impression")) == 2
    assert [event["seq"] for event in sorted(browser.events, key=lambda event: event["seq"])] == [1, 2, 3, 4, 5, 6]


def test_a_prerendered_page_does_nothing_until_it_is_shown() -> None:
    browser = Browser()
    page = browser.open(prerendering=True)
    browser.wait(10_000)
    assert (browser.requests, browser.storage, page.session) == ([], {}, {})
    page.set("document.prerendering", False)
    page.fire("prerenderingchange")
    browser.wait(2_000)
    page.leave()
    assert [event["dwell_ms"] for event in browser.of("engagement")] == [2_000]


def test_a_reader_who_refuses_while_a_page_is_prerendered_is_not_known_after() -> None:
    browser = Browser()
    page = browser.open(prerendering=True, queued=[["consent", False]])
    page.set("document.prerendering", False)
    page.fire("prerenderingchange")
    browser.wait(5_000)
    assert (browser.requests, browser.storage) == ([], {})


@pytest.mark.parametrize("refusal", [{"gpc": True}, {"dnt": "1"}, {"dataset": {"consent": ""}}])
def test_without_permission_nothing_is_sent_or_stored(refusal: dict[str, object]) -> None:
    browser = Browser(storage={"instream.id": "v", "instream.e.1": "{}", "theirs": "x"} if "dataset" not in refusal else {})
    page = browser.open(queued=[["send", "ad_click", {"ad_slot": 1}], ["view", {}]], **refusal)
    browser.wait(5_000)
    page.fire("scroll")
    page.leave()
    assert browser.requests == []
    assert browser.storage == ({"theirs": "x"} if "dataset" not in refusal else {})
    assert page.session == {}


def test_global_privacy_control_outweighs_consent() -> None:
    browser = Browser()
    browser.open(gpc=True, dataset={"consent": ""}, queued=[["consent", True]])
    browser.wait(5_000)
    assert (browser.requests, browser.storage) == ([], {})


def test_consent_starts_the_tracker_and_its_end_removes_everything() -> None:
    browser = Browser()
    page = browser.open(dataset={"consent": "wait", "section": "news"})
    browser.wait(5_000)
    page.push("consent", True)
    page.push("consent", True)
    browser.wait(2_000)
    assert [event["section"] for event in browser.of("page_view")] == ["news"]
    browser.network(delay=500)
    page.push("send", "ad_click", {"ad_slot": 1})
    page.push("consent", False)
    sent = len(browser.requests)
    browser.wait(100_000)
    page.leave()
    assert (browser.storage, page.session) == ({}, {})
    assert len(browser.requests) == sent
    page = browser.open(dataset={"consent": "wait"}, queued=[["consent", True]])
    browser.wait(100)
    first, second = browser.of("page_view")
    assert first["visitor_id"] != second["visitor_id"]
    assert first["tab"] != second["tab"]


def test_the_collectors_cookie_decides_who_the_visitor_is() -> None:
    browser = Browser()
    browser.open(cookie="theme=dark; instream_id=c-77; x=1")
    browser.wait(100)
    assert {event["visitor_id"] for event in browser.events} == {"c-77"}


def test_a_visitor_and_a_tab_keep_their_ids() -> None:
    browser = Browser()
    for session in "aab":
        browser.open(session).leave()
        browser.wait(1_000)
    shown = [(event["visitor_id"], event["tab"]) for event in browser.of("page_view")]
    assert len({visitor for visitor, _ in shown}) == 1
    assert [tab for _, tab in shown].count(shown[0][1]) == 2


def test_events_go_where_the_tag_says() -> None:
    browser = Browser()
    browser.open(dataset={"endpoint": "https://other.example/in"})
    assert browser.requests[0]["url"] == "https://other.example/in?key=demo"


def test_a_report_is_a_valid_event() -> None:
    browser = Browser()
    page = browser.open()
    browser.wait(1_234)
    page.leave()
    report = browser.of("engagement")[0]
    assert set(json.loads(json.dumps(report))) == {
        "event_id", "event_type", "page_view_id", "occurred_at", "visitor_id", "webdriver", "tab", "seq", "dwell_ms",
        "visible_ms", "engaged_ms", "scroll_pct", "at",
    }  # fmt: skip


def test_a_collector_keeps_what_the_view_of_losses_reads() -> None:
    """Column `properties` has tab and seq in the form that `analytics.browser_loss` searches."""
    browser = Browser()
    browser.open()
    text = json.dumps({name: value for name, value in browser.events[0].items() if name != "at"}).encode()
    line = json.loads(parse_line(text, "browser", EPOCH_MS, None, None).data)
    assert "malformed" not in line
    assert "invalid_fields" not in line
    assert '"tab":"1800000000000-1-2-3"' in line["properties"]
    assert json.loads(line["properties"])["seq"] == 1
