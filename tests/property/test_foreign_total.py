"""Any foreign event becomes one line that the parser takes: nothing that a client sends raises, or is two lines."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.core.events.foreign import pixel, segment, snowplow
from app.core.events.foreign.mapped import Arrival, Mapped, named
from app.core.events.parse import parse_line
from tests.builders.foreign import AT_MS, SNOWPLOW, base64url, contexts, self_describing

ARRIVAL = Arrival(AT_MS, "made", "visitor")
ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1.5,
        1e300,
        10**30,
        "",
        "a\nb",
        "\ud800",
        "é" * 300,
        "7",
        "0x1",
        "1200x800",
        [],
        {},
        [[]],
        {"a": [1]},
    ]
)
SCALARS = st.one_of(ODD, st.text(max_size=8), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


def objects(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of the names, and values of every kind."""
    return st.dictionaries(st.sampled_from(names), VALUES)


DESCRIBED = st.one_of(
    VALUES,
    st.builds(
        lambda name, data: {"schema": name, "data": data},
        st.sampled_from([f"{SNOWPLOW}/web_page/jsonschema/1-0-0", "iglu:instream/event/jsonschema/1-0-0", "iglu:x"]),
        VALUES | objects("id", "article_id", "engaged_ms", "event_id", "properties"),
    ),
)
AD = objects("bannerId", "zoneId", "cost", "costModel", "campaignId")
HIDDEN = st.one_of(
    VALUES,
    st.lists(DESCRIBED, max_size=3).map(lambda listed: base64url(contexts(*listed))),
    st.builds(
        lambda kind, ad: base64url(self_describing(kind, ad)), st.sampled_from(["ad_click", "ad_impression", "x"]), AD
    ),
)
SNOWPLOW_EVENTS = st.builds(
    lambda event, hidden: {**event, **hidden},
    objects("e", "eid", "dtm", "ttm", "duid", "url", "vp", "ds", "res", "pp_may", "aid", "co", "ue_pr", "page", "a\nb"),
    st.fixed_dictionaries(
        {"e": st.sampled_from(["pv", "pp", "ue", "se"])},
        optional={"cx": HIDDEN, "ue_px": HIDDEN, "dtm": st.just(str(AT_MS))},
    ),
)
SEGMENT_EVENTS = st.builds(
    lambda event, kind: {**event, **kind},
    st.dictionaries(
        st.sampled_from(["messageId", "timestamp", "anonymousId", "properties", "context", "event", "writeKey", "x"]),
        VALUES | objects("page_view_id", "revenue", "page", "screen", "campaign", "ip", "Ad Slot", "dwellMs", "category"),
    ),
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(segment.TYPES) | VALUES, "event": st.just("Ad Viewed")}),
)


def check(found: Mapped) -> None:
    """The line goes through the parser as one line, and what is refused is malformed with that reason."""
    assert b"\n" not in found.line
    line = parse_line(found.line, "browser", AT_MS, None, None)
    if found.refusal is not None:
        assert not line.valid
        line = named(line, found.refusal)
        assert json.loads(line.data)["malformed"] == line.reason == found.refusal
        assert len(found.refusal.encode()) <= 256, "column reason of table rejected"


@given(SNOWPLOW_EVENTS)
def test_any_event_of_snowplow_is_a_line(event):
    found = snowplow.map_event(json.dumps(event).encode(), 0, ARRIVAL)
    assert found.kind in snowplow.KINDS
    check(found)


@given(SEGMENT_EVENTS)
def test_any_event_of_segment_is_a_line(event):
    found = segment.map_event(json.dumps(event).encode(), 0, ARRIVAL)
    assert found.kind in segment.KINDS
    check(found)


@given(
    st.dictionaries(
        st.sampled_from(["url", "event_id", "properties", "occurred_at", "webdriver", "x"]) | st.text(), st.text()
    )
)
def test_any_query_is_a_line(query):
    found = pixel.map_event(pixel.query_body(query, None), 0, ARRIVAL)
    assert found.kind == "page_view"
    check(found)
