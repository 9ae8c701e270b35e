"""Bots are named by a rule and kept (rule J4)."""

import ipaddress
from pathlib import Path

import pytest

import app.core.enrich
from app.core.enrich.bots import CrawlerNetworks, parse_networks
from app.errors import ConfigurationError
from tests.builders.source_log import GOOGLEBOT, block, enricher, etl_rules, event, log_of, second, tick
from tests.worlds.etl_run import Run, ledger_of

SHIPPED = Path(app.core.enrich.__file__).with_name("crawler_networks.txt")


def name_of(networks: CrawlerNetworks, ip: str) -> str | None:
    address = ipaddress.ip_address(ip)
    return networks.name_of(address.version, int(address))


def test_the_narrowest_network_names_the_bot() -> None:
    networks = CrawlerNetworks(parse_networks("10.0.0.0/8 wide # all\n\n# none\n10.1.0.0/16 narrow\n2001:db8::/32 six"))
    named = {ip: name_of(networks, ip) for ip in ("10.1.2.3", "10.2.2.3", "11.0.0.1", "2001:db8::1", "::1")}
    assert named == {"10.1.2.3": "narrow", "10.2.2.3": "wide", "11.0.0.1": None, "2001:db8::1": "six", "::1": None}


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.0.0.1/8 host-bits", "ten/8 x", "10.0.0.0/8 two words"])
def test_a_line_that_is_no_network_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        parse_networks("# first\n" + text)


def test_the_shipped_file_reads() -> None:
    networks = CrawlerNetworks(parse_networks(SHIPPED.read_text()))
    assert name_of(networks, "66.249.66.1") == "googlebot"
    assert name_of(networks, "203.0.113.77") is None


def test_rules_have_an_order_and_bots_stay_out_of_the_join() -> None:
    lookups = enricher(networks=CrawlerNetworks(parse_networks("203.0.113.0/24 crawlers")))
    run = Run(etl_rules(), lookups).feed(log_of([
        block(
            event("b1", webdriver=True, user_agent=GOOGLEBOT), event("b2", user_agent=None),
            event("b3", user_agent=GOOGLEBOT), event("b4"), second("s1", ip="192.0.2.1"), event("b4", ip="192.0.2.1"),
        ),
        tick(s0=300),
    ]))  # fmt: skip
    assert {row["event_id"]: row["reason"] for row in run.rows("rejected")} == {
        "b1": "webdriver", "b2": "empty_user_agent", "b3": "user_agent:Googlebot", "b4": "network:crawlers",
    }  # fmt: skip
    assert all(row["kind"] == "bot" and '"event_id":"b' in row["payload"] for row in run.rows("rejected"))
    assert not run.rows("page_views")
    assert [row["reason"] for row in run.rows("engagements")] == ["no_first"]
    assert {outcome for _, line, outcome in ledger_of(run.steps) if line == 5} == {"duplicate"}, "a bot's id is remembered"
