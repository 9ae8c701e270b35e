"""Engaged, visible and dwell time and the depth of scrolling against a plain reading of their definitions."""

import pytest

from tests.worlds.page import Browser
from tests.worlds.reading import Reader, truth


def play(reader: Reader, *, has_fetch_later: bool) -> Browser:
    browser = Browser(has_fetch_later=has_fetch_later)
    page = browser.open()
    visible = focused = True
    for at, act in reader.acts:
        browser.wait(at - browser.now_ms)
        if act == "hidden":
            if visible and focused:
                page.focus(False)
            visible = not visible
            page.show(visible)
            focused = visible
            if visible:
                page.focus(True)
        elif act == "focus":
            focused = not focused and visible
            page.focus(focused)
        else:
            page.fire(act)
    browser.wait(reader.end - browser.now_ms)
    page.leave()
    browser.wait(100)
    return browser


@pytest.mark.parametrize("has_fetch_later", [True, False])
@pytest.mark.parametrize("first", range(0, 100, 25))
def test_reports_say_what_is_true(first: int, *, has_fetch_later: bool) -> None:
    for seed in range(first, first + 25):
        reader = Reader.of(seed)
        reports = play(reader, has_fetch_later=has_fetch_later).of("engagement")
        engaged, visible, dwell = truth(reader)
        last = max(reports, key=lambda report: report["dwell_ms"])
        assert (last["engaged_ms"], last["visible_ms"]) == (engaged, visible), seed
        hidden_at_end = not reader.states()[-1][1]
        assert last["dwell_ms"] == dwell or (hidden_at_end and last["dwell_ms"] < dwell), seed
        assert max(report["engaged_ms"] for report in reports) == engaged, seed


def test_an_idle_reader_is_engaged_for_five_seconds() -> None:
    browser = Browser()
    page = browser.open()
    browser.wait(60_000)
    page.leave()
    (report,) = browser.of("engagement")
    assert (report["engaged_ms"], report["visible_ms"], report["dwell_ms"]) == (5_000, 60_000, 60_000)


def test_a_page_that_is_opened_behind_others_is_not_seen() -> None:
    browser = Browser()
    page = browser.open(hidden=True, focused=False)
    browser.wait(100_000)
    page.leave()
    (report,) = browser.of("engagement")
    assert (report["engaged_ms"], report["visible_ms"], report["dwell_ms"]) == (0, 0, 90_000)


def test_the_deepest_place_that_was_seen_counts() -> None:
    browser = Browser()
    page = browser.open(scrollHeight=2_000)  # the window is 500 high
    browser.wait(1_000)
    for y in (700, 1_100, 0):
        page.scroll(y)
    browser.wait(10)
    page.leave()
    assert browser.of("engagement")[0]["scroll_pct"] == 80
