"""User agents and addresses of tests, and their enrichment, for the pipeline and for the oracle."""

from typing import Any

from app.core.enrich.bots import CrawlerNetworks, parse_networks
from app.core.enrich.enrich import Location
from tests.builders.source_log import CHROME, GOOGLEBOT, IPHONE, enricher
from tests.oracle import Visitor

AGENTS = {
    CHROME: Visitor(None, "Chrome", "Windows", "desktop", None, "126.0.0.0", "10"),
    IPHONE: Visitor(None, "Mobile Safari", "iOS", "mobile", None, "17.5", "17.5"),
    GOOGLEBOT: Visitor("user_agent:Googlebot", None, None, None, None),
    "HeadlessChrome/1.0": Visitor("user_agent:Headless", None, None, None, None),
    "": Visitor("empty_user_agent", None, None, None, None),
}
ADDRESSES = {"203.0.113.77": "203.0.113.0", "198.51.100.9": "198.51.100.0", "2001:db8:1:2::3": "2001:db8:1::"}
CRAWLER_IP = "198.51.100.9"
GEO = {"203.0.113.77": "NZ"}
ENRICHER = enricher(
    networks=CrawlerNetworks(parse_networks("198.51.100.0/24 crawlers")), location_of=lambda ip: Location(GEO.get(ip))
)


def visitor_of(fields: dict[str, Any]) -> Visitor:
    """The visitor of a stored line. A server that names no agent is no bot for it; lines of version 1 name no key."""
    ip = fields.get("ip")
    agent = AGENTS[fields.get("user_agent", "")]
    bot = None if "user_agent" not in fields and fields.get("key_kind") == "server" else agent.bot
    bot = bot or ("network:crawlers" if ip == CRAWLER_IP else None)
    return agent._replace(bot="webdriver" if fields.get("webdriver") else bot, country=GEO.get(ip or ""))
