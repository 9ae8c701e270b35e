"""The visitor behind an event: a browser is its connection, and a server says who its visitor is."""

import json

import pytest

from app.core.events.addresses import MAX_ADDRESS_CHARACTERS, sender_address, without_households
from tests.builders.events import AGENT, IP, NOW_MS, event, parse, stored, text


def test_the_kind_of_key_is_stored():
    assert stored(event())["key_kind"] == "browser"
    assert stored(event(), "server")["key_kind"] == "server"
    assert json.loads(parse(b"{", "server").data)["key_kind"] == "server"


def test_a_browser_keys_ip_and_agent_are_dropped_whatever_they_are():
    kept = stored(event(ip=5, user_agent={"a": 1}))
    assert (kept["ip"], kept["user_agent"]) == (IP, AGENT)
    assert "properties" not in kept
    assert "invalid_fields" not in kept


def test_a_server_key_names_its_users_ip_and_agent():
    kept = stored(event(ip="::ffff:198.51.100.7", user_agent="\u00e9" * 600), "server")
    assert kept["ip"] == "198.51.100.7"
    assert kept["user_agent"] == "\u00e9" * 512
    assert "properties" not in kept


@pytest.mark.parametrize("sent", [{}, {"ip": "", "user_agent": ""}, {"ip": None, "user_agent": " \t"}])
@pytest.mark.parametrize("more", [{}, {"section": 5}, {"occurred_at": "never"}])
def test_a_server_keys_event_has_never_the_address_and_the_library_of_its_sender(sent, more):
    line = text(event() | sent | more)
    assert {"ip", "user_agent"}.isdisjoint(json.loads(parse(line, "server").data))


@pytest.mark.parametrize("line", [b"{", b"[]", b"\xff"])
def test_a_line_of_a_server_that_is_no_event_has_no_sender_either(line):
    assert {"ip", "user_agent"}.isdisjoint(json.loads(parse(line, "server").data))
    assert json.loads(parse(line, "browser").data)["ip"] == IP


@pytest.mark.parametrize(
    ("change", "kept", "why"),
    [
        ({"ip": "1.2.3"}, {"ip": "1.2.3"}, "ip: not an IP address"),
        ({"ip": "at 203.0.113.9!"}, {"ip": "at 203.0.113.0!"}, "ip: not an IP address"),
        ({"ip": ["2001:db8:1:2::3"]}, {"ip": ["2001:db8:1::"]}, "ip: not a string"),
        ({"ip": 7}, {"ip": 7}, "ip: not a string"),
        ({"ip": "203.0.113.9 " * 4000}, {"ip": ('"' + "203.0.113.0 " * 43)[:512]}, "ip: not an IP address"),
        ({"user_agent": 7}, {"user_agent": 7}, "user_agent: not a string"),
    ],
)
def test_a_server_keys_ip_and_agent_that_break_a_rule_cost_themselves(change, kept, why):
    found = stored(event(**{"user_agent": "Named/1", **change}), "server")
    assert found["invalid_fields"] == why
    assert json.loads(found["properties"]) == kept
    assert "ip" not in found
    assert found.get("user_agent") == (None if "user_agent" in change else "Named/1")
    assert found["received_at"] == NOW_MS


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("203.0.113.9:567", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%eth0]:80", "fe80::1"),
        ("2001:db8:1::7%eth0", "2001:db8:1::7"),
        ("10.0.0.1", "10.0.0.1"),
        ("203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("10.0.0.1, 203.0.113.9:80, 198.51.100.1", "203.0.113.9"),
        ("unknown, 192.168.0.1,100.64.0.1,fd00::1,::1, [2001:db8::7]:1", "2001:db8::7"),
        ("172.16.3.4, 10.0.0.1", "172.16.3.4"),
        ("172.32.3.4, 1.1.1.1", "172.32.3.4"),
        ("::ffff:10.0.0.1, ::ffff:8.8.8.8", "8.8.8.8"),
        ("unknown", None),
        ("", None),
        ("1.2.3", None),
        ("1.2.3.4:", None),
        ("1.2.3.4:x", None),
        ("%eth0", None),
        ("1.2.3.4 5.6.7.8", None),
        (" " * MAX_ADDRESS_CHARACTERS + "1.1.1.1", None),
    ],
)
def test_an_address_is_read_with_a_port_a_zone_or_a_list_around_it(named, address):
    assert sender_address(named) == address
    kept = stored(event(ip=named), "server")
    assert kept.get("ip") == address
    assert ("invalid_fields" in kept) == (address is None and named != "")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("203.0.113.9 and 2001:db8:1:2:3::4", "203.0.113.0 and 2001:db8:1::"),
        ("::ffff:203.0.113.9", "203.0.113.0"),
        ("version 1.2.3, 12:30, 999.1.1.1", "version 1.2.3, 12:30, 999.1.1.1"),
    ],
)
def test_a_text_around_an_address_keeps_only_its_network(text, masked):
    assert without_households(text) == masked
