"""Bots: user agents, `webdriver` and crawler networks, each by a named rule (rule J4).

    webdriver            the browser says that a program drives it
    empty_user_agent     no user agent, or only blanks
    user_agent:<word>    the maintained list of crawlers knows it; <word> is the part that it recognised
    network:<name>       the address lies in a known crawler network

The first rule that matches names the bot, in this order.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple

from crawlerdetect import CrawlerDetect

from app.core.events.canonical_json import cut_text, storable_text
from app.errors import ConfigurationError

WEBDRIVER: Final = "webdriver"
EMPTY_USER_AGENT: Final = "empty_user_agent"
MAX_JUDGED_CHARACTERS: Final = 512
"""Only so much of a user agent is read, because the list's patterns take quadratic time on endless words."""
MAX_WORD_BYTES: Final = 64

_crawlers: Final = CrawlerDetect()


class Network(NamedTuple):
    """A crawler's network."""

    cidr: ipaddress.IPv4Network | ipaddress.IPv6Network
    name: str


def parse_networks(text: str) -> list[Network]:
    """The networks in a file's text: `CIDR name` a line, `#` starts a comment.

    Raises:
        ConfigurationError: a line is neither a network nor a comment; the text names the line.
    """
    networks = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            cidr, name = words
            networks.append(Network(ipaddress.ip_network(cidr), name))
        except ValueError as exc:
            raise ConfigurationError(f"crawler networks, line {number}: {line.strip()!r} is not `CIDR name`: {exc}") from exc
    return networks


class CrawlerNetworks:
    """Finds the network of an address. The time for it does not grow with the number of networks."""

    def __init__(self, networks: Iterable[Network]) -> None:
        by_width: dict[int, dict[int, dict[int, str]]] = {}
        for cidr, name in networks:
            shift = cidr.max_prefixlen - cidr.prefixlen
            by_width.setdefault(cidr.version, {}).setdefault(shift, {})[int(cidr.network_address) >> shift] = name
        self._of_version = {version: sorted(widths.items()) for version, widths in by_width.items()}
        """IP version -> the networks of each width, the narrowest first, by the bits that name them."""

    def name_of(self, version: int, value: int) -> str | None:
        """The name of the narrowest known network that holds an address (IP version, number); None if none does."""
        for shift, names in self._of_version.get(version, ()):
            name = names.get(value >> shift)
            if name is not None:
                return name
        return None


def judge_user_agent(user_agent: str | None) -> str | None:
    """The rule that names `user_agent` a bot; None if it may be a person. A call takes some 0.1 ms: cache the answer."""
    if user_agent is None or not user_agent.strip():
        return EMPTY_USER_AGENT
    if not _crawlers.is_crawler(user_agent[:MAX_JUDGED_CHARACTERS]):
        return None
    word = storable_text(_crawlers.get_matches() or "").strip()
    return f"user_agent:{cut_text(word, MAX_WORD_BYTES)}"
