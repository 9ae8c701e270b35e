"""A stored line read again, as the fallback of a columnar reader does."""

import json

import pytest

from app.core.events.fields import STORED_FIELDS
from app.core.events.read_stored import read_stored_line
from tests.builders.events import AGENT, IP, NOW_MS, event, parse, text


@pytest.mark.parametrize("line", [text(event(url="é", properties={"a": [1]})), b"{", b"\xff", text(event(url=5))])
def test_what_the_collector_stores_reads_back_as_it_is(line):
    data = parse(line).data
    fields = read_stored_line(data)
    assert set(fields) == set(STORED_FIELDS)
    assert {name: value for name, value in fields.items() if value is not None} == json.loads(data)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"occurred_at": 1.0}, "occurred_at: not an integer"),
        ({"occurred_at": 2**63}, "occurred_at: not from 946684800000 to 4133980799999"),
        ({"event_id": None}, "event_id: required"),
        ({"page_view_id": None}, "page_view_id: required"),
        ({"received_at": None}, "received_at: required"),
        ({"received_at": "now"}, "received_at: not an integer"),
        ({"properties": {"a": 1}}, "properties: not a string"),
        ({"properties": "[]"}, "properties: not the text of an object"),
        ({"properties": "{"}, "properties: not JSON"),
        ({"ip": 1}, "ip: not a string"),
        ({"user_agent": "x" * 1025}, "user_agent: longer than 1024 bytes"),
        ({"malformed": 1}, "malformed: not a string"),
        ({"malformed": "why", "payload": []}, "payload: not a string"),
    ],
)
def test_a_line_that_is_no_stored_line_becomes_malformed_with_a_reason(change, why):
    data = text({**json.loads(parse(text(event())).data), **change})
    fields = read_stored_line(data)
    assert fields["malformed"] == why
    assert fields["payload"] == data.decode()
    survives = {"event_id": "e1", "event_type": "page_view", "received_at": NOW_MS, "ip": IP, "user_agent": AGENT}
    for name, value in survives.items():
        assert fields[name] == (None if name in change else value)
    assert fields["page_view_id"] is None


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"\xff\xfe", b'{"malformed":"x"}'])
def test_noise_is_a_malformed_line_without_a_time(line):
    fields = read_stored_line(line)
    assert fields["malformed"]
    assert fields["received_at"] is None
