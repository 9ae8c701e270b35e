"""The client's address of a request that came through proxies that we trust."""

import ipaddress
from collections.abc import Iterable, Sequence

from app.core.events.addresses import normal_address, without_port

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


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
        address = normal_address(without_port(hop))
        if address is None:
            return nearest
        nearest = address
        if not _is_trusted(address, trusted):
            return address
    return nearest


def _is_trusted(address: str, trusted: Sequence[IpNetwork]) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in trusted)
