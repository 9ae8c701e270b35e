"""An array of any JSON values is cut into exactly these values, however it is written."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.events.request_body import _cut_exact, split_body
from app.errors import RequestRejected

REFUSALS = {(400, "empty"), (400, "invalid_json"), (400, "not_events"), (413, "too_many_lines")}

text = st.text(st.characters(codec=None), max_size=8)
number = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
value = st.recursive(
    st.none() | st.booleans() | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(value, min_size=1, max_size=6), st.sampled_from([None, 1]), st.sampled_from([(",", ":"), (" ,\t", " :\r\n")])
)
def test_both_ways_of_cutting_give_the_elements(values, indent, separators):
    document = json.dumps(values, indent=indent, separators=separators).encode()
    lines = split_body("application/json", document)
    assert [json.loads(line) for line in lines] == values
    assert list(_cut_exact(document, 10_000)) == lines


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["application/json", "text/plain"]),
    st.binary(max_size=60)
    | st.lists(st.sampled_from(["[", "]", "{", "}", ",", '"a":1', "1", "\n", " "]), max_size=9).map("".join).map(str.encode)
    | st.text('[]{},:"\\ud80 1', max_size=30).map(str.encode),
)
def test_any_body_is_lines_or_refused(content_type, body):
    try:
        lines = split_body(content_type, body, 5)
    except RequestRejected as exc:
        lines, is_named = [], (exc.status, exc.code) in REFUSALS
    else:
        is_named = bool(lines)
    assert is_named
    assert all(line in body for line in lines)
    if content_type == "application/json" or not lines:
        return
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        whole = json.loads(body.decode())
    except ValueError:
        whole = None
    if isinstance(whole, dict | list):
        assert [json.loads(line) for line in lines] == (whole if isinstance(whole, list) else [whole])
    else:
        assert [part for part in (p.removesuffix(b"\r") for p in body.split(b"\n")) if part] == lines
