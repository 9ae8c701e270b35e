"""Any bytes are a line: one verdict, one stored form, the same on both ways of reading."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.events import canonical_json
from app.core.events.fields import EVENT_TYPES, FIELDS, INT64, STORED_FIELDS
from app.core.events.read_stored import read_stored_line
from app.errors import FormatInvalid
from tests.builders.events import event, parse, text

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=4),
    max_leaves=12,
)
plausible = st.fixed_dictionaries(
    {
        "event_type": st.sampled_from(EVENT_TYPES),
        "event_id": st.from_regex(r"[\w-]{1,64}\Z"),
        "occurred_at": st.just(10**12),
    },
    optional={
        "page_view_id": st.just("p1"),
        "properties": st.dictionaries(st.text(max_size=5), anything, max_size=3),
        "unknown": anything,
        "url": st.text(st.characters(codec=None)),
        "dwell_ms": st.integers(-5, 2**64) | st.floats(0, 10),
        "received_at": anything,
        "ip": anything,
        **{name: anything for name in ("visitor_id", "ad_slot", "webdriver", "revenue_micros")},
    },
)
json_text = st.builds(
    lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass"),
    plausible | anything,
    st.booleans(),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    line = bytearray(draw(json_text))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(line)))
        line[place : place + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=2) | st.sampled_from([b"1e999", b"NaN", b"\\u"])
        )
    return bytes(line)


@settings(max_examples=300, deadline=None)
@given(damaged() | st.binary(max_size=200), st.sampled_from(["browser", "server"]))
@example(b'{"a":1e400}', "browser")
@example(b"9" * 5000, "browser")
def test_any_bytes_are_stored_in_a_form_that_reads_back(line, kind):
    parsed = parse(line, kind)
    stored = json.loads(parsed.data)
    assert b"\n" not in parsed.data
    assert stored.keys() <= STORED_FIELDS.keys()
    assert parsed.valid == ("malformed" not in stored)
    assert parsed.reason == stored.get("malformed")
    assert parsed.valid or parsed.key == line
    assert "\x00" not in "".join(value for value in stored.values() if isinstance(value, str))
    again = read_stored_line(parsed.data)
    assert {name: value for name, value in again.items() if value is not None} == stored
    for name, value in stored.items():
        if isinstance(value, int) and not isinstance(value, bool):
            assert INT64[0] <= value <= INT64[1], name


@settings(max_examples=500, deadline=None)
@given(damaged() | st.binary(max_size=60))
@example(b'{"a":-0,"b":-0.0,"c":1E5,"d":1e-400}')
@example(b'{"a":1,"b":2,"a":3}')
@example(b'{"a":"\\u0000"}')
@example(b" {} \r")
def test_the_fast_reading_is_the_exact_one_or_none_at_all(line):
    fast = canonical_json.decode_fast(line)
    try:
        exact = canonical_json.decode_exact(line)
    except FormatInvalid:
        assert fast is None
        return
    if fast is not None:
        assert canonical_json.encode(fast) == canonical_json.encode(exact)


@settings(max_examples=200, deadline=None)
@given(json_text)
def test_a_line_is_stored_alike_on_both_ways(line):
    quick = parse(line)
    original = canonical_json.decode_fast
    canonical_json.decode_fast = lambda _: None
    try:
        slow = parse(line)
    finally:
        canonical_json.decode_fast = original
    assert quick == slow


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=8), anything, max_size=5), st.sampled_from(EVENT_TYPES))
def test_nothing_of_a_valid_event_is_lost(extra, event_type):
    unknown = {name: value for name, value in extra.items() if name not in {*FIELDS, "ip", "user_agent"}}
    line = text(event(event_type, properties={"own": 1}) | unknown)
    clean = json.loads(line)
    stored = json.loads(parse(line).data)
    if "malformed" not in stored:
        kept = json.loads(stored["properties"])
        assert kept["own"] == clean["properties"]["own"] == 1
        expected = {canonical_json.storable_text(name): name for name in unknown if name != "own"}
        assert set(expected) <= set(kept)
        for name, source in expected.items():
            if "\\u" not in json.dumps(clean[source]):
                assert kept[name] == clean[source]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_reading_a_stored_line_never_fails(line):
    assert set(read_stored_line(line)) == set(STORED_FIELDS)
