"""The listener to ad servers: what Google Publisher Tag and Prebid show becomes attributes of the slot's element."""

import json
from typing import Any

import pytest
import quickjs

from app.tracker import read_script

WINDOW = """
const elements = Object.fromEntries(["top", "side", "foot", "more"].map((id) => [id, { id, dataset: {} }]));
const document = { getElementById: (id) => elements[id] || null };
const listeners = {}, window = globalThis;
const library = {
  pubads: () => ({ addEventListener: (name, run) => (listeners[name] = run) }),
  onEvent: (name, run) => (listeners[name] = run),
};
const rendered = (id, rest) => listeners.slotRenderEnded({ slot: { getSlotElementId: () => id }, isEmpty: false, ...rest });
// The libraries load: they run what waits, and everything pushed from then on at once.
const load = () => {
  const waiting = [...(globalThis.googletag?.cmd || []), ...(globalThis.pbjs?.que || [])];
  globalThis.googletag = { ...library, cmd: { push: (run) => run() } };
  globalThis.pbjs = { ...library, que: { push: (run) => run() } };
  waiting.forEach((run) => run());
};
"""


class Page:
    def __init__(self, *, libraries_first: bool = False) -> None:
        self._js = quickjs.Context()
        self._js.eval(WINDOW)
        script = read_script("t-ads.js").text.decode()
        self._js.eval(f"load(); {script}" if libraries_first else f"{script}; load()")

    def do(self, code: str) -> None:
        self._js.eval(code)

    def of(self, element: str) -> dict[str, Any]:
        return json.loads(self._js.eval(f"JSON.stringify(elements.{element}.dataset)"))


@pytest.mark.parametrize("libraries_first", [True, False])
def test_a_bid_that_won_names_slot_creative_and_price(*, libraries_first: bool) -> None:
    page = Page(libraries_first=libraries_first)
    page.do("rendered('top', {creativeId: 138}); rendered('side', {sourceAgnosticCreativeId: 7})")
    page.do("listeners.bidWon({adUnitCode: 'side', creativeId: 'cr-1', cpm: 1.2344, currency: 'EUR'})")
    assert page.of("top") == {"ad_slot": 1, "creative_id": 138}
    assert page.of("side") == {
        "ad_slot": 2,
        "creative_id": "cr-1",
        "revenue_micros": 1234,
        "currency": "EUR",
    }  # of one of 1,000


def test_an_ad_that_replaces_another_has_not_its_price() -> None:
    page = Page()
    page.do("rendered('top', {creativeId: 1})")
    page.do("listeners.bidWon({adUnitCode: 'top', creativeId: 'cr-1', cpm: 2, currency: 'EUR'})")
    page.do("rendered('top', {creativeId: 2})")
    assert page.of("top") == {"ad_slot": 1, "creative_id": 2, "currency": "EUR"}


def test_three_slots_are_numbered_and_the_pages_own_numbers_stay() -> None:
    page = Page()
    page.do("elements.side.dataset.ad_slot = '3'")
    page.do("for (const id of ['top', 'side', 'foot', 'more', 'nowhere']) rendered(id, {creativeId: id})")
    assert [page.of(id).get("ad_slot") for id in ("top", "side", "foot", "more")] == [1, "3", 3, None]


def test_a_slot_that_stays_empty_is_none() -> None:
    page = Page()
    page.do("rendered('top', {isEmpty: true})")
    assert page.of("top") == {}
