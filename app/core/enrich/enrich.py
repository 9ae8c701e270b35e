"""The facts that are added to an event: the reader, the place, and the article (rule J5).

Enrichment never decides whether, where or when a row is emitted, and no content makes it raise. Every look-up is cached by
its distinct value. Every text that it returns fits the warehouse's column: cut at a character, without NUL.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from app.core.enrich.bot_agents import BotAgents
from app.core.enrich.bots import CrawlerNetworks
from app.core.enrich.devices import read_device
from app.core.enrich.memo import Memo
from app.core.enrich.page_urls import PageUrl, read_url
from app.core.enrich.referrers import NO_REFERRER, Referrer
from app.core.enrich.text import clean
from app.core.events.canonical_json import cut_text

CACHED_AGENTS: Final = 65_536
CACHED_ADDRESSES: Final = 131_072
CACHED_URLS: Final = 8192
"""A URL and its facts may have 9 KB; articles that are read now are few."""
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
    browser_version: str | None = None
    os_version: str | None = None


class Origin(NamedTuple):
    """The facts about an IP address."""

    bot_rule: str | None
    country: str | None
    region: str | None
    city: str | None


AGENT_COLUMNS: Final = ("browser", "os", "device")
"""The columns of every event's row that come from its user agent."""
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


def from_nowhere(_: str | None, __: str | None) -> Referrer:
    """The referrer of every visit if no list of sites is loaded."""
    return NO_REFERRER


class Lists(NamedTuple):
    """What is known of the world; the adapter reads it from files once."""

    networks: CrawlerNetworks = CrawlerNetworks(())
    bots: BotAgents = BotAgents()
    referrer: Callable[[str | None, str | None], Referrer] = from_nowhere
    """Referrer and URL of a visit -> the place that it came from."""


class Enricher:
    """Every look-up of a step. Its caches do not change its answers, except if the geo database is replaced meanwhile."""

    def __init__(
        self,
        articles: DimensionRows,
        campaigns: DimensionRows,
        lists: Lists = Lists(),  # noqa: B008  # immutable
        location_of: LocationOf = nowhere,
    ) -> None:
        """Use these tables. They may change at any time; each row asks them anew."""
        self._articles = articles
        self._campaigns = campaigns
        self._lists = lists
        self._location_of = location_of
        self.agent: Callable[[str | None], Agent] = Memo(self._read_agent, CACHED_AGENTS).__getitem__
        """User agent -> the facts in it."""
        self.origin: Callable[[str | None], Origin] = Memo(self._read_origin, CACHED_ADDRESSES).__getitem__
        """IP address -> the facts about it."""
        self.page_url: Callable[[str | None], PageUrl] = Memo(read_url, CACHED_URLS).__getitem__
        """URL -> the facts in it."""
        self.referrer: Final = lists.referrer
        """Referrer and URL of a visit -> the place that it came from."""
        self.tells_places: Final = location_of is not nowhere
        """Whether an address may have a place."""

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

    def _read_agent(self, user_agent: str | None) -> Agent:
        return Agent(self._lists.bots.judge(user_agent), *read_device(user_agent))

    def _read_origin(self, ip: str | None) -> Origin:
        address = _address(ip)
        if address is None:
            return NO_ORIGIN
        network = self._lists.networks.name_of(address.version, address.value)
        if network is None and self._location_of is nowhere:
            return NO_ORIGIN
        rule = None if network is None else cut_text(f"network:{network}", 256)
        country, region, city = self._location_of(address.text)
        return Origin(rule, clean(country, 128), clean(region, 128), clean(city, 128))


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


def _text(fields: Mapping[str, Any], name: str, max_bytes: int) -> str | None:
    return clean(fields.get(name), max_bytes)
