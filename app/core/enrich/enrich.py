"""The facts that are added to an event: the reader, the place, and the article (rule J5).

Enrichment never decides whether, where or when a row is emitted, and no content makes it raise. Every look-up is cached by
its distinct value. Every text that it returns fits the warehouse's column: cut at a character, without NUL.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

import ua_parser

from app.core.enrich.bots import MAX_JUDGED_CHARACTERS, CrawlerNetworks, judge_user_agent
from app.core.enrich.memo import Memo
from app.core.events.canonical_json import cut_text, storable_text

CACHED_AGENTS: Final = 65_536
CACHED_ADDRESSES: Final = 131_072
_IPV6_DROPPED: Final = 80


class Location(NamedTuple):
    """The place of an address; None for each part that the geo database lacks."""

    country: str | None = None
    region: str | None = None
    city: str | None = None


LocationOf = Callable[[str], Location]
"""The place of a valid IP address; never raises."""


class Agent(NamedTuple):
    """The facts in a user agent."""

    bot_rule: str | None
    browser: str | None
    os: str | None
    device: str | None
    """`desktop`, `mobile`, `tablet`, `tv` or `console`; None if the user agent does not show it."""


class Origin(NamedTuple):
    """The facts about an IP address."""

    bot_rule: str | None
    country: str | None
    region: str | None
    city: str | None


AGENT_COLUMNS: Final = Agent._fields[1:]
"""The columns of a row that come from its user agent."""
ORIGIN_COLUMNS: Final = Origin._fields[1:]
"""The columns of a row that come from its address."""
NO_ORIGIN: Final = Origin(None, None, None, None)
"""The facts about most addresses if no geo database is configured."""


class Article(NamedTuple):
    """The attributes of an article in the dimension table."""

    title: str | None = None
    author_id: str | None = None
    section: str | None = None


class Campaign(NamedTuple):
    """The attributes of a campaign in the dimension table."""

    name: str | None = None
    network: str | None = None


class DimensionRows(Protocol):
    """A dimension table: id -> mapping of its fields, from a topic that any program may feed."""

    def get(self, key: str, /) -> Mapping[str, Any] | None:
        """The fields of `key`; None for an unknown one."""


def nowhere(_: str) -> Location:
    """The place of every address if no geo database is configured."""
    return Location()


class Enricher:
    """Every look-up of a step. Its caches do not change its answers, except if the geo database is replaced meanwhile."""

    def __init__(
        self,
        articles: DimensionRows,
        campaigns: DimensionRows,
        networks: CrawlerNetworks | None = None,
        location_of: LocationOf = nowhere,
    ) -> None:
        """Use these tables. They may change at any time; each row asks them anew."""
        self._articles = articles
        self._campaigns = campaigns
        self._networks = networks or CrawlerNetworks(())
        self._location_of = location_of
        self.agent: Callable[[str | None], Agent] = Memo(read_agent, CACHED_AGENTS).__getitem__
        """User agent -> the facts in it."""
        self.origin: Callable[[str | None], Origin] = Memo(self._read_origin, CACHED_ADDRESSES).__getitem__
        """IP address -> the facts about it."""

    def article(self, article_id: str | None) -> Article:
        """The attributes of an article now."""
        fields = self._articles.get(article_id) if article_id else None
        if not isinstance(fields, Mapping):
            return _NO_ARTICLE
        return Article(_text(fields, "title", 1024), _text(fields, "author_id", 128), _text(fields, "section", 128))

    def campaign(self, campaign_id: str | None) -> Campaign:
        """The attributes of a campaign now."""
        fields = self._campaigns.get(campaign_id) if campaign_id else None
        if not isinstance(fields, Mapping):
            return _NO_CAMPAIGN
        return Campaign(_text(fields, "name", 1024), _text(fields, "network", 128))

    def _read_origin(self, ip: str | None) -> Origin:
        address = _address(ip)
        if address is None:
            return NO_ORIGIN
        network = self._networks.name_of(address.version, address.value)
        if network is None and self._location_of is nowhere:
            return NO_ORIGIN
        rule = None if network is None else cut_text(f"network:{network}", 256)
        country, region, city = self._location_of(address.text)
        return Origin(rule, _clean(country, 128), _clean(region, 128), _clean(city, 128))


_NO_ARTICLE: Final = Article()
_NO_CAMPAIGN: Final = Campaign()


class _Address(NamedTuple):
    version: int
    value: int
    text: str


_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}")
"""The texts that `ipaddress` takes for an IPv4 address; a match takes a fifth of its time."""


@lru_cache(maxsize=4096)
def truncated_ip(ip: str | None) -> str | None:
    """An IP address with the bits of one household set to zero (/24, /48); None for a text that is no address (J5)."""
    if ip and _IPV4.fullmatch(ip):
        return ip[: ip.rindex(".")] + ".0"
    address = _address(ip)
    if address is None:
        return None
    if address.version == 4:
        return truncated_ip(address.text)
    return str(ipaddress.IPv6Address(address.value >> _IPV6_DROPPED << _IPV6_DROPPED))


def _address(ip: str | None) -> _Address | None:
    """The address in `ip`; IPv4 inside IPv6 counts as IPv4."""
    if ip and (octets := _IPV4.fullmatch(ip)):
        a, b, c, d = map(int, octets.groups())
        return _Address(4, a << 24 | b << 16 | c << 8 | d, ip)
    try:
        address = ipaddress.ip_address(ip or "")
    except ValueError:
        return None
    address = (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address
    return _Address(address.version, int(address), str(address))


def read_agent(user_agent: str | None) -> Agent:
    """Browser, operating system and class of device of a user agent, and the rule that names it a bot."""
    rule = judge_user_agent(user_agent)
    text = (user_agent or "")[:MAX_JUDGED_CHARACTERS]
    parsed = ua_parser.parse(text)
    browser = None if parsed.user_agent is None else _clean(parsed.user_agent.family, 64)
    os = None if parsed.os is None else _clean(parsed.os.family, 64)
    family = None if parsed.device is None else parsed.device.family
    return Agent(rule, browser, os, _device_class(text, os, family))


_CLASS_OF_OS: Final = {
    **dict.fromkeys(("Windows", "Mac OS X", "Linux", "Ubuntu", "Chrome OS", "Fedora", "Debian", "FreeBSD"), "desktop"),
    **dict.fromkeys(("iOS", "Windows Phone", "KaiOS", "BlackBerry OS"), "mobile"),
    **dict.fromkeys(("tvOS", "Tizen", "WebOS", "webOS", "Roku", "Chromecast", "FireOS TV"), "tv"),
}


def _device_class(text: str, os: str | None, family: str | None) -> str | None:
    """The class of device; the order matters (an iPad's system is iOS, an Android tablet does not say `Mobile`)."""
    if any(mark in text for mark in ("SmartTV", "SMART-TV", "Smart TV", "AppleTV", "GoogleTV", "BRAVIA", "; AFT")):
        return "tv"
    if any(mark in text for mark in ("PlayStation", "Xbox", "Nintendo")):
        return "console"
    if family == "iPad" or "Tablet" in text:
        return "tablet"
    if os == "Android":
        return "mobile" if "Mobile" in text else "tablet"
    return _CLASS_OF_OS.get(os or "")


def _text(fields: Mapping[str, Any], name: str, max_bytes: int) -> str | None:
    return _clean(fields.get(name), max_bytes)


def _clean(value: object, max_bytes: int) -> str | None:
    """`value` as a column holds it; None for an empty string and for any other type."""
    if not isinstance(value, str) or not value:
        return None
    if len(value) <= max_bytes and value.isascii() and "\0" not in value:  # nearly always, and ten times as fast
        return value
    return cut_text(storable_text(value), max_bytes)
