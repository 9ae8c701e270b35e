"""The client's address of a request that came through proxies that we trust."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

from app.core.events.fields import normal_address

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_WITH_PORT: Final = re.compile(r"\[(?P<six>[^]]+)\](?::\d+)?|(?P<four>\d+\.\d+\.\d+\.\d+):\d+")


def read_networks(texts: Iterable[str]) -> tuple[IpNetwork, ...]:
    """The networks of TRUSTED_PROXIES, which the settings have checked."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def client_address(remote: str | None, forwarded: Sequence[str], trusted: Sequence[IpNetwork]) -> str | None:
    """The right-most address that is not a trusted proxy's.

    Args:
        remote: the connection's peer.
        forwarded: the X-Forwarded-For headers, in order, each a comma-separated list.
        trusted: networks of proxies that we believe.

    Returns: an address in its normal spelling; if every address is trusted, the furthest one; None without a peer.
    """
    nearest = normal_address(remote or "")
    if nearest is None or not _is_trusted(nearest, trusted):
        return nearest
    for hop in reversed([part.strip() for header in forwarded for part in header.split(",")]):
        address = normal_address(_without_port(hop))
        if address is None:
            return nearest
        nearest = address
        if not _is_trusted(address, trusted):
            return address
    return nearest


def _is_trusted(address: str, trusted: Sequence[IpNetwork]) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in trusted)


def _without_port(hop: str) -> str:
    match = _WITH_PORT.fullmatch(hop)
    return (match["six"] or match["four"]) if match else hop
