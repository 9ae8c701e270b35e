"""Events on their way: nothing is lost, and no id changes, whatever the network does and however a page ends."""

import json
import random

import pytest

from tests.worlds.page import Browser

DAY_MS = 86_400_000


def kept(browser: Browser) -> list[str]:
    """Types of the events that wait in storage, the oldest page view first."""
    return [json.loads(text)["event_type"] for key, text in sorted(browser.storage.items()) if key.startswith("instream.e.")]


def numbers(browser: Browser) -> list[tuple[str, int]]:
    return sorted((event["tab"], event["seq"]) for event in browser.events)


def test_a_page_view_is_sent_at_once_and_leaves_the_queue_with_the_answer() -> None:
    browser = Browser()
    browser.network(delay=300)
    browser.open()
    (request,) = browser.requests
    assert (request["at"], request["url"]) == (0, "https://events.example/v1/events?key=demo")
    browser.wait(299)
    assert kept(browser) == ["page_view"]
    browser.wait(2)
    assert kept(browser) == []


def test_retry_after_is_honoured_on_every_page_of_the_tab() -> None:
    browser = Browser(has_fetch_later=False)
    browser.network(status=503, retry_after="40")
    page = browser.open()
    browser.wait(20_000)
    page.leave()
    browser.open()
    browser.wait(19_000)
    assert [request["at"] for request in browser.requests] == [0]
    browser.network()
    browser.wait(3_000)
    assert min(request["at"] for request in browser.requests[1:]) >= 40_050
    assert len(browser.of("page_view")) == 2


@pytest.mark.parametrize("status", [503, 429, 401, 500])
def test_a_refused_event_is_sent_again_under_its_id(status: int) -> None:
    browser = Browser()
    browser.network(status=status)
    browser.open()
    browser.wait(9_000)
    browser.network()
    browser.wait(5_000)
    first, second = browser.requests
    assert first["events"] == second["events"]
    assert second["at"] - first["at"] >= 10_000  # without Retry-After


def test_a_wait_that_never_ends_stops_no_other_tab() -> None:
    """The clock was set back, or the answer asked for a year."""
    browser = Browser()
    browser.network(status=503, retry_after="31536000")
    browser.open("a").leave()
    browser.network()
    browser.wait(125_000)
    browser.open("b")
    assert len(browser.of("page_view")) == 2


def test_what_a_closed_page_left_over_is_sent_by_the_next_in_its_tab() -> None:
    browser = Browser(has_fetch_later=False)
    browser.network("offline")
    page = browser.open()
    browser.wait(30_000)
    page.leave()
    assert browser.events == []
    browser.network()
    browser.wait(11_000)
    browser.open()
    assert [event["event_type"] for event in browser.of("engagement")] == ["engagement"]
    assert [event["dwell_ms"] for event in browser.of("engagement")] == [30_000]
    assert len(browser.of("page_view")) == 2


def test_what_another_tab_left_over_is_sent_after_two_minutes() -> None:
    browser = Browser(has_fetch_later=False)
    browser.network("offline")
    page = browser.open("a")
    browser.wait(30_000)
    page.leave()
    browser.network()
    browser.open("b")
    browser.wait(110_000)
    assert [event["tab"] for event in browser.of("engagement") if event["dwell_ms"] == 30_000] == []
    browser.wait(15_000)
    assert [event["dwell_ms"] for event in browser.of("engagement")].count(30_000) == 1


def test_a_tab_that_was_hidden_for_long_reports_under_a_new_id() -> None:
    """Another tab has sent its draft; what follows must not hide behind an id that is known."""
    browser = Browser()
    page = browser.open("a")
    browser.wait(95_000)
    page.show(False)
    browser.wait(5_000)
    browser.open("b")
    browser.wait(130_000)
    page.show(True)
    page.focus(True)
    browser.wait(4_000)
    page.leave()
    mine = [event for event in browser.of("engagement") if event["page_view_id"] == browser.events[0]["page_view_id"]]
    assert [event["engaged_ms"] for event in mine] == [5_000, 5_000, 9_000]
    assert [event["visible_ms"] for event in mine] == [90_000, 95_000, 99_000]


def test_at_most_a_hundred_events_wait_and_the_oldest_go() -> None:
    browser = Browser()
    browser.network("offline")
    page = browser.open()
    for number in range(150):
        page.push("view", {"article_id": f"a-{number}"})
        browser.wait(5)
    browser.wait(1_000)
    browser.network()
    browser.wait(30_000)
    views = [event.get("article_id") for event in browser.of("page_view")]
    assert len(browser.events) <= 101
    assert "a-149" in views
    assert "a-0" not in views
    assert max(len(request["events"]) for request in browser.requests) <= 20


def test_an_event_is_dropped_before_its_id_is_forgotten() -> None:
    browser = Browser()
    browser.network("offline")
    browser.open().crash()
    browser.network()
    browser.wait(6 * DAY_MS + 1_000)
    browser.open("another tab")
    browser.wait(3_000)
    assert len(browser.of("page_view")) == 1
    assert kept(browser) == ["engagement"]


def test_a_full_storage_costs_nothing_but_memory() -> None:
    browser = Browser()
    browser._do(
        "browser.localStorage = new Proxy({'instream.id': 'v'}, {set(area, key, value) {"
        " if (key === 'instream.id') return true; throw new Error('QuotaExceededError')}})"
    )
    page = browser.open()
    browser.wait(60_000)
    page.leave()
    assert [event["event_type"] for event in browser.events] == ["page_view", "engagement"]


def test_a_browser_that_gives_no_storage_is_counted_too() -> None:
    browser = Browser()
    browser._do("Object.defineProperty(browser, 'localStorage', {get() { throw new Error('SecurityError') }})")
    page = browser.open()
    browser.wait(60_000)
    page.leave()
    assert [event["event_type"] for event in browser.events] == ["page_view", "engagement"]
    assert len({event["visitor_id"] for event in browser.events}) == 1


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_nothing_is_lost_or_doubled_in_any_history(first: int) -> None:
    """Pages in three tabs, whose network fails in every way and which end in every way; then one page has time."""
    for seed in range(first, first + 20):
        chance = random.Random(seed)
        browser = Browser(has_fetch_later=chance.random() < 0.5)
        views = 0
        for _ in range(chance.randint(3, 12)):
            browser.network(
                chance.choice(("ok", "ok", "offline", "answer lost")),
                chance.choice((200, 200, 503, 429)),
                chance.choice((None, "1", "7", "Thu, 01 Jan 2099 00:00:00 GMT")),
                chance.choice((5, 200, 4_000)),
            )
            page = browser.open(chance.choice("abc"), queued=[["send", "redirect", {"cost_micros": 1}]])
            views += 1
            began = browser.now_ms
            browser.wait(chance.choice((10, 900, 20_000, 89_990, 100_000)))
            if chance.random() < 0.3:
                browser.network()
            if chance.random() < 0.2:
                page.show(False)
                browser.wait(chance.choice((500, 200_000)))
                page.show(True)
            is_left = chance.random() < 0.7 or browser.now_ms < began + 1_000
            if chance.random() < 0.2:
                page.go("/b")
                views += 1
                browser.wait(10 if is_left else 2_000)
            page.leave() if is_left else page.crash()
            browser.wait(chance.choice((0, 5_000, 300_000)))
        browser.network()
        browser.wait(400_000)
        browser.open("last")
        browser.wait(400_000)
        page_views = [event["page_view_id"] for event in browser.of("page_view")]
        assert len(page_views) == len(set(page_views)) == views + 1, seed
        assert {event["page_view_id"] for event in browser.of("engagement")} == set(page_views), seed
        counted = numbers(browser)
        assert len(counted) == len(set(counted)), seed
        for tab in {tab for tab, _ in counted}:
            of_tab = [seq for each, seq in counted if each == tab]
            assert of_tab == list(range(1, len(of_tab) + 1)), seed  # what the view browser_loss counts
