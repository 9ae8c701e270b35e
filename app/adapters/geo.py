"""The places of IP addresses: a database in MaxMind's format, read from disk (rule J5).

Source: the format is described at maxmind.github.io/MaxMind-DB; GeoLite2-City, GeoIP2-City and DB-IP City files fit.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import maxminddb
import structlog
from prometheus_client import Counter

from app.core.enrich.enrich import Location, nowhere
from app.errors import ConfigurationError
from app.settings import Settings

log = structlog.get_logger(__name__)
UNREADABLE = Counter("instream_geo_unreadable_total", "Addresses whose entry in the geo database could not be read")


def location_lookup(settings: Settings) -> Callable[[str], Location]:
    """Looks up the place of an address in `settings.geo_database`; without a database no address has a place.

    Raises:
        ConfigurationError: the file is missing or no such database.
    """
    if settings.geo_database is None:
        return nowhere
    return GeoDatabase(settings.geo_database).location_of


class GeoDatabase:
    """One open .mmdb file, mapped into memory. It may be closed; the end of the process closes it too."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = maxminddb.open_database(path, maxminddb.MODE_AUTO)
        except (OSError, maxminddb.InvalidDatabaseError) as exc:
            raise ConfigurationError(f"INSTREAM_GEO_DATABASE {path}: {exc}; give a MaxMind-format .mmdb file") from exc

    def location_of(self, ip: str) -> Location:
        """Country (ISO code), region and city (English names) of `ip`; a value that the database does not have is None."""
        try:
            entry = self._reader.get(ip)
        except (ValueError, maxminddb.InvalidDatabaseError) as exc:
            # An IPv6 address in a database of IPv4, or a damaged entry: the event has no place, but it is not lost.
            UNREADABLE.inc()
            log.debug("address has no readable entry", error=str(exc))
            return Location()
        if not isinstance(entry, dict):
            return Location()
        country = entry.get("country") or entry.get("registered_country")
        regions = entry.get("subdivisions")
        region = regions[0] if isinstance(regions, list) and regions else None
        code = country.get("iso_code") if isinstance(country, dict) else None
        return Location(code if isinstance(code, str) else None, _english(region), _english(entry.get("city")))

    def close(self) -> None:
        """Unmap the file."""
        self._reader.close()


def _english(named: Any) -> str | None:
    names = named.get("names") if isinstance(named, dict) else None
    name = names.get("en") if isinstance(names, dict) else None
    return name if isinstance(name, str) else None
