"""IP addresses as clients and proxies write them: with a port, with a zone, in a list."""

import ipaddress
import re
from functools import lru_cache
from typing import Final

MAX_ADDRESS_CHARACTERS: Final = 512
"""A longer text is no address: a list of proxies is a fifth of this, and the cache below holds whole texts."""
_WITH_PORT: Final = re.compile(r"\[(?P<six>[^]]+)\](?::\d+)?|(?P<four>\d+\.\d+\.\d+\.\d+):\d+")
_INSIDE: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:]+(?:\.\d{1,3}){0,3}")
_OF_ONE_HOUSEHOLD: Final = {4: 24, 6: 48}
"""IP version -> the bits of an address that do not tell one household from its neighbours (rule J5)."""
_NOT_PUBLIC: Final = tuple(map(ipaddress.ip_network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)))  # fmt: skip
"""Networks whose addresses say nothing about a place: those of one machine, one site, one provider, and of groups."""


@lru_cache(maxsize=4096)
def normal_address(text: str) -> str | None:
    """An IP address in its one spelling (IPv4 inside IPv6 as IPv4, no zone); None for a text that is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return str(address.ipv4_mapped or address)
    return str(address)


def without_port(text: str) -> str:
    """`text` without the port of `1.2.3.4:567` and `[2001:db8::1]:567`."""
    match = _WITH_PORT.fullmatch(text)
    return (match["six"] or match["four"]) if match else text


def sender_address(text: str) -> str | None:
    """The address that a server names for its visitor, in its one spelling; None if there is none in `text`.

    Of a list, which is a forwarded X-Forwarded-For, the first public address counts; without one, the first address.
    """
    return _sender_address(text) if len(text) <= MAX_ADDRESS_CHARACTERS else None


@lru_cache(maxsize=4096)
def _sender_address(text: str) -> str | None:
    hops = [without_port(part.strip()).partition("%")[0] for part in text.split(",")]
    addresses = [address for hop in hops if (address := normal_address(hop)) is not None]
    return next(filter(_is_public, addresses), addresses[0] if addresses else None)


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not any(parsed in network for network in _NOT_PUBLIC)


def without_households(text: str) -> str:
    """`text` in which every IP address is that of its network (/24, /48); no other character changes."""
    return _INSIDE.sub(_network_of, text)


def _network_of(found: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return found[0]  # a text that is no address names no person
    address = (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address
    network = ipaddress.ip_network((int(address), address.max_prefixlen))
    return str(network.supernet(new_prefix=_OF_ONE_HOUSEHOLD[address.version]).network_address)
