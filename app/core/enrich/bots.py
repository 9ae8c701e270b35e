"""Bots by `webdriver` and by their networks, each by a named rule (rule J4).

    webdriver            the browser says that a program drives it
    (user agents)        the rules of `app.core.enrich.bot_agents`
    network:<name>       the address lies in a known network from which only programs come

The first rule that matches names the bot, in this order.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple

from app.errors import ConfigurationError

WEBDRIVER: Final = "webdriver"


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
