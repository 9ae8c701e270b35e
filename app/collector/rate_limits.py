"""The rate limits of write keys and of addresses; each is off unless its setting is given."""

import ipaddress
import math

from app.core.rate_limit import RateLimit
from app.errors import RequestRejected
from app.settings import Settings


class RateLimits:
    """Counts the requests of each address, whatever becomes of them, and those of each known key."""

    def __init__(self, settings: Settings) -> None:
        address_rate, key_rate = settings.address_requests_per_s, settings.key_requests_per_s
        self._addresses = RateLimit(address_rate) if address_rate else None
        self._keys = RateLimit(key_rate) if key_rate else None

    @property
    def counts_addresses(self) -> bool:
        """Whether addresses have a limit."""
        return self._addresses is not None

    def check_address(self, address: str | None, now_s: float) -> None:
        """Count a request of an address; IPv6 addresses of one /64 are one client's.

        Raises:
            RequestRejected: 429.
        """
        if self._addresses is not None:
            _check(self._addresses, _client(address), now_s, "address")

    def check_key(self, key: str, now_s: float) -> None:
        """Count a request with a known key.

        Raises:
            RequestRejected: 429.
        """
        if self._keys is not None:
            _check(self._keys, key, now_s, "write key")


def _check(limit: RateLimit, name: str, now_s: float, whose: str) -> None:
    if (wait_s := limit.wait_s(name, now_s)) > 0:
        raise RequestRejected(429, "rate_limited", f"this {whose} sends too many requests", max(1, math.ceil(wait_s)))


def _client(address: str | None) -> str:
    if address is None or ":" not in address:
        return address or "unknown"
    return str(ipaddress.ip_network((address, 64), strict=False))
