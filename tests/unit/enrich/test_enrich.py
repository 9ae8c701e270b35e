"""Enrichment: visitors, places, campaigns, referrers, dimensions (rule J5)."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.geo import GeoDatabase, location_lookup
from app.core.enrich.enrich import Article, Campaign, Enricher, Lists, Location, truncated_ip
from app.core.etl.rejected_rows import without_address
from app.errors import ConfigurationError
from app.settings import Settings
from tests.builders.mmdb import write_mmdb
from tests.builders.source_log import block, enricher, etl_rules, event, log_of, tick
from tests.worlds.etl_run import Run


@pytest.mark.parametrize(("ip", "expected"), [
    ("203.0.113.77", "203.0.113.0"), ("255.255.255.255", "255.255.255.0"), ("2001:db8:1:2:3::4", "2001:db8:1::"),
    ("::ffff:203.0.113.77", "203.0.113.0"), ("", None), (None, None), ("203.0.113.77:80", None), ("unknown", None),
])  # fmt: skip
def test_addresses_lose_their_last_bits(ip: str | None, expected: str | None) -> None:
    assert truncated_ip(ip) == expected


@given(st.one_of(
    st.ip_addresses().map(str), st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){2,4}", fullmatch=True), st.text(max_size=20),
))  # fmt: skip
def test_an_address_is_what_the_standard_library_takes_for_one(ip: str) -> None:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        assert truncated_ip(ip) is None
        return
    mapped = getattr(address, "ipv4_mapped", None) or address
    dropped = 8 if mapped.version == 4 else 80
    assert truncated_ip(ip) == str(type(mapped)(int(mapped) >> dropped << dropped))


@given(st.text(), st.one_of(st.none(), st.text()))
def test_no_visitor_raises(ip: str, user_agent: str | None) -> None:
    lookups = enricher()
    assert lookups.origin(ip).country is None or truncated_ip(ip)
    assert len((lookups.agent(user_agent).browser or "").encode()) <= 64


def test_dimensions_that_do_not_fit_are_left_out() -> None:
    lookups = enricher(
        {"a1": {"title": "T\0", "author_id": 5, "section": "s" * 200}, "a2": "no mapping"},
        {"c1": {"name": "", "network": "net"}},
    )
    assert lookups.article("a1") == Article("T\N{REPLACEMENT CHARACTER}", None, "s" * 128)
    assert lookups.article("a2") == lookups.article("gone") == lookups.article(None) == Article()
    assert lookups.campaign("c1") == Campaign(None, "net")


def test_rows_are_enriched_and_events_keep_what_they_say() -> None:
    lookups = enricher(
        {"a1": {"title": "Title", "author_id": "au1", "section": "sport"}},
        {"summer": {"name": "Summer", "network": "Net"}},
        location_of=lambda _: Location("NZ", "Wellington", "Wellington"),
    )
    page = event(
        "e1", url="https://n.example/?utm_campaign=summer", referrer="https://bing.com/", article_id="a1", section="own"
    )
    paid = event("e2", "redirect", view=None, url="https://n.example/?utm_campaign=x", campaign_id="summer", cost_micros=3)
    run = Run(etl_rules(), lookups).feed(log_of([block(page, paid), tick(s0=121)]))
    [row] = run.rows("page_views")
    assert (row["article_title"], row["author_id"], row["section"]) == ("Title", "au1", "own")
    assert (row["campaign_id"], row["campaign_name"], row["campaign_network"]) == ("summer", "Summer", "Net")
    assert (row["referrer_medium"], row["referrer_source"]) == ("search", "Bing")
    assert (row["country"], row["region"], row["city"]) == ("NZ", "Wellington", "Wellington")
    [row] = run.rows("redirects")
    assert (row["campaign_id"], row["campaign_name"], row["cost_micros"]) == ("summer", "Summer", 3)


def test_an_address_never_leaves_the_etl() -> None:
    run = Run(etl_rules(), enricher()).feed(log_of([block(
        event("e1"), event("e2", webdriver=True), {"malformed": "url: not a string", "payload": '{"ip": "203.0.113.77"}',
        "received_at": event("x")["received_at"], "ip": "203.0.113.77"},
    ), tick(s0=1)]))  # fmt: skip
    [bot, broken] = sorted(run.rows("rejected"), key=lambda row: row["kind"])
    assert bot["ip"] == broken["ip"] == "203.0.113.0"
    assert '"ip":"203.0.113.0"' in bot["payload"]
    assert broken["payload"] == '{"ip": "203.0.113.0"}'
    everything = repr(run.rows("rejected")).encode() + b"".join(run.state.tables["pending"].values())
    assert b"203.0.113.77" not in everything


@pytest.mark.parametrize(
    ("held", "kept"),
    [
        ("198.51.100.9", "198.51.100.0"), ("198.51.100.9:443, 10.1.2.3", "198.51.100.0:443, 10.1.2.0"),
        ("[2001:db8:1:2::3]:443", "[2001:db8:1::]:443"), ("::ffff:198.51.100.9", "198.51.100.0"),
        ("fe80::1%eth0", "fe80::%eth0"),
        ("no address: 7", "no address: 7"), ("999.1.1.1", "999.1.1.1"), ("", ""),
    ],
)  # fmt: skip
def test_addresses_in_a_payloads_ip_field_are_truncated_and_what_is_none_stays(held: str, kept: str) -> None:
    assert without_address(f'{{"ip" : "{held}","x":1}}', "203.0.113.77") == f'{{"ip" : "{kept}","x":1}}'


# --- the geo database, for real

PLACES = {
    "203.0.113.0/24": {
        "country": {"iso_code": "NZ"}, "subdivisions": [{"names": {"en": "Otago"}}], "city": {"names": {"en": "Dunedin"}},
    },
    "198.51.100.0/25": {"registered_country": {"iso_code": "FR"}, "subdivisions": [], "city": {"names": {"fr": "Lyon"}}},
    "2001:db8::/32": {"country": {"iso_code": "DE"}, "city": "odd"},
}  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "city.mmdb"
    path.write_bytes(write_mmdb(PLACES))
    return path


def test_places_come_from_the_database(database: Path) -> None:
    geo = GeoDatabase(database)
    assert geo.location_of("203.0.113.77") == Location("NZ", "Otago", "Dunedin")
    assert geo.location_of("198.51.100.1") == Location("FR", None, None)
    assert geo.location_of("198.51.100.200") == Location()
    assert geo.location_of("2001:db8::1") == Location("DE", None, None)
    assert geo.location_of("no address") == Location()
    lookups = Enricher({}, {}, Lists(), geo.location_of)
    assert lookups.origin("203.0.113.9").city == "Dunedin"
    geo.close()


def test_the_setting_opens_the_database(database: Path) -> None:
    assert location_lookup(Settings(geo_database=database))("203.0.113.77").country == "NZ"
    assert location_lookup(Settings(geo_database=None))("203.0.113.77") == Location()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.mmdb"
    with pytest.raises(ConfigurationError, match="INSTREAM_GEO_DATABASE"):
        GeoDatabase(path)
    path.write_bytes(b"something else")
    with pytest.raises(ConfigurationError, match="MaxMind"):
        GeoDatabase(path)
