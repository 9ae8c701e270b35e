"""An optional field that breaks its rule costs that field only; a value whose meaning is plain is mended."""

import json

import pytest

from app.core.events.fields import EVENT_TYPES, FIELDS
from tests.builders.events import NOW_MS, event, parse, reason, stored, text

DAY_MS = 86_400_000
LONG = 2**63
COSTLY = [
    ("visitor_id", "v" * 65, "longer than 64 bytes"),
    ("visitor_id", True, "not a string"),
    ("visitor_id", 0.5, "not a string"),
    ("visitor_id", 10**64, "longer than 64 bytes"),
    ("referrer", [], "not a string"),
    ("section", "s" * 129, "longer than 128 bytes"),
    ("section", 17, "not a string"),
    ("dwell_ms", -1, f"not from 0 to {LONG - 1}"),
    ("dwell_ms", -1.5, f"not from 0 to {LONG - 1}"),
    ("dwell_ms", "", "not an integer"),
    ("visible_ms", LONG, f"not from 0 to {LONG - 1}"),
    ("visible_ms", "5", "not an integer"),
    ("scroll_pct", -1, "not from 0 to 100"),
    ("scroll_pct", False, "not an integer"),
    ("ad_slot", 0, "not from 1 to 3"),
    ("ad_slot", 4.0, "not from 1 to 3"),
    ("ad_slot", 1.5, "not an integer"),
    ("revenue_micros", -LONG - 1, f"not from {-LONG} to {LONG - 1}"),
    ("revenue_micros", 0.5, "not an integer"),
    ("cost_micros", "1", "not an integer"),
    ("title", "\u00e9" * 257, "longer than 512 bytes"),
    ("language", "x" * 36, "longer than 35 bytes"),
    ("time_zone", "z" * 65, "longer than 64 bytes"),
    ("session_id", True, "not a string"),
    ("screen_width", -1, f"not from 0 to {LONG - 1}"),
    ("screen_width", 1.5, "not an integer"),
    ("viewport_width", "9", "not an integer"),
    ("engaged_ms", -1, f"not from 0 to {LONG - 1}"),
    ("currency", 978, "not a string"),
    ("currency", "EURO", "not three letters"),
    ("currency", "E1R", "not three letters"),
    ("currency", "EUR\n", "not three letters"),
    ("webdriver", 1, "not a boolean"),
    ("webdriver", "", "not a boolean"),
    ("properties", [], "not an object"),
    ("properties", "", "not an object"),
    ("properties", "{}", "not an object"),
]


@pytest.mark.parametrize(("name", "value", "rule"), COSTLY)
@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_broken_rule_costs_its_field_whichever_type_breaks_it(event_type, name, value, rule):
    kept = stored(event(event_type, **{name: value}, unknown=1))
    assert name == "properties" or name not in kept
    assert kept["invalid_fields"] == f"{name}: {rule}"
    assert json.loads(kept["properties"]) == {name: value, "unknown": 1}
    assert (kept["event_id"], kept["occurred_at"]) == ("e1", NOW_MS - 1000)


def test_every_optional_field_is_in_the_table():
    """Texts that are too long are cut; url stands for both."""
    assert {name for name, _, _ in COSTLY} >= {"visitor_id", "referrer", "section", "webdriver", "properties"}
    integers = {name for name, field in FIELDS.items() if field.kind == "integer"}
    assert integers <= {name for name, _, _ in COSTLY}


def test_faults_are_named_in_the_catalogues_order_and_the_rest_of_the_event_lives():
    sent = event("engagement", webdriver=1, scroll_pct=True, dwell_ms=90, visitor_id=[], properties={"visitor_id": "mine"})
    kept = stored(sent)
    faults = "visitor_id: not a string; scroll_pct: not an integer; webdriver: not a boolean"
    assert kept["invalid_fields"] == faults
    assert kept["dwell_ms"] == 90
    assert json.loads(kept["properties"]) == {"webdriver": 1, "scroll_pct": True, "visitor_id": "mine"}


def test_a_page_view_id_that_a_redirect_need_not_have_costs_the_field():
    kept = stored(event("redirect", page_view_id="a b", cost_micros=7))
    assert (kept["cost_micros"], kept.get("page_view_id")) == (7, None)
    assert kept["invalid_fields"] == "page_view_id: characters other than A-Za-z0-9_-"
    assert parse(text(event("redirect", page_view_id="a b"))).key == b"e1"


@pytest.mark.parametrize("name", ["url", "referrer"])
def test_an_address_that_is_too_long_is_cut_at_a_character(name):
    kept = stored(event(**{name: "x" + "\u00e9" * 2048}))
    assert kept[name] == "x" + "\u00e9" * 2047
    assert kept["invalid_fields"] == f"{name}: longer than 4096 bytes"
    assert "properties" not in kept


def test_a_field_without_a_place_in_its_type_keeps_its_value_as_it_came():
    kept = stored(event("engagement", url="x" * 5000, article_id=5, ad_slot=2.0))
    assert json.loads(kept["properties"]) == {"url": "x" * 5000, "article_id": 5, "ad_slot": 2.0}
    assert kept["invalid_fields"] == "url: longer than 4096 bytes"


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("dwell_ms", b"5.0", 5),
        ("dwell_ms", b"1e3", 1000),
        ("dwell_ms", b"90123.4", 90_123),
        ("dwell_ms", b"90123.5", 90_124),
        ("dwell_ms", b"-0.4", 0),
        ("visible_ms", b"0.5", 1),
        ("scroll_pct", b"99.4", 99),
        ("scroll_pct", b"103", 100),
        ("scroll_pct", b"100.5", 100),
        ("scroll_pct", b"1e400", 100),
        ("scroll_pct", b"1" + b"0" * 5000, 100),
    ],
)
def test_a_number_whose_meaning_is_plain_is_mended(name, value, meant):
    line = text(event("engagement", **{name: 77})).replace(b": 77}", b": " + value + b"}")
    kept = json.loads(parse(line).data)
    assert kept[name] == meant
    assert type(kept[name]) is int
    assert "invalid_fields" not in kept
    assert "properties" not in kept


@pytest.mark.parametrize(
    ("value", "rule"), [(b"1e999", "not an integer"), (b"1" + b"0" * 5000, f"not from 0 to {LONG - 1}")]
)
def test_a_number_that_no_machine_holds_keeps_its_digits(value, rule):
    kept = json.loads(parse(text(event("engagement", dwell_ms=77)).replace(b": 77}", b": " + value + b"}")).data)
    assert kept["invalid_fields"] == f"dwell_ms: {rule}"
    assert kept["properties"] == f'{{"dwell_ms":{value.decode()}}}'


@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        *((kind, name) for kind in ("page_view", "ad_click") for name in ("event_id", "page_view_id", "visitor_id")),
        ("page_view", "article_id"),
        ("page_view", "author_id"),
        ("page_view", "campaign_id"),
        ("ad_click", "creative_id"),
    ],
)
@pytest.mark.parametrize(("value", "meant"), [(17, "17"), (17.0, "17"), (10**40, "1" + "0" * 40), (-3, "-3")])
def test_an_id_that_is_a_number_is_its_digits(event_type, name, value, meant):
    kept = stored(event(event_type, **{name: value}))
    assert kept[name] == meant
    assert "invalid_fields" not in kept


@pytest.mark.parametrize(
    ("value", "meant", "rule"),
    [
        (1_749_999_999_000.5, 1_749_999_999_001, None),
        (1_749_999_999_000.0, 1_749_999_999_000, None),
        (1_749_999_999, 1_749_999_999_000, "seconds, not milliseconds"),
        (1_749_999_999.25, 1_749_999_999_250, "seconds, not milliseconds"),
        (1_000_000_000, 1_000_000_000_000, "seconds, not milliseconds"),
        ("2025-06-15T15:06:39Z", 1_749_999_999_000, "ISO 8601, not milliseconds"),
        ("2025-06-15T15:06:39.2505Z", 1_749_999_999_251, "ISO 8601, not milliseconds"),
        ("2025-06-15T17:06:39,25+02:00", 1_749_999_999_250, "ISO 8601, not milliseconds"),
        ("2025-06-15 10:06-0500", 1_749_999_960_000, "ISO 8601, not milliseconds"),
        (" 2025-06-15T15:06:39 ", 1_749_999_999_000, "ISO 8601, not milliseconds"),
        ("2025-06-15", 1_749_945_600_000, "ISO 8601, not milliseconds"),
    ],
)
def test_a_time_in_another_unit_is_read_and_named(value, meant, rule):
    kept = stored(event(occurred_at=value))
    assert kept["occurred_at"] == meant
    assert kept.get("invalid_fields") == (rule and f"occurred_at: {rule}")
    assert "properties" not in kept


@pytest.mark.parametrize("value", [NOW_MS + DAY_MS + 1, 4_083_523_200_000, 4_083_523_200, "2099-05-27T00:00:00Z"])
def test_a_clock_that_is_more_than_a_day_ahead_is_not_believed(value):
    kept = stored(event(occurred_at=value, unknown=1))
    assert kept["occurred_at"] == kept["received_at"] == NOW_MS
    assert kept["invalid_fields"] == "occurred_at: more than a day ahead of received_at"
    assert json.loads(kept["properties"]) == {"occurred_at": value, "unknown": 1}


def test_a_clock_that_is_a_day_ahead_is_believed_and_one_that_is_behind_too():
    for moment in (NOW_MS + DAY_MS, 946_684_800_000):
        kept = stored(event(occurred_at=moment))
        assert (kept["occurred_at"], "invalid_fields" in kept) == (moment, False)


@pytest.mark.parametrize(
    "properties", [{"k": "x" * 32 * 1024, "small": 1}, {"k": "x" * 20_000, "l": "y" * 20_000, "small": 1}]
)
def test_of_properties_that_are_too_long_the_entries_stay_for_which_there_is_room(properties):
    kept = stored(event(properties=properties, unknown=2, section=5))
    assert kept["invalid_fields"] == "section: not a string; properties: longer than 32768 bytes"
    found = json.loads(kept["properties"])
    assert len(kept["properties"].encode()) <= 32 * 1024
    assert found == {name: value for name, value in [*properties.items(), ("unknown", 2), ("section", 5)] if name in found}
    assert found.keys() == {"small", "unknown", "section"} | ({"k"} if len(properties) == 3 else set())


def test_properties_of_exactly_the_longest_length_stay_whole():
    for extra in (0, 1):
        properties = {"a": 1, "k": "x" * (32 * 1024 - len('{"a":1,"k":""}') + extra)}
        kept = stored(event(properties=properties))
        assert ("invalid_fields" in kept) == bool(extra)
        assert json.loads(kept["properties"]) == (properties if not extra else {"a": 1})


def test_a_required_field_is_never_traded_for_an_optional_one():
    assert reason(event(event_id="a b", url=5, dwell_ms="x")) == "event_id: characters other than A-Za-z0-9_-"
    assert reason(event(url=5, dwell_ms="x")) is None


def test_names_of_faults_have_a_bound():
    fields: dict[str, list[int]] = {name: [] for name in FIELDS if name not in event()}
    kept = stored(event(**fields))
    assert len(kept["invalid_fields"].encode()) <= 1024
    assert kept["invalid_fields"].count(": ") == len(fields)


def test_a_client_cannot_forge_the_fields_that_the_collector_adds():
    kept = stored(event(invalid_fields="url: no", key_kind="root"))
    assert kept["key_kind"] == "browser"
    assert "invalid_fields" not in kept
    assert json.loads(kept["properties"]) == {"invalid_fields": "url: no", "key_kind": "root"}
