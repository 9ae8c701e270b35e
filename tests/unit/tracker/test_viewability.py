"""Ad impressions against MRC's rule, read plainly: half of the pixels (30% of a large ad) for one second without a break."""

import random
from itertools import pairwise
from typing import NamedTuple

import pytest

from tests.worlds.page import Browser

SHARES = (0, 0.1, 0.29, 0.3, 0.31, 0.49, 0.5, 0.51, 0.75, 1)


class Ad(NamedTuple):
    """An ad, and the shares of its pixels in view: (time, share)."""

    width: int
    height: int
    shares: list[tuple[int, float]]


class History(NamedTuple):
    """Three ads on a page that is hidden and shown again; times differ by at least 7 ms, so nothing happens at once."""

    ads: list[Ad]
    shown: list[tuple[int, bool]]
    end: int


def history(seed: int) -> History:
    chance = random.Random(seed)
    sizes = [chance.choice(((300, 250), (728, 90), (970, 249), (970, 250), (485, 500), (1, 242_499))) for _ in range(3)]
    ads = [Ad(*size, [(0, chance.choice(SHARES))]) for size in sizes]
    shown, now = [(0, True)], 0
    for _ in range(chance.randint(2, 30)):
        now += 7 * chance.choice((chance.randint(1, 30), chance.randint(100, 200), chance.randint(140, 146)))
        if chance.random() < 0.15:
            shown.append((now, not shown[-1][1]))
        else:
            ads[chance.randrange(3)].shares.append((now, chance.choice(SHARES)))
    return History(ads, shown, now + chance.randint(1, 2_000))


def viewable_at(ad: Ad, told: History) -> int | None:
    """When the ad had been in view for a second; None if it never was."""
    need = 0.3 if ad.width * ad.height >= 242_500 else 0.5
    changes = sorted({at for at, _ in (*ad.shares, *told.shown)} | {told.end})
    since = None
    for start, stop in pairwise(changes):
        share = [share for at, share in ad.shares if at <= start][-1]
        is_shown = [is_shown for at, is_shown in told.shown if at <= start][-1]
        if share < need or not is_shown:
            since = None
            continue
        since = start if since is None else since
        if stop - since >= 1_000:
            return since + 1_000
    return None


def play(told: History) -> dict[int, int]:
    """The number of each ad that had an impression, and when; no ad has two."""
    browser = Browser()
    ads = [
        {"data": {"ad_slot": str(number), "creative_id": f"c-{number}"}, "width": ad.width, "height": ad.height}
        | {"ratio": ad.shares[0][1]}
        for number, ad in enumerate(told.ads, 1)
    ]
    page = browser.open(ads=ads)
    acts = [(at, "view", number, share) for number, ad in enumerate(told.ads) for at, share in ad.shares[1:]]
    acts += [(at, "show", is_shown) for at, is_shown in told.shown[1:]]
    for at, method, *given in sorted(acts):
        browser.wait(at - browser.now_ms)
        getattr(page, method)(*given)
    browser.wait(told.end - browser.now_ms)
    found = [(event["ad_slot"], event["occurred_at"] - 1_800_000_000_000) for event in browser.of("ad_impression")]
    assert len(found) == len(dict(found))
    return dict(found)


@pytest.mark.parametrize("first", range(0, 500, 50))
def test_impressions_are_those_of_the_rule(first: int) -> None:
    seen = 0
    for seed in range(first, first + 50):
        told = history(seed)
        expected = {n: at for n, ad in enumerate(told.ads, 1) if (at := viewable_at(ad, told)) is not None}
        assert play(told) == expected, seed
        seen += len(expected)
    assert 20 < seen < 130  # of 150 ads: neither all nor none


def test_an_impression_has_the_fields_of_its_element() -> None:
    browser = Browser()
    data = {"ad_slot": "2", "creative_id": "c-9", "revenue_micros": "1200", "currency": "EUR", "campaign_id": "007"}
    browser.open(ads=[{"data": data, "width": 300, "height": 250, "ratio": 1}])
    browser.wait(1_100)
    (event,) = browser.of("ad_impression")
    assert {name: event[name] for name in data} == data | {"ad_slot": 2, "revenue_micros": 1200}


def test_an_ad_without_a_price_names_none() -> None:
    browser = Browser()
    browser.open(ads=[{"data": {"ad_slot": "1"}, "width": 300, "height": 250, "ratio": 1}])
    browser.wait(1_100)
    assert browser.of("ad_impression")[0]["revenue_micros"] is None  # JSON's null: the field is absent
